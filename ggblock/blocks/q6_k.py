"""Q6_K: super-blocks of 256 weights, 16 sub-blocks of 16 with a signed 8-bit scale each, 6-bit codes.

``weight = (d * scale) * (code - 32)``, each product rounded to float32.
"""
from __future__ import annotations

import numpy as np

from .base import F32, U8, Field, Unpacked, block_type, put_uint, take, take_f16, take_uint
from .search import fit_signed_super_block

QL = Field("ql", 0, 128, 256, 4, "uint", "bits 0 to 3 of each weight's code", plane=64)
QH = Field("qh", 128, 64, 256, 2, "uint", "bits 4 and 5 of each weight's code", plane=32)
SCALES = Field("scales", 192, 16, 16, 8, "i8", "scale of each sub-block")
D = Field("d", 208, 2, 1, 16, "f16", "super-scale of the sixteen scales")


def unpack(blocks: U8) -> Unpacked:
    codes = take_uint(blocks, QL) | take_uint(blocks, QH) << np.uint8(4)
    return Unpacked(codes.view(np.int8) - np.int8(32), take_f16(blocks, D) * take(blocks, SCALES).view(np.int8))


def encode(blocks: F32, importance: F32 | None = None) -> U8:
    """Best scale a sub-block, rounded to 8 bits of the super-block's extreme; then the codes."""
    fit = fit_signed_super_block(blocks, importance, code_low=-32, code_high=31, scale_low=-128, scale_high=127)
    codes = (fit.codes + np.int8(32)).view(np.uint8)
    low, high = put_uint(codes & np.uint8(15), QL), put_uint(codes >> np.uint8(4), QH)
    return np.concatenate([low, high, fit.scales.view(np.uint8), fit.d], axis=1)


TYPE = block_type("q6_k", 14, (QL, QH, SCALES, D), unpack, encode, block_size=256, sub_block_size=16)
