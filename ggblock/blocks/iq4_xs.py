"""IQ4_XS: IQ4_NL in super-blocks of 256 weights, 8 sub-blocks of 32 with a 6-bit scale each.

``weight = (d * (scale - 32)) * level[code]``, each product rounded to float32.
"""
from __future__ import annotations

import numpy as np

from .base import U8, Field, Unpacked, block_type, take_f16, take_uint
from .codebooks import IQ4_LEVELS

D = Field("d", 0, 2, 1, 16, "f16", "super-scale of the eight scales")
SCALES_H = Field("scales_h", 2, 2, 8, 2, "uint", "bits 4 and 5 of each scale", plane=1)
SCALES_L = Field("scales_l", 4, 4, 8, 4, "uint", "bits 0 to 3 of each scale", plane=1)
QS = Field("qs", 8, 128, 256, 4, "uint", "index of each weight's level", plane=16)


def unpack(blocks: U8) -> Unpacked:
    scales = (take_uint(blocks, SCALES_L) | take_uint(blocks, SCALES_H) << np.uint8(4)).view(np.int8) - np.int8(32)
    return Unpacked(IQ4_LEVELS[take_uint(blocks, QS)], take_f16(blocks, D) * scales)


TYPE = block_type("iq4_xs", 23, (D, SCALES_H, SCALES_L, QS), unpack, block_size=256, sub_block_size=32)
