"""MXFP4: 32 weights as 4-bit floats (E2M1) with a shared power of two (E8M0), as in OCP's microscaling formats.

``weight = 2**(e - 128) * value``, where ``value`` is twice the E2M1 number (a whole number) and ``e`` the scale byte;
``e`` = 255 is no NaN here. Exact in float32.
"""
from __future__ import annotations

import numpy as np

from .base import F32, U8, Field, Unpacked, block_type, take, take_uint
from .codebooks import E2M1_DOUBLED

E = Field("e", 0, 1, 1, 8, "e8m0", "exponent of the scale, bias 127")
QS = Field("qs", 1, 16, 32, 4, "uint", "E2M1 code of each weight: sign, 2 exponent bits, 1 mantissa bit", plane=16)


def _half_scale(exponent: U8) -> F32:
    """2**(e - 128) in float32; the two smallest are subnormal."""
    wide = exponent.astype(np.uint32)
    bits = np.where(wide < 2, np.uint32(0x200000) << (wide & np.uint32(1)), (wide - np.uint32(1)) << np.uint32(23))
    scale: F32 = bits.astype(np.uint32).view(np.float32)
    return scale


def unpack(blocks: U8) -> Unpacked:
    return Unpacked(E2M1_DOUBLED[take_uint(blocks, QS)], _half_scale(take(blocks, E)))


TYPE = block_type("mxfp4", 39, (E, QS), unpack, block_size=32, sub_block_size=32)
