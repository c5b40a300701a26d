"""Q4_1 against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .common import check_twin, f32, half, nibbles


def decode_block(block: bytes) -> list[np.float32]:
    scale, offset = half(block, 0), half(block, 2)
    return [f32(code) * scale + offset for code in nibbles(block, 4, 16)]


def test_twin() -> None:
    check_twin("q4_1", decode_block)
