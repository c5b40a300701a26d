"""IQ1_M: 256 weights; eight neighbours are one of 2048 ternary patterns with a shift each; 3-bit scales by 16.

``weight = (d * (2 * scale + 1)) * (pattern + shift)``, shift +1/8 or -1/8; each product rounded to float32. The
float16 ``d`` has no field of its own: its four nibbles are the top bits of the four scale words.
"""
from __future__ import annotations

import numpy as np

from .base import F32, U8, Field, Unpacked, block_type, take, take_uint
from .codebooks import IQ1

QS = Field("qs", 0, 32, 32, 8, "u8", "by 8 weights: bits 0 to 7 of the pattern")
QH = Field("qh", 32, 16, 32, 4, "uint", "by 8 weights: bits 8-10 of the pattern; bit 3 set if shifted down", plane=1)
SCALES = Field("scales", 48, 8, 4, 16, "u16", "four 3-bit scales each; bits 12-15 are a nibble of the f16 super-scale")

_SCALE_SHIFTS = np.array([0, 3, 6, 9], np.uint16)


def _super_scale(words: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> F32:
    nibbles = words >> np.uint16(12)
    shifted = nibbles << np.array([0, 4, 8, 12], np.uint16)
    bits: np.ndarray[tuple[int, ...], np.dtype[np.uint16]] = np.bitwise_or.reduce(shifted, axis=1, keepdims=True)
    return bits.view(np.float16).astype(np.float32)


def unpack(blocks: U8) -> Unpacked:
    high = take_uint(blocks, QH).astype(np.uint16)
    patterns = IQ1.grid[take(blocks, QS) | (high & np.uint16(7)) << np.uint16(8)]
    shift = np.where(high & np.uint16(8), np.float32(-0.125), np.float32(0.125))
    words = take(blocks, SCALES).view("<u2").astype(np.uint16)
    scales = (words[:, :, None] >> _SCALE_SHIFTS & np.uint16(7)).reshape(len(blocks), 16) * np.uint16(2) + np.uint16(1)
    return Unpacked((patterns + shift[:, :, None]).reshape(len(blocks), 256), _super_scale(words) * scales)


TYPE = block_type("iq1_m", 29, (QS, QH, SCALES), unpack, block_size=256, sub_block_size=16)
