"""Q4_1: 32 weights, a float16 scale and a float16 offset, 4-bit codes. ``weight = d * code + m``."""
from __future__ import annotations

import numpy as np

from .base import F32, U8, Field, Unpacked, block_type, put_f16, put_uint, take_f16, take_uint
from .search import fit_range

D = Field("d", 0, 2, 1, 16, "f16", "scale")
M = Field("m", 2, 2, 1, 16, "f16", "offset, added: the smallest weight")
QS = Field("qs", 4, 16, 32, 4, "uint", "code of each weight", plane=16)


def unpack(blocks: U8) -> Unpacked:
    return Unpacked(take_uint(blocks, QS), take_f16(blocks, D), -take_f16(blocks, M))


def encode(blocks: F32, importance: F32 | None = None) -> U8:
    """From the smallest to the largest weight in 15 steps; with ``importance``, the best range near that."""
    scale, offset, codes = fit_range(blocks, importance, 15)
    return np.concatenate([put_f16(scale), put_f16(offset), put_uint(codes, QS)], axis=1)


TYPE = block_type("q4_1", 3, (D, M, QS), unpack, encode, block_size=32, sub_block_size=32)
