"""IQ1_M against a scalar decoder written from its layout."""
from __future__ import annotations

import struct

import numpy as np

from .codebooks import codebook
from .common import check_twin, f32, word


def decode_block(block: bytes) -> list[np.float32]:
    words = [word(block, 48 + 2 * i, 2) for i in range(4)]
    bits = sum((words[i] >> 12) << 4 * i for i in range(4))
    super_scale = f32(struct.unpack("<e", bits.to_bytes(2, "little"))[0])
    out = []
    for eight in range(32):
        sixteen = eight // 2
        scale = super_scale * f32(2 * (words[sixteen // 4] >> 3 * (sixteen % 4) & 7) + 1)
        high = block[32 + eight // 2] // 16 if eight % 2 else block[32 + eight // 2] % 16
        shift = f32(-0.125) if high & 8 else f32(0.125)
        out += [scale * (f32(level) + shift) for level in codebook("IQ1_S")[block[eight] + 256 * (high & 7)]]
    return out


def test_twin() -> None:
    check_twin("iq1_m", decode_block)
