"""Q5_0 against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .common import check_twin, f32, half, nibbles, word


def decode_block(block: bytes) -> list[np.float32]:
    scale, high = half(block, 0), word(block, 2, 4)
    return [scale * f32(low + 16 * (high >> j & 1) - 16) for j, low in enumerate(nibbles(block, 6, 16))]


def test_twin() -> None:
    check_twin("q5_0", decode_block)
