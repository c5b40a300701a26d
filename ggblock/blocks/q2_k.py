"""Q2_K: super-blocks of 256 weights, 16 sub-blocks of 16 with a 4-bit scale and a 4-bit min each, 2-bit codes.

``weight = (d * scale) * code - (dmin * min)``, each product and the difference rounded to float32.
"""
from __future__ import annotations

import numpy as np

from .base import F32, U8, Field, Unpacked, block_type, put_uint, take_f16, take_uint
from .search import fit_super_block

SCALES = Field("scales", 0, 16, 32, 4, "uint", "16 scales (low nibbles), then 16 mins (high nibbles)", plane=16)
QS = Field("qs", 16, 64, 256, 2, "uint", "code of each weight", plane=32)
D = Field("d", 80, 2, 1, 16, "f16", "super-scale of the sixteen scales")
DMIN = Field("dmin", 82, 2, 1, 16, "f16", "super-scale of the sixteen mins")


def unpack(blocks: U8) -> Unpacked:
    both = take_uint(blocks, SCALES)
    return Unpacked(take_uint(blocks, QS), take_f16(blocks, D) * both[:, :16], take_f16(blocks, DMIN) * both[:, 16:])


def encode(blocks: F32, importance: F32 | None = None) -> U8:
    """As Q4_K, with 4 codes, 4-bit scales and mins."""
    fit = fit_super_block(blocks, importance, sub_block_size=16, code_max=3, scale_max=15)
    both = put_uint(np.concatenate([fit.scales, fit.mins], axis=1), SCALES)
    return np.concatenate([both, put_uint(fit.codes, QS), fit.d, fit.dmin], axis=1)


TYPE = block_type("q2_k", 10, (SCALES, QS, D, DMIN), unpack, encode, block_size=256, sub_block_size=16)
