"""Q1_0: 128 weights, one float16 scale, one sign bit a weight. ``weight = d`` where the bit is set, else ``-d``."""
from __future__ import annotations

import numpy as np

from .base import U8, Field, Unpacked, block_type, take_f16, take_uint

D = Field("d", 0, 2, 1, 16, "f16", "scale")
QS = Field("qs", 2, 16, 128, 1, "uint", "1: +d, 0: -d", plane=1)


def unpack(blocks: U8) -> Unpacked:
    return Unpacked(take_uint(blocks, QS).view(np.int8) * np.int8(2) - np.int8(1), take_f16(blocks, D))


TYPE = block_type("q1_0", 41, (D, QS), unpack, block_size=128, sub_block_size=128)
