"""Q5_K: Q4_K with a fifth bit a code: 256 weights, 8 sub-blocks of 32 with a 6-bit scale and a 6-bit min each.

``weight = (d * scale) * code - (dmin * min)``, each product and the difference rounded to float32.
"""
from __future__ import annotations

import numpy as np

from .base import F32, U8, Field, Unpacked, block_type, put_uint, take, take_f16, take_uint
from .k_scales import MEANING, pack_scales, unpack_scales
from .search import fit_super_block

D = Field("d", 0, 2, 1, 16, "f16", "super-scale of the eight scales")
DMIN = Field("dmin", 2, 2, 1, 16, "f16", "super-scale of the eight mins")
SCALES = Field("scales", 4, 12, 16, 6, "packed", MEANING)
QH = Field("qh", 16, 32, 256, 1, "uint", "bit 4 of each weight's code", plane=32)
QS = Field("qs", 48, 128, 256, 4, "uint", "bits 0 to 3 of each weight's code", plane=32)


def unpack(blocks: U8) -> Unpacked:
    scales, mins = unpack_scales(take(blocks, SCALES))
    codes = take_uint(blocks, QS) | take_uint(blocks, QH) << np.uint8(4)
    return Unpacked(codes, take_f16(blocks, D) * scales, take_f16(blocks, DMIN) * mins)


def encode(blocks: F32, importance: F32 | None = None) -> U8:
    """As Q4_K, with 32 codes."""
    fit = fit_super_block(blocks, importance, sub_block_size=32, code_max=31, scale_max=63)
    high, low = put_uint(fit.codes >> np.uint8(4), QH), put_uint(fit.codes & np.uint8(15), QS)
    return np.concatenate([fit.d, fit.dmin, pack_scales(fit.scales, fit.mins), high, low], axis=1)


TYPE = block_type("q5_k", 13, (D, DMIN, SCALES, QH, QS), unpack, encode, block_size=256, sub_block_size=32)
