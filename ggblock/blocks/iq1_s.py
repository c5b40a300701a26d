"""IQ1_S: 256 weights; eight neighbours are one of 2048 ternary patterns; by 32, a 3-bit scale and a shift.

``weight = (d * (2 * scale + 1)) * (pattern + shift)``, shift +1/8 or -1/8; each product rounded to float32.
"""
from __future__ import annotations

import numpy as np

from .base import U8, Field, Unpacked, block_type, take, take_f16
from .codebooks import IQ1

D = Field("d", 0, 2, 1, 16, "f16", "super-scale")
QS = Field("qs", 2, 32, 32, 8, "u8", "by 8 weights: bits 0 to 7 of the pattern")
QH = Field("qh", 34, 16, 8, 16, "u16", "by 32 weights: four times bits 8-10 of the pattern; scale; 1 if shifted down")

_HIGH_SHIFTS = np.array([0, 3, 6, 9], np.uint16)


def unpack(blocks: U8) -> Unpacked:
    words = take(blocks, QH).view("<u2")
    high = (words[:, :, None] >> _HIGH_SHIFTS & np.uint16(7)).reshape(len(blocks), 32)
    patterns = IQ1.grid[take(blocks, QS) | high << np.uint16(8)].reshape(len(blocks), 8, 32)
    shift = np.where(words >> np.uint16(15), np.float32(-0.125), np.float32(0.125))
    scales = (words >> np.uint16(12) & np.uint16(7)) * np.uint16(2) + np.uint16(1)
    return Unpacked((patterns + shift[:, :, None]).reshape(len(blocks), 256), take_f16(blocks, D) * scales)


TYPE = block_type("iq1_s", 19, (D, QS, QH), unpack, block_size=256, sub_block_size=32)
