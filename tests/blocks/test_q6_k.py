"""Q6_K against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .common import check_twin, f32, half, signed


def decode_block(block: bytes) -> list[np.float32]:
    super_scale = half(block, 208)
    out = [f32(0)] * 256
    for part in (0, 1):  # 128 weights from 64 bytes of ql and 32 of qh
        for i in range(32):
            low, low2 = block[64 * part + i], block[64 * part + 32 + i]
            high = block[128 + 32 * part + i]
            quarter = [low % 16, low2 % 16, low // 16, low2 // 16]
            for k in range(4):
                j = 128 * part + 32 * k + i
                code = quarter[k] + 16 * (high >> 2 * k & 3) - 32
                out[j] = super_scale * f32(signed(block[192 + j // 16])) * f32(code)
    return out


def test_twin() -> None:
    check_twin("q6_k", decode_block)
