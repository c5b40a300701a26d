"""Q4_0 against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .common import check_twin, f32, half, nibbles


def decode_block(block: bytes) -> list[np.float32]:
    scale = half(block, 0)
    return [scale * f32(code - 8) for code in nibbles(block, 2, 16)]


def test_twin() -> None:
    check_twin("q4_0", decode_block)
