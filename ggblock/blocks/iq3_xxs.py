"""IQ3_XXS: 256 weights; four neighbours are one of 256 patterns with signs; 4-bit scales by 32.

``weight = ((d * (0.5 + scale)) * 0.5) * signed pattern``, each product rounded to float32.
"""
from __future__ import annotations

import numpy as np

from .base import U8, Field, Unpacked, block_type, take, take_f16
from .codebooks import IQ3_XXS, apply_signs, parity_signs

D = Field("d", 0, 2, 1, 16, "f16", "super-scale")
QS = Field("qs", 2, 64, 64, 8, "u8", "by 4 weights: the pattern")
SIGNS = Field("signs", 66, 32, 8, 32, "u32", "by 32 weights: four 7-bit signs and a 4-bit scale")

_SIGN_SHIFTS = np.array([0, 7, 14, 21], np.uint32)


def unpack(blocks: U8) -> Unpacked:
    patterns = IQ3_XXS.grid[take(blocks, QS)].reshape(len(blocks), 256)
    words = take(blocks, SIGNS).view("<u4")
    signs = parity_signs(words[:, :, None] >> _SIGN_SHIFTS & np.uint32(127))
    scales = (words >> np.uint32(28)).astype(np.float32) + np.float32(0.5)
    return Unpacked(apply_signs(patterns, signs), take_f16(blocks, D) * scales * np.float32(0.5))


TYPE = block_type("iq3_xxs", 18, (D, QS, SIGNS), unpack, block_size=256, sub_block_size=32)
