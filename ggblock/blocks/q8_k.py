"""Q8_K: 256 activations, one float32 scale, signed bytes, and their sums by 16. ``value = d * q``.

ggml makes these at run time for its K types; files hardly ever hold them. ``bsums`` is redundant.
"""
from __future__ import annotations

import numpy as np

from .base import F32, U8, Field, Unpacked, block_type, take
from .search import reciprocal, signed_extreme

D = Field("d", 0, 4, 1, 32, "f32", "scale")
QS = Field("qs", 4, 256, 256, 8, "i8", "each value's multiple of d")
BSUMS = Field("bsums", 260, 32, 16, 16, "i16", "sum of each sixteen of qs; redundant")


def unpack(blocks: U8) -> Unpacked:
    return Unpacked(take(blocks, QS).view(np.int8), take(blocks, D).view("<f4").astype(np.float32))


def encode(blocks: F32, importance: F32 | None = None) -> U8:
    """The value of largest magnitude becomes -127, as in ggml; ``importance`` is ignored."""
    inverse = np.float32(-127) * reciprocal(signed_extreme(blocks))
    codes = np.minimum(np.rint(blocks * inverse), 127).astype(np.int8)
    sums = codes.reshape(len(blocks), 16, 16).sum(axis=2, dtype=np.int16).astype("<i2")
    scale = reciprocal(inverse).astype("<f4")
    return np.concatenate([scale.view(np.uint8), codes.view(np.uint8), sums.view(np.uint8)], axis=1)


TYPE = block_type("q8_k", 15, (D, QS, BSUMS), unpack, encode, block_size=256, sub_block_size=256)
