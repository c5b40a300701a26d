"""Q8_1: 32 activations, a float16 scale, a float16 sum, signed bytes. ``value = d * q``.

ggml uses it for activations at run time only; no file holds it. It is here because the id is taken and a dump
should name it. ``s`` is ``d * sum(q)``, which decoding does not need.
"""
from __future__ import annotations

import numpy as np

from .base import U8, Field, Unpacked, block_type, take, take_f16

D = Field("d", 0, 2, 1, 16, "f16", "scale")
S = Field("s", 2, 2, 1, 16, "f16", "d times the sum of qs; redundant")
QS = Field("qs", 4, 32, 32, 8, "i8", "each value's multiple of d")


def unpack(blocks: U8) -> Unpacked:
    return Unpacked(take(blocks, QS).view(np.int8), take_f16(blocks, D))


TYPE = block_type("q8_1", 9, (D, S, QS), unpack, block_size=32, sub_block_size=32)
