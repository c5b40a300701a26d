"""`Model`: a loaded file that reads and writes text. Made by `ggblock.load`."""
from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ggblock import errors
from ggblock.runtime.cache import Engine, TokenCache
from ggblock.runtime.generation import Generation
from ggblock.runtime.sampling import Sampler
from ggblock.runtime.settings import Sampling, SamplingOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ggblock.format import GgufFile
    from ggblock.runtime.session import Session
    from ggblock.tokenizer import Tokenizer
    from ggblock.tokenizer.chat import ChatTemplate

Message = Mapping[str, Any]
"""One message of a conversation: ``{"role": "user", "content": "..."}`` and whatever else the template reads."""

_FALLBACK_STOPS = ("<|im_end|>", "<|im_start|>")
"""With the built-in template the vocabulary may spell its markers out instead of having tokens for them."""


class Model:
    """A model ready to run; close it or use it in a ``with`` statement. One generation computes at a time.

    Args:
        file: the open file, closed with the model.
        engine: what computes logits, closed with the model.
        load_s: seconds that loading took.
        notify: gets lines that a person should see; without it they become warnings.
    """

    def __init__(
        self, file: GgufFile, engine: Engine, *, load_s: float = 0.0, notify: Callable[[str], None] | None = None
    ) -> None:
        self.file = file
        self.engine = engine
        self.load_s = load_s
        self.cache = TokenCache(engine)
        self._notify = notify
        self._is_closed = False

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release threads, memory and the file. More than once is fine."""
        if not self._is_closed:
            self._is_closed = True
            self.engine.close()
            self.file.close()

    @property
    def path(self) -> str:
        """Where the file lies."""
        return os.fspath(self.file.path)

    @property
    def n_vocab(self) -> int:
        """Length of a row of logits."""
        return self.engine.n_vocab

    @property
    def n_ctx(self) -> int:
        """Tokens that prompt and answer may have together."""
        return self.engine.n_ctx

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The file's tokenizer. Raises `MissingVocabulary` when it has none, `TokenizerError` when it is unusable."""
        from ggblock import tokenizer

        return tokenizer.from_metadata(self.file.metadata)

    @property
    def has_chat_template(self) -> bool:
        """Whether the file brings a chat template of its own."""
        return bool(self._template_source)

    @property
    def _template_source(self) -> str | None:
        source = self.file.metadata.get("tokenizer.chat_template")
        return source if isinstance(source, str) and source.strip() else None

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """The file's chat template, or the built-in ChatML one, which is said aloud."""
        from ggblock.tokenizer.chat import ChatTemplate

        def text_of(token: int | None) -> str:
            return "" if token is None else self.tokenizer.token_text(token)

        if not self._template_source:
            self._say("the file has no chat template; using the built-in ChatML one, which the model may not know")
        return ChatTemplate(self._template_source, text_of(self.tokenizer.bos_id), text_of(self.tokenizer.eos_id))

    def tokenize(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``.

        Args:
            text: any text with a UTF-8 form.
            add_special: add the tokens that the vocabulary puts around a text, such as BOS.
            parse_special: read ``<|im_start|>`` and the like as the tokens they name instead of as plain text.

        Raises:
            InvalidText: lone surrogates.
            MissingVocabulary: the file has no tokenizer.
        """
        return self.tokenizer.tokenize(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, ids: Iterable[int]) -> str:
        """Text of token ids."""
        return self.tokenizer.detokenize(list(ids))

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits of every token: float32 (n_tokens, n_vocab); row i belongs to the token after ``ids[i]``.

        Always computed from the first token.

        Raises:
            ContextOverflow: more tokens than the context holds.
            SettingError: no tokens, or a token outside the vocabulary.
        """
        return self.cache.all_logits(self._checked(ids))

    def generate(
        self,
        prompt: str | Sequence[int],
        max_tokens: int = 128,
        *,
        stop: Iterable[str] = (),
        reuse: bool = False,
        add_special: bool = True,
        parse_special: bool = False,
        sampling: Sampling | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Generation:
        """Continue a text, piece by piece::

            for piece in model.generate("Once upon a time", max_tokens=128, temperature=0.8, seed=1):
                print(piece, end="")

        Args:
            prompt: a text, or token ids as they are.
            max_tokens: at most so many; 0 generates nothing, -1 goes on until the context is full.
            stop: texts that end the generation and are not part of it.
            reuse: keep what the KV cache holds of the prompt's beginning. Faster, but the cached values come from other
                batch sizes and may differ in the last bits, so that only a fresh read (False) gives the same text for
                the same seed whatever ran before.
            add_special, parse_special: as for `tokenize`; without effect on token ids.
            sampling: settings as one object, instead of ``options``.
            options: see `Sampling`: temperature, top_k, top_p, min_p, typical, repeat_penalty, repeat_last_n,
                frequency_penalty, presence_penalty, logit_bias, seed.

        Returns:
            a `Generation`: iterate over it; its ``result`` has text, ids, finish reason and timings. Nothing is
            computed before the first step.

        Raises:
            ContextOverflow: the prompt is longer than the context.
            SettingError: a bad setting, an empty prompt, or a token outside the vocabulary.
            MissingVocabulary: a text prompt, and the file has no tokenizer.
        """
        if isinstance(prompt, str):
            ids = self.tokenize(prompt, add_special, parse_special)
            if not ids:
                raise errors.SettingError(
                    "empty, and this vocabulary does not begin a text with a token of its own", where="prompt"
                )
        else:
            ids = list(prompt)
        return self._generation(ids, max_tokens, stop, reuse, sampling, options)

    def chat(
        self,
        messages: Iterable[Message],
        max_tokens: int = -1,
        *,
        stop: Iterable[str] = (),
        reuse: bool = True,
        sampling: Sampling | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Generation:
        """Answer a conversation, piece by piece, through the file's chat template.

        The KV cache keeps what this conversation has in common with the text before it (``reuse``; see `generate`).
        Arguments and errors are those of `generate`, and:

        Raises:
            TemplateError: the template refuses the messages, fails, or tries to escape its sandbox.
        """
        ids = self.chat_ids(messages)
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        if self.chat_template.is_fallback:
            stops += _FALLBACK_STOPS
        return self._generation(ids, max_tokens, stops, reuse, sampling, options)

    def chat_ids(self, messages: Iterable[Message]) -> list[int]:
        """Token ids of a conversation up to where the answer begins; exactly one BOS if the vocabulary wants one."""
        text = self.chat_template.render([dict(message) for message in messages], add_generation_prompt=True)
        ids = self.tokenizer.tokenize(text, add_special=False, parse_special=True)
        bos = self.tokenizer.bos_id
        if bos is not None and self.tokenizer.tokenize("", add_special=True)[:1] == [bos] and ids[:1] != [bos]:
            ids.insert(0, bos)  # most templates write it, some leave it to the tokenizer
        return ids

    def session(
        self,
        system: str | None = None,
        *,
        max_tokens: int = -1,
        stop: Iterable[str] = (),
        sampling: Sampling | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Session:
        """A conversation that remembers its messages. Arguments as for `chat`; ``system`` is its first message."""
        from ggblock.runtime.session import Session

        settings = _one_of(sampling, options)
        return Session(self, system, max_tokens=max_tokens, stop=stop, sampling=settings)

    def _generation(
        self,
        ids: list[int],
        max_tokens: int,
        stop: Iterable[str],
        reuse: bool,
        sampling: Sampling | None,
        options: SamplingOptions,
    ) -> Generation:
        settings = _one_of(sampling, options)
        return Generation(
            self.cache,
            self._tokenizer_or_none(),
            Sampler(settings, self.n_vocab, self.n_ctx),
            self._checked(ids),
            n_ctx=self.n_ctx,
            max_tokens=max_tokens,
            stop=stop,
            reuse=reuse,
            load_s=self.load_s,
        )

    def _tokenizer_or_none(self) -> Tokenizer | None:
        """A file without a vocabulary still continues token ids."""
        try:
            return self.tokenizer
        except errors.MissingVocabulary:
            return None

    def _checked(self, ids: Sequence[int]) -> list[int]:
        checked = [int(i) for i in ids]
        if not checked:
            raise errors.SettingError("no tokens", where="prompt", expected="at least one")
        for token in (min(checked), max(checked)):
            if not 0 <= token < self.n_vocab:
                raise errors.SettingError(
                    "token outside the vocabulary", where="prompt", expected=f"0 to {self.n_vocab - 1}", actual=token
                )
        return checked

    def _say(self, line: str) -> None:
        if self._notify is not None:
            self._notify(line)
        else:
            warnings.warn(f"{self.path}: {line}", stacklevel=3)


def _one_of(sampling: Sampling | None, options: SamplingOptions) -> Sampling:
    if sampling is None:
        return Sampling.from_options(options)
    if options:
        raise errors.SettingError("given twice: as `sampling` and on its own", where=", ".join(options))
    return sampling
