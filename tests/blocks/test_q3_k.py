"""Q3_K against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .common import check_twin, f32, half


def scale_of(block: bytes, s: int) -> int:
    low = block[96 + s] % 16 if s < 8 else block[96 + s - 8] // 16
    return low + 16 * (block[104 + s % 4] >> 2 * (s // 4) & 3) - 32


def decode_block(block: bytes) -> list[np.float32]:
    super_scale = half(block, 108)
    out = []
    for j in range(256):
        part, within = divmod(j, 128)
        plane, byte_at = divmod(within, 32)
        code = block[32 + 32 * part + byte_at] >> 2 * plane & 3
        if not block[byte_at] >> (4 * part + plane) & 1:
            code -= 4
        out.append(super_scale * f32(scale_of(block, j // 16)) * f32(code))
    return out


def test_twin() -> None:
    check_twin("q3_k", decode_block)
