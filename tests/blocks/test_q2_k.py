"""Q2_K against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .common import check_twin, f32, half


def decode_block(block: bytes) -> list[np.float32]:
    super_scale, super_min = half(block, 80), half(block, 82)
    out = []
    for part in (0, 1):  # 128 weights from 32 bytes
        for shift in (0, 2, 4, 6):
            for byte_at in range(32):
                sub_block = part * 8 + shift + byte_at // 16
                scale = super_scale * f32(block[sub_block] % 16)
                minimum = super_min * f32(block[sub_block] // 16)
                out.append(scale * f32(block[16 + 32 * part + byte_at] >> shift & 3) - minimum)
    return out


def test_twin() -> None:
    check_twin("q2_k", decode_block)
