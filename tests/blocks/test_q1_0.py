"""Q1_0 against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .common import check_twin, half


def decode_block(block: bytes) -> list[np.float32]:
    scale = half(block, 0)
    return [scale if block[2 + j // 8] >> j % 8 & 1 else -scale for j in range(128)]


def test_twin() -> None:
    check_twin("q1_0", decode_block)
