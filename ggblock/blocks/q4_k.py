"""Q4_K: super-blocks of 256 weights, 8 sub-blocks of 32 with a 6-bit scale and a 6-bit min each, 4-bit codes.

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
QS = Field("qs", 16, 128, 256, 4, "uint", "code of each weight", plane=32)


def unpack(blocks: U8) -> Unpacked:
    scales, mins = unpack_scales(take(blocks, SCALES))
    return Unpacked(take_uint(blocks, QS), take_f16(blocks, D) * scales, take_f16(blocks, DMIN) * mins)


def encode(blocks: F32, importance: F32 | None = None) -> U8:
    """Least-squares scale and min a sub-block, rounded to 6 bits of the super-block's largest; then the codes."""
    fit = fit_super_block(blocks, importance, sub_block_size=32, code_max=15, scale_max=63)
    return np.concatenate([fit.d, fit.dmin, pack_scales(fit.scales, fit.mins), put_uint(fit.codes, QS)], axis=1)


TYPE = block_type("q4_k", 12, (D, DMIN, SCALES, QS), unpack, encode, block_size=256, sub_block_size=32)
