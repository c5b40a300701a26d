"""Q8_0 against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .common import check_twin, f32, half, signed


def decode_block(block: bytes) -> list[np.float32]:
    scale = half(block, 0)
    return [scale * f32(signed(byte)) for byte in block[2:34]]


def test_twin() -> None:
    check_twin("q8_0", decode_block)
