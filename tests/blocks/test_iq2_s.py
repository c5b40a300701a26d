"""IQ2_S against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .codebooks import codebook
from .common import check_twin, f32, half


def decode_block(block: bytes) -> list[np.float32]:
    out = []
    for eight in range(32):
        scale_byte = block[74 + eight // 4]
        scale = scale_byte // 16 if eight // 2 % 2 else scale_byte % 16
        factor = half(block, 0) * (f32(0.5) + f32(scale)) * f32(0.25)
        index = block[2 + eight] + 256 * (block[66 + eight // 4] >> 2 * (eight % 4) & 3)
        for k, level in enumerate(codebook("IQ2_S")[index]):
            out.append(factor * f32(-level if block[34 + eight] >> k & 1 else level))
    return out


def test_twin() -> None:
    check_twin("iq2_s", decode_block)
