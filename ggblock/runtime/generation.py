"""One text in the making: tokens are chosen one after another and come out as pieces of text."""
from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ggblock import errors
from ggblock.runtime.cache import TokenCache
from ggblock.runtime.sampling import Sampler
from ggblock.runtime.stopping import StopFilter

if TYPE_CHECKING:
    from ggblock.tokenizer import Tokenizer

FinishReason = Literal["stop", "stop_string", "length", "context", "cancelled"]
"""Why a text ended: the model ended it, a stop string came up, max_tokens, the context is full, `cancel`."""


@dataclass(frozen=True)
class Timings:
    """Where the time of one generation went, in seconds, without the time the caller spends between pieces."""

    load_s: float
    """Loading the model, before the first generation."""
    prompt_tokens: int
    """Tokens of the prompt."""
    reused_tokens: int
    """Those of them that the KV cache held already."""
    prompt_s: float
    """Reading the others."""
    first_token_s: float | None
    """From the start of the generation to the first chosen token."""
    generated_tokens: int
    """Tokens chosen."""
    decode_tokens: int
    """Forward passes of one token after the prompt."""
    decode_s: float
    """Time of these passes, sampling included."""

    @property
    def prefill_tokens_per_s(self) -> float | None:
        """Prompt tokens computed in a second; None when none were."""
        n_tokens = self.prompt_tokens - self.reused_tokens
        return n_tokens / self.prompt_s if self.prompt_s > 0 and n_tokens > 0 else None

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Tokens generated in a second after the first one; None when there is only one."""
        return self.decode_tokens / self.decode_s if self.decode_s > 0 else None


@dataclass(frozen=True)
class Result:
    """What a generation produced (so far, while ``finish_reason`` is None)."""

    text: str
    """Everything the pieces said."""
    ids: tuple[int, ...]
    """Tokens chosen, without the one that ended the text; those of a stop string are among them."""
    prompt_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    stop_string: str | None
    """The stop string that ended the text."""
    seed: int
    """Repeats the generation, also when no seed was given."""
    timings: Timings


class Generation(Iterator[str]):
    """An iterator over pieces of text; made by `Model.generate` and `Model.chat`.

    Pieces are whole characters, never empty. `result` tells the rest at any time. Between two pieces other generations
    of the same model may run: what they overwrite in the KV cache is then read again.
    """

    def __init__(
        self,
        cache: TokenCache,
        tokenizer: Tokenizer | None,
        sampler: Sampler,
        prompt_ids: Sequence[int],
        *,
        n_ctx: int,
        max_tokens: int,
        stop: Iterable[str] = (),
        reuse: bool = False,
        load_s: float = 0.0,
    ) -> None:
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < -1:
            raise errors.SettingError("not a count", where="max_tokens", expected="-1 or larger", actual=max_tokens)
        cache.check_fits(len(prompt_ids))
        self._cache = cache
        self._sampler = sampler
        self._stream = None if tokenizer is None else tokenizer.stream()
        self._ends = frozenset() if tokenizer is None else tokenizer.eog_ids
        self._filter = StopFilter(stop)
        self._ids = list(prompt_ids)
        self._n_prompt = len(self._ids)
        self._n_ctx = n_ctx
        self._max_tokens = max_tokens
        self._reuse = reuse
        self._load_s = load_s
        self._reason: FinishReason | None = "length" if max_tokens == 0 else None
        self._is_cancelled = False
        self._is_begun = False
        self._texts: list[str] = []
        self._n_reused = 0
        self._prompt_s = 0.0
        self._first_token_s: float | None = None
        self._n_decoded = 0
        self._decode_s = 0.0

    def __iter__(self) -> Generation:
        return self

    def __next__(self) -> str:
        while self._reason is None:
            piece = self._step()
            if piece:
                self._texts.append(piece)
                return piece
        raise StopIteration

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended; None while it goes on."""
        return self._reason

    @property
    def result(self) -> Result:
        """Everything so far."""
        ids = self._ids[self._n_prompt :]
        return Result(
            text="".join(self._texts),
            ids=tuple(ids),
            prompt_ids=tuple(self._ids[: self._n_prompt]),
            finish_reason=self._reason,
            stop_string=self._filter.matched,
            seed=self._sampler.seed,
            timings=Timings(
                load_s=self._load_s,
                prompt_tokens=self._n_prompt,
                reused_tokens=self._n_reused,
                prompt_s=self._prompt_s,
                first_token_s=self._first_token_s,
                generated_tokens=len(ids),
                decode_tokens=self._n_decoded,
                decode_s=self._decode_s,
            ),
        )

    def run(self) -> Result:
        """Generate to the end."""
        for _ in self:
            pass
        return self.result

    def cancel(self) -> None:
        """End at the next token; what is held back comes out first. May be called from a signal handler or a thread."""
        self._is_cancelled = True

    def _step(self) -> str:
        """Choose one token; the text that became certain by it, which may be empty."""
        if self._is_cancelled:
            return self._finish("cancelled")
        start = time.perf_counter()
        is_first = not self._is_begun
        if is_first:
            logits, self._n_reused = self._cache.read(
                self,
                self._ids,
                reuse=self._reuse,
                best=self._sampler.n_best,
                is_cancelled=lambda: self._is_cancelled,
            )
            if logits is None:
                return self._finish("cancelled")
            self._prompt_s = time.perf_counter() - start
            self._sampler.accept(self._ids)
            self._is_begun = True
        else:
            logits = self._cache.append(self, self._ids, self._sampler.n_best)
        token = self._sampler.sample(logits)
        elapsed = time.perf_counter() - start
        if is_first:
            self._first_token_s = elapsed
        else:
            self._n_decoded += 1
            self._decode_s += elapsed
        if token in self._ends:
            return self._finish("stop")
        self._ids.append(token)
        self._sampler.accept((token,))
        text = "" if self._stream is None else self._filter.push(self._stream.push(token))
        if self._filter.matched is not None:
            self._reason = "stop_string"
        elif len(self._ids) - self._n_prompt == self._max_tokens:
            text += self._finish("length")
        elif len(self._ids) > self._n_ctx:
            # The chosen token is the first one without a place, so it can be said but not be continued.
            text += self._finish("context")
        return text

    def _finish(self, reason: FinishReason) -> str:
        """End for this reason; returns what is still held back (half a character comes out as U+FFFD)."""
        self._reason = reason
        if self._stream is None:
            return ""
        text = self._filter.push(self._stream.flush())
        if self._filter.matched is not None:
            self._reason = "stop_string"
        return text + self._filter.flush()
