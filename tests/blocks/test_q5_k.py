"""Q5_K against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .common import check_twin, f32, half
from .test_q4_k import scale_and_min


def decode_block(block: bytes) -> list[np.float32]:
    super_scale, super_min = half(block, 0), half(block, 2)
    out = []
    for s in range(8):
        scale, minimum = scale_and_min(block[4:16], s)
        for i in range(32):
            byte = block[48 + 32 * (s // 2) + i]
            code = (byte // 16 if s % 2 else byte % 16) + 16 * (block[16 + i] >> s & 1)
            out.append(super_scale * f32(scale) * f32(code) - super_min * f32(minimum))
    return out


def test_twin() -> None:
    check_twin("q5_k", decode_block)
