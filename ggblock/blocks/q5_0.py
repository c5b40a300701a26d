"""Q5_0: 32 weights, one float16 scale, 5-bit codes (a fifth bit each beside the nibbles). ``d * (code - 16)``."""
from __future__ import annotations

import numpy as np

from .base import F32, U8, Field, Unpacked, block_type, put_f16, put_uint, take_f16, take_uint
from .search import best_scale, reciprocal, round_codes, signed_extreme

D = Field("d", 0, 2, 1, 16, "f16", "scale")
QH = Field("qh", 2, 4, 32, 1, "uint", "bit 4 of each weight's code", plane=1)
QS = Field("qs", 6, 16, 32, 4, "uint", "bits 0 to 3 of each weight's code", plane=16)


def unpack(blocks: U8) -> Unpacked:
    codes = take_uint(blocks, QS) | take_uint(blocks, QH) << np.uint8(4)
    return Unpacked(codes.view(np.int8) - np.int8(16), take_f16(blocks, D))


def encode(blocks: F32, importance: F32 | None = None) -> U8:
    """The value of largest magnitude becomes code 0, that is -16; with ``importance``, the best scale near that."""
    if importance is None:
        scale = signed_extreme(blocks) / np.float32(-16)
        codes = np.clip(np.trunc(blocks * reciprocal(scale) + np.float32(16.5)), 0, 31).astype(np.uint8)
    else:
        scale = best_scale(blocks, importance, -16, 15)
        codes = (round_codes(blocks, scale, None, -16, 15) + np.float32(16)).astype(np.uint8)
    high, low = put_uint(codes >> np.uint8(4), QH), put_uint(codes & np.uint8(15), QS)
    return np.concatenate([put_f16(scale), high, low], axis=1)


TYPE = block_type("q5_0", 6, (D, QH, QS), unpack, encode, block_size=32, sub_block_size=32)
