"""IQ3_S: 256 weights; four neighbours are one of 512 patterns, each weight with a sign bit; 4-bit scales by 32.

``weight = (d * (1 + 2 * scale)) * signed pattern``, each product rounded to float32.
"""
from __future__ import annotations

import numpy as np

from .base import U8, Field, Unpacked, block_type, take, take_f16, take_uint
from .codebooks import IQ3_S, apply_signs

D = Field("d", 0, 2, 1, 16, "f16", "super-scale")
QS = Field("qs", 2, 64, 64, 8, "u8", "by 4 weights: bits 0 to 7 of the pattern")
QH = Field("qh", 66, 8, 64, 1, "uint", "by 4 weights: bit 8 of the pattern", plane=1)
SIGNS = Field("signs", 74, 32, 256, 1, "uint", "1: the weight is negative", plane=1)
SCALES = Field("scales", 106, 4, 8, 4, "uint", "scale of each sub-block", plane=1)


def unpack(blocks: U8) -> Unpacked:
    index = take(blocks, QS) | take_uint(blocks, QH).astype(np.uint16) << np.uint16(8)
    codes = apply_signs(IQ3_S.grid[index].reshape(len(blocks), 256), take(blocks, SIGNS))
    return Unpacked(codes, take_f16(blocks, D) * (take_uint(blocks, SCALES) * np.uint8(2) + np.uint8(1)))


TYPE = block_type("iq3_s", 21, (D, QS, QH, SIGNS, SCALES), unpack, block_size=256, sub_block_size=32)
