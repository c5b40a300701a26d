"""Q2_0 against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .common import check_twin, f32, half


def decode_block(block: bytes) -> list[np.float32]:
    scale = half(block, 0)
    return [scale * f32((block[2 + j // 4] >> 2 * (j % 4) & 3) - 1) for j in range(64)]


def test_twin() -> None:
    check_twin("q2_0", decode_block)
