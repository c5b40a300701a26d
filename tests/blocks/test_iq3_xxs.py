"""IQ3_XXS against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .codebooks import codebook, with_even_sign
from .common import check_twin, f32, half, word


def decode_block(block: bytes) -> list[np.float32]:
    out = []
    for s in range(8):
        high = word(block, 66 + 4 * s, 4)
        scale = half(block, 0) * (f32(0.5) + f32(high >> 28)) * f32(0.5)
        for part in range(4):
            signs = with_even_sign(high >> 7 * part & 127)
            first, second = block[2 + 8 * s + 2 * part], block[3 + 8 * s + 2 * part]
            levels = codebook("IQ3_XXS")[first] + codebook("IQ3_XXS")[second]
            out += [scale * f32(-level if signs >> k & 1 else level) for k, level in enumerate(levels)]
    return out


def test_twin() -> None:
    check_twin("iq3_xxs", decode_block)
