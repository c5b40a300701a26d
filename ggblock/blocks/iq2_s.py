"""IQ2_S: 256 weights; eight neighbours are one of 1024 patterns, each weight with a sign bit; 4-bit scales by 16.

``weight = ((d * (0.5 + scale)) * 0.25) * signed pattern``, each product rounded to float32.
"""
from __future__ import annotations

import numpy as np

from .base import U8, Field, Unpacked, block_type, take, take_f16, take_uint
from .codebooks import IQ2_S, apply_signs

D = Field("d", 0, 2, 1, 16, "f16", "super-scale")
QS = Field("qs", 2, 32, 32, 8, "u8", "by 8 weights: bits 0 to 7 of the pattern")
SIGNS = Field("signs", 34, 32, 256, 1, "uint", "1: the weight is negative", plane=1)
QH = Field("qh", 66, 8, 32, 2, "uint", "by 8 weights: bits 8 and 9 of the pattern", plane=1)
SCALES = Field("scales", 74, 8, 16, 4, "uint", "scale of each sub-block", plane=1)


def unpack(blocks: U8) -> Unpacked:
    index = take(blocks, QS) | take_uint(blocks, QH).astype(np.uint16) << np.uint16(8)
    codes = apply_signs(IQ2_S.grid[index].reshape(len(blocks), 256), take(blocks, SIGNS))
    scales = take_uint(blocks, SCALES).astype(np.float32) + np.float32(0.5)
    return Unpacked(codes, take_f16(blocks, D) * scales * np.float32(0.25))


TYPE = block_type("iq2_s", 22, (D, QS, SIGNS, QH, SCALES), unpack, block_size=256, sub_block_size=16)
