"""Q2_0: 64 weights, one float16 scale, 2-bit codes. ``weight = d * (code - 1)``: -d, 0, d, 2 d.

This is ggml's type 42, with blocks of 64 weights and 18 bytes. A fork wrote blocks of 128 weights and 34 bytes
under the same id before ggml defined it; the bytes of a tensor do not tell the two apart, only its length does.
"""
from __future__ import annotations

import numpy as np

from .base import U8, Field, Unpacked, block_type, take_f16, take_uint

D = Field("d", 0, 2, 1, 16, "f16", "scale")
QS = Field("qs", 2, 16, 64, 2, "uint", "code of each weight, offset by 1", plane=1)


def unpack(blocks: U8) -> Unpacked:
    return Unpacked(take_uint(blocks, QS).view(np.int8) - np.int8(1), take_f16(blocks, D))


TYPE = block_type("q2_0", 42, (D, QS), unpack, block_size=64, sub_block_size=64)
