"""IQ2_XS against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .codebooks import codebook, with_even_sign
from .common import check_twin, f32, half, word


def decode_block(block: bytes) -> list[np.float32]:
    out = []
    for eight in range(32):
        scale_byte = block[66 + eight // 4]
        scale = scale_byte // 16 if eight // 2 % 2 else scale_byte % 16
        factor = half(block, 0) * (f32(0.5) + f32(scale)) * f32(0.25)
        code = word(block, 2 + 2 * eight, 2)
        signs = with_even_sign(code // 512)
        for k, level in enumerate(codebook("IQ2_XS")[code % 512]):
            out.append(factor * f32(-level if signs >> k & 1 else level))
    return out


def test_twin() -> None:
    check_twin("iq2_xs", decode_block)
