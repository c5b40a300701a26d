"""Q5_1: 32 weights, a float16 scale and a float16 offset, 5-bit codes. ``weight = d * code + m``."""
from __future__ import annotations

import numpy as np

from .base import F32, U8, Field, Unpacked, block_type, put_f16, put_uint, take_f16, take_uint
from .search import fit_range

D = Field("d", 0, 2, 1, 16, "f16", "scale")
M = Field("m", 2, 2, 1, 16, "f16", "offset, added: the smallest weight")
QH = Field("qh", 4, 4, 32, 1, "uint", "bit 4 of each weight's code", plane=1)
QS = Field("qs", 8, 16, 32, 4, "uint", "bits 0 to 3 of each weight's code", plane=16)


def unpack(blocks: U8) -> Unpacked:
    codes = take_uint(blocks, QS) | take_uint(blocks, QH) << np.uint8(4)
    return Unpacked(codes, take_f16(blocks, D), -take_f16(blocks, M))


def encode(blocks: F32, importance: F32 | None = None) -> U8:
    """From the smallest to the largest weight in 31 steps; with ``importance``, the best range near that."""
    scale, offset, codes = fit_range(blocks, importance, 31)
    high, low = put_uint(codes >> np.uint8(4), QH), put_uint(codes & np.uint8(15), QS)
    return np.concatenate([put_f16(scale), put_f16(offset), high, low], axis=1)


TYPE = block_type("q5_1", 7, (D, M, QH, QS), unpack, encode, block_size=32, sub_block_size=32)
