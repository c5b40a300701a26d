"""What the engine's KV cache holds, and how a text gets into it.

An engine keeps one sequence of keys and values; an entry at a position is simply overwritten by a later forward pass.
`TokenCache` remembers which token stands at each position, so that a text that starts like the last one
(a conversation that grew by a turn) costs only its new tokens.
"""
from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ggblock import errors

CHUNK_TOKENS = 512
"""Tokens of one forward pass while a prompt is read: between two of them a request to stop is heard."""


class Engine(Protocol):
    """What this package needs of a compiled model."""

    @property
    def n_vocab(self) -> int: ...
    @property
    def n_ctx(self) -> int: ...
    @property
    def n_ctx_train(self) -> int: ...
    @property
    def config(self) -> Any: ...

    def forward(
        self, ids: Sequence[int], position: int, all_logits: bool = False, best: int = 0
    ) -> npt.NDArray[np.float32]:
        """Append ``ids`` at ``position``; float32 (1, n_vocab) of the last or (n, n_vocab) of all tokens.

        ``best``: only so many of the largest logits are asked for (0: all); any below them may be inexact.
        """

    def close(self) -> None: ...


class TokenCache:
    """The tokens behind one engine's KV cache. One forward pass at a time, from whichever thread.

    Args:
        engine: the compiled model.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ids: list[int] = []
        self._lock = threading.RLock()
        self._owner: object = None

    @property
    def ids(self) -> tuple[int, ...]:
        """Tokens whose keys and values are in the cache, from position 0."""
        return tuple(self._ids)

    def forget(self) -> None:
        """Drop everything: the next text is computed from its first token."""
        with self._lock:
            self._ids.clear()
            self._owner = None

    def common_prefix(self, ids: Sequence[int]) -> int:
        """How many of the first tokens of ``ids`` the cache already holds."""
        held = self._ids
        limit = min(len(held), len(ids))
        if list(ids[:limit]) == held[:limit]:
            return limit
        return next(i for i in range(limit) if held[i] != ids[i])

    def read(
        self,
        owner: object,
        ids: Sequence[int],
        *,
        reuse: bool = True,
        best: int = 0,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> tuple[npt.NDArray[np.float32] | None, int]:
        """Bring the cache to exactly ``ids`` and return the logits of the last token.

        Args:
            owner: who asks; later `append` calls of the same owner need no comparison.
            ids: at least one token.
            reuse: keep the part at the beginning that is in the cache already (all but the last token at most).
            best: how many of the largest logits are asked for (see `Engine`).
            is_cancelled: asked before every chunk.

        Returns:
            (float32 (n_vocab,), tokens reused); the logits are None when it was cancelled.

        Raises:
            ContextOverflow: more tokens than the context holds.
        """
        self.check_fits(len(ids))
        with self._lock:
            reused = min(self.common_prefix(ids), len(ids) - 1) if reuse else 0
            self._owner = None
            del self._ids[reused:]
            rows = None
            position = reused
            while position < len(ids):
                if is_cancelled():
                    return None, reused
                chunk = list(ids[position : position + CHUNK_TOKENS])
                rows = self._engine.forward(chunk, position, best=best)
                self._ids.extend(chunk)
                position += len(chunk)
            self._owner = owner
            assert rows is not None
            return _last(rows), reused

    def append(self, owner: object, ids: Sequence[int], best: int = 0) -> npt.NDArray[np.float32]:
        """Logits float32 (n_vocab,) after the last of ``ids``, of which all but the last should be in the cache.
        ``best``: see `Engine`.

        If somebody else used the cache meanwhile, the text is read again from the first token that differs.
        """
        with self._lock:
            if self._owner is owner and len(self._ids) == len(ids) - 1:
                self.check_fits(len(ids))
                rows = self._engine.forward([ids[-1]], len(ids) - 1, best=best)
                self._ids.append(ids[-1])
                return _last(rows)
            logits, _ = self.read(owner, ids, best=best)
            assert logits is not None
            return logits

    def all_logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits float32 (n_tokens, n_vocab) of every token of ``ids``, computed from the first one."""
        self.check_fits(len(ids))
        with self._lock:
            self.forget()
            rows = np.empty((len(ids), self._engine.n_vocab), dtype=np.float32)
            for position in range(0, len(ids), CHUNK_TOKENS):
                chunk = list(ids[position : position + CHUNK_TOKENS])
                rows[position : position + len(chunk)] = self._engine.forward(chunk, position, all_logits=True)
                self._ids.extend(chunk)
            return rows

    def check_fits(self, n_tokens: int) -> None:
        """Raise `ContextOverflow` when the context cannot hold ``n_tokens``."""
        if n_tokens > self._engine.n_ctx:
            raise errors.ContextOverflow(
                "longer than the context",
                where="prompt",
                expected=f"at most {self._engine.n_ctx} tokens",
                actual=n_tokens,
            )


def _last(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    row: npt.NDArray[np.float32] = rows[-1]
    return row
