"""Where the bytes of one block lie in a file.

The GGUF profile stores row after row, block after block (`rows`). A profile that interleaves the blocks of several
rows, or cuts the last block of a row short, adds a function here; the block view asks for nothing but a `Placement`.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import errors
from ..blocks.base import U8
from ..format.reader import Tensor


@dataclass(frozen=True)
class Placement:
    """One block of a tensor.

    ``row``, ``block``: which one (of how many a row: ``blocks_per_row``). ``data``: uint8 (block_bytes,), in the order
    of the type's layout. ``offsets``: place of each byte in ``path``. ``n_weights``: weights of the block that the row
    uses, from the first. ``order``: name of the byte order.
    """

    path: str
    row: int
    block: int
    blocks_per_row: int
    data: U8
    offsets: Sequence[int]
    n_weights: int
    order: str = "rows"

    @property
    def is_contiguous(self) -> bool:
        """Whether the bytes lie one after another."""
        return isinstance(self.offsets, range) and self.offsets.step == 1


def rows(tensor: Tensor, row: int | None, block: int) -> Placement:
    """Block ``block`` of row ``row`` of a tensor stored row after row; without a row, of the whole tensor.

    Raises `errors.SettingError` when there is no such row or block. Reads that block alone.
    """
    per_row = tensor.n_cols // tensor.type.block_size
    if row is None:
        _check(tensor, "block", block, tensor.n_rows * per_row)
        row, block = divmod(block, per_row)
    else:
        _check(tensor, "row", row, tensor.n_rows)
        _check(tensor, "block", block, per_row)
    size = tensor.type.block_bytes
    raw = tensor.raw[row, block * size : (block + 1) * size]
    start = tensor.offset_bytes + row * tensor.row_bytes + block * size
    return Placement(
        tensor.path, row, block, per_row, np.array(raw), range(start, start + size), tensor.type.block_size
    )


def _check(tensor: Tensor, what: str, number: int, n: int) -> None:
    if not 0 <= number < n:
        raise errors.SettingError(
            f"no such {what}", file=tensor.path, where=tensor.name, expected=f"0 to {n - 1}", actual=number
        )
