"""IQ1_S against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .codebooks import codebook
from .common import check_twin, f32, half, word


def decode_block(block: bytes) -> list[np.float32]:
    out = []
    for s in range(8):
        high = word(block, 34 + 2 * s, 2)
        scale = half(block, 0) * f32(2 * (high >> 12 & 7) + 1)
        shift = f32(-0.125) if high >> 15 else f32(0.125)
        for part in range(4):
            index = block[2 + 4 * s + part] + 256 * (high >> 3 * part & 7)
            out += [scale * (f32(level) + shift) for level in codebook("IQ1_S")[index]]
    return out


def test_twin() -> None:
    check_twin("iq1_s", decode_block)
