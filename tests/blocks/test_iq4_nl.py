"""IQ4_NL against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .common import check_twin, f32, half, nibbles

LEVELS = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]


def decode_block(block: bytes) -> list[np.float32]:
    scale = half(block, 0)
    return [scale * f32(LEVELS[code]) for code in nibbles(block, 2, 16)]


def test_twin() -> None:
    check_twin("iq4_nl", decode_block)
