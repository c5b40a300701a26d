"""TQ2_0: 256 ternary weights at two bits, one float16 scale. ``weight = d * (code - 1)``; code 3 decodes as 2 d."""
from __future__ import annotations

import numpy as np

from .base import U8, Field, Unpacked, block_type, take_f16, take_uint

QS = Field("qs", 0, 64, 256, 2, "uint", "code of each weight, offset by 1", plane=32)
D = Field("d", 64, 2, 1, 16, "f16", "scale")


def unpack(blocks: U8) -> Unpacked:
    return Unpacked(take_uint(blocks, QS).view(np.int8) - np.int8(1), take_f16(blocks, D))


TYPE = block_type("tq2_0", 35, (QS, D), unpack, block_size=256, sub_block_size=256)
