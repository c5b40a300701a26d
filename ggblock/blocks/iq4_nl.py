"""IQ4_NL: 32 weights, one float16 scale, 4-bit codes into 16 unevenly spaced levels. ``weight = d * level[code]``."""
from __future__ import annotations

import numpy as np

from .base import F32, U8, Field, Unpacked, block_type, put_f16, put_uint, take_f16, take_uint
from .codebooks import IQ4_LEVELS
from .search import best_level_scale, nearest_levels

D = Field("d", 0, 2, 1, 16, "f16", "scale")
QS = Field("qs", 2, 16, 32, 4, "uint", "index of each weight's level", plane=16)


def unpack(blocks: U8) -> Unpacked:
    return Unpacked(IQ4_LEVELS[take_uint(blocks, QS)], take_f16(blocks, D))


def encode(blocks: F32, importance: F32 | None = None) -> U8:
    """The best of 15 scales that send the value of largest magnitude near the lowest level."""
    weights = blocks * blocks if importance is None else importance * np.sqrt(
        np.mean(blocks * blocks, axis=1, keepdims=True) + blocks * blocks
    )
    stored = put_f16(best_level_scale(blocks, weights, IQ4_LEVELS))
    codes = nearest_levels(blocks, stored.view("<f2").astype(np.float32)[:, 0], IQ4_LEVELS)
    return np.concatenate([stored, put_uint(codes, QS)], axis=1)


TYPE = block_type("iq4_nl", 20, (D, QS), unpack, encode, block_size=32, sub_block_size=32)
