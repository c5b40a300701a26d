"""IQ3_S against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .codebooks import codebook
from .common import check_twin, f32, half


def decode_block(block: bytes) -> list[np.float32]:
    out = []
    for four in range(64):
        s = four // 8
        scale = block[106 + s // 2] // 16 if s % 2 else block[106 + s // 2] % 16
        factor = half(block, 0) * f32(1 + 2 * scale)
        index = block[2 + four] + 256 * (block[66 + four // 8] >> four % 8 & 1)
        for k, level in enumerate(codebook("IQ3_S")[index]):
            negative = block[74 + four // 2] >> (4 * (four % 2) + k) & 1
            out.append(factor * f32(-level if negative else level))
    return out


def test_twin() -> None:
    check_twin("iq3_s", decode_block)
