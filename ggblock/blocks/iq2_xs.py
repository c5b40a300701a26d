"""IQ2_XS: 256 weights; eight neighbours are one of 512 patterns with signs; 4-bit scales by 16.

``weight = ((d * (0.5 + scale)) * 0.25) * signed pattern``, each product rounded to float32.
"""
from __future__ import annotations

import numpy as np

from .base import U8, Field, Unpacked, block_type, take, take_f16, take_uint
from .codebooks import IQ2_XS, apply_signs, parity_signs

D = Field("d", 0, 2, 1, 16, "f16", "super-scale")
QS = Field("qs", 2, 64, 32, 16, "u16", "by 8 weights: 9 bits of pattern, 7 bits of signs")
SCALES = Field("scales", 66, 8, 16, 4, "uint", "scale of each sub-block", plane=1)


def unpack(blocks: U8) -> Unpacked:
    words = take(blocks, QS).view("<u2")
    patterns = IQ2_XS.grid[words & np.uint16(511)].reshape(len(blocks), 256)
    scales = take_uint(blocks, SCALES).astype(np.float32) + np.float32(0.5)
    codes = apply_signs(patterns, parity_signs(words >> np.uint16(9)))
    return Unpacked(codes, take_f16(blocks, D) * scales * np.float32(0.25))


TYPE = block_type("iq2_xs", 17, (D, QS, SCALES), unpack, block_size=256, sub_block_size=16)
