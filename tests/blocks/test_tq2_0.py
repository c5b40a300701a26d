"""TQ2_0 against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .common import check_twin, f32, half


def decode_block(block: bytes) -> list[np.float32]:
    scale = half(block, 64)
    out = []
    for part in (0, 1):
        for shift in (0, 2, 4, 6):
            out += [scale * f32((byte >> shift & 3) - 1) for byte in block[32 * part : 32 * part + 32]]
    return out


def test_twin() -> None:
    check_twin("tq2_0", decode_block)
