"""Q4_0: 32 weights, one float16 scale, 4-bit codes. ``weight = d * (code - 8)``."""
from __future__ import annotations

import numpy as np

from .base import F32, U8, Field, Unpacked, block_type, put_f16, put_uint, take_f16, take_uint
from .search import best_scale, reciprocal, round_codes, signed_extreme

D = Field("d", 0, 2, 1, 16, "f16", "scale")
QS = Field("qs", 2, 16, 32, 4, "uint", "code of each weight, offset by 8", plane=16)


def unpack(blocks: U8) -> Unpacked:
    return Unpacked(take_uint(blocks, QS).view(np.int8) - np.int8(8), take_f16(blocks, D))


def encode(blocks: F32, importance: F32 | None = None) -> U8:
    """The value of largest magnitude becomes code 0, that is -8; with ``importance``, the best scale near that."""
    if importance is None:
        # ggml's reference: truncating (x / d + 8.5) towards zero rounds halves up.
        scale = signed_extreme(blocks) / np.float32(-8)
        codes = np.clip(np.trunc(blocks * reciprocal(scale) + np.float32(8.5)), 0, 15)
    else:
        scale = best_scale(blocks, importance, -8, 7)
        codes = round_codes(blocks, scale, None, -8, 7) + np.float32(8)
    return np.concatenate([put_f16(scale), put_uint(codes.astype(np.uint8), QS)], axis=1)


TYPE = block_type("q4_0", 2, (D, QS), unpack, encode, block_size=32, sub_block_size=32)
