"""IQ4_XS against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .common import check_twin, f32, half, nibbles, word
from .test_iq4_nl import LEVELS


def decode_block(block: bytes) -> list[np.float32]:
    super_scale, high = half(block, 0), word(block, 2, 2)
    out = []
    for s in range(8):
        low = block[4 + s // 2] // 16 if s % 2 else block[4 + s // 2] % 16
        scale = super_scale * f32(low + 16 * (high >> 2 * s & 3) - 32)
        out += [scale * f32(LEVELS[code]) for code in nibbles(block, 8 + 16 * s, 16)]
    return out


def test_twin() -> None:
    check_twin("iq4_xs", decode_block)
