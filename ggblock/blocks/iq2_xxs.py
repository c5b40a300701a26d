"""IQ2_XXS: 256 weights; eight neighbours are one of 256 patterns with signs; 4-bit scales by 32.

``weight = ((d * (0.5 + scale)) * 0.25) * signed pattern``, each product rounded to float32.
"""
from __future__ import annotations

import numpy as np

from .base import U8, Field, Unpacked, block_type, take, take_f16
from .codebooks import IQ2_XXS, apply_signs, parity_signs

D = Field("d", 0, 2, 1, 16, "f16", "super-scale")
QS = Field("qs", 2, 64, 16, 32, "u32", "by 32 weights: four 8-bit patterns; four 7-bit signs and a 4-bit scale")

_SIGN_SHIFTS = np.array([0, 7, 14, 21], np.uint32)


def unpack(blocks: U8) -> Unpacked:
    pairs = take(blocks, QS).reshape(len(blocks), 8, 8)
    patterns = IQ2_XXS.grid[pairs[:, :, :4]].reshape(len(blocks), 256)
    upper = np.ascontiguousarray(pairs[:, :, 4:]).view("<u4")
    signs = parity_signs(upper >> _SIGN_SHIFTS & np.uint32(127))
    scales = (upper[:, :, 0] >> np.uint32(28)).astype(np.float32) + np.float32(0.5)
    return Unpacked(apply_signs(patterns, signs), take_f16(blocks, D) * scales * np.float32(0.25))


TYPE = block_type("iq2_xxs", 16, (D, QS), unpack, block_size=256, sub_block_size=32)
