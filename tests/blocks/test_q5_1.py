"""Q5_1 against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .common import check_twin, f32, half, nibbles, word


def decode_block(block: bytes) -> list[np.float32]:
    scale, offset, high = half(block, 0), half(block, 2), word(block, 4, 4)
    return [scale * f32(low + 16 * (high >> j & 1)) + offset for j, low in enumerate(nibbles(block, 8, 16))]


def test_twin() -> None:
    check_twin("q5_1", decode_block)
