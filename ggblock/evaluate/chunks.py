"""A text as chunks of tokens, the second half of each scored: llama.cpp's way of measuring perplexity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ggblock.errors import SettingError


@dataclass(frozen=True)
class Chunks:
    """``ids``: int32 (n_chunks, size). Tokens from ``first_scored`` on are scored; those before are context."""

    ids: npt.NDArray[np.int32]
    first_scored: int

    @property
    def n_scored(self) -> int:
        """Scored rows of logits, over all chunks."""
        n_chunks, size = self.ids.shape
        return int(n_chunks) * (int(size) - self.first_scored)


def split(ids: Sequence[int], size: int = 512, *, limit: int | None = None, bos_id: int | None = None) -> Chunks:
    """Cut ``ids`` into chunks of ``size`` tokens and drop the rest; at most ``limit`` chunks.

    ``bos_id``: written over the first token of each chunk, for models that expect to begin with it.
    Raises SettingError when there is not one whole chunk.
    """
    n_chunks = len(ids) // size if size > 1 else 0
    if limit is not None:
        n_chunks = min(n_chunks, limit)
    if n_chunks < 1:
        raise SettingError(
            "the text is shorter than one chunk",
            where="chunk size",
            expected=f"at least {size} tokens",
            actual=len(ids),
        )
    table = np.array(ids[: n_chunks * size], np.int32).reshape(n_chunks, size)
    if bos_id is not None:
        table[:, 0] = bos_id
    return Chunks(table, size // 2)
