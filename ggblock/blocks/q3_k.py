"""Q3_K: super-blocks of 256 weights, 16 sub-blocks of 16 with a 6-bit scale each, 3-bit codes.

``weight = (d * (scale - 32)) * (code - 4)``, each product rounded to float32. The third bit of the codes and the
upper two bits of the scales are stored apart.
"""
from __future__ import annotations

import numpy as np

from .base import F32, U8, Field, Unpacked, block_type, put_uint, take_f16, take_uint
from .search import fit_signed_super_block

HMASK = Field("hmask", 0, 32, 256, 1, "uint", "bit 2 of each weight's code", plane=32)
QS = Field("qs", 32, 64, 256, 2, "uint", "bits 0 and 1 of each weight's code", plane=32)
SCALES_L = Field("scales_l", 96, 8, 16, 4, "uint", "bits 0 to 3 of each scale", plane=8)
SCALES_H = Field("scales_h", 104, 4, 16, 2, "uint", "bits 4 and 5 of each scale", plane=4)
D = Field("d", 108, 2, 1, 16, "f16", "super-scale of the sixteen scales")


def unpack(blocks: U8) -> Unpacked:
    codes = take_uint(blocks, QS) | take_uint(blocks, HMASK) << np.uint8(2)
    scales = take_uint(blocks, SCALES_L) | take_uint(blocks, SCALES_H) << np.uint8(4)
    return Unpacked(codes.view(np.int8) - np.int8(4), take_f16(blocks, D) * (scales.view(np.int8) - np.int8(32)))


def encode(blocks: F32, importance: F32 | None = None) -> U8:
    """Best scale a sub-block, rounded to 6 bits of the super-block's extreme; then the codes."""
    fit = fit_signed_super_block(blocks, importance, code_low=-4, code_high=3, scale_low=-32, scale_high=31)
    codes, scales = (fit.codes + np.int8(4)).view(np.uint8), (fit.scales + np.int8(32)).view(np.uint8)
    return np.concatenate(
        [
            put_uint(codes >> np.uint8(2), HMASK),
            put_uint(codes & np.uint8(3), QS),
            put_uint(scales & np.uint8(15), SCALES_L),
            put_uint(scales >> np.uint8(4), SCALES_H),
            fit.d,
        ],
        axis=1,
    )


TYPE = block_type("q3_k", 11, (HMASK, QS, SCALES_L, SCALES_H, D), unpack, encode, block_size=256, sub_block_size=16)
