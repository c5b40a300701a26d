"""Turn the blocks of a big-endian file into little-endian ones, field by field as the layout says."""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..blocks import BlockType

_NUMBERS = frozenset({"f16", "bf16", "f32", "f64", "i16", "i32", "i64", "u16", "u32"})


def swap(rows: NDArray[np.uint8], block: BlockType) -> NDArray[np.uint8]:
    """A copy of ``rows``, uint8 (n_rows, row_bytes), with every number of more than one byte turned around.

    Which numbers those are follows from the block type's layout: fields of codes and of packed bits are bytes and
    stay. For plain numbers and for the types that llama.cpp's own converter knows (Q4_0, Q8_0, Q4_K, Q6_K, MXFP4)
    this is what that converter does; for the other types no tool defines a big-endian form but this one.
    """
    out = np.array(rows, np.uint8, order="C", copy=True)
    blocks = out.reshape(-1, block.block_bytes)
    for field in block.layout:
        width = field.bits // 8
        if field.kind in _NUMBERS:
            numbers = blocks[:, field.offset : field.end].reshape(len(blocks), -1, width)
            blocks[:, field.offset : field.end] = numbers[:, :, ::-1].reshape(len(blocks), -1)
    return out
