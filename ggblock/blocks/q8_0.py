"""Q8_0: 32 weights, one float16 scale, signed bytes. ``weight = d * q``."""
from __future__ import annotations

import numpy as np

from .base import F32, U8, Field, Unpacked, block_type, put_f16, take, take_f16
from .search import reciprocal, round_half_away

D = Field("d", 0, 2, 1, 16, "f16", "scale")
QS = Field("qs", 2, 32, 32, 8, "i8", "each weight's multiple of d")


def unpack(blocks: U8) -> Unpacked:
    return Unpacked(take(blocks, QS).view(np.int8), take_f16(blocks, D))


def encode(blocks: F32, importance: F32 | None = None) -> U8:
    """The largest magnitude becomes 127; ``importance`` would change next to nothing and is ignored."""
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    codes = round_half_away(blocks * reciprocal(scale)).astype(np.int8)
    return np.concatenate([put_f16(scale), codes.view(np.uint8)], axis=1)


TYPE = block_type("q8_0", 8, (D, QS), unpack, encode, block_size=32, sub_block_size=32)
