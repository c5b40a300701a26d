"""IQ2_XXS against a scalar decoder written from its layout."""
from __future__ import annotations

import numpy as np

from .codebooks import codebook, with_even_sign
from .common import check_twin, f32, half, word


def decode_block(block: bytes) -> list[np.float32]:
    out = []
    for s in range(8):
        at = 2 + 8 * s
        high = word(block, at + 4, 4)
        scale = half(block, 0) * (f32(0.5) + f32(high >> 28)) * f32(0.25)
        for part in range(4):
            signs = with_even_sign(high >> 7 * part & 127)
            for k, level in enumerate(codebook("IQ2_XXS")[block[at + part]]):
                out.append(scale * f32(-level if signs >> k & 1 else level))
    return out


def test_twin() -> None:
    check_twin("iq2_xxs", decode_block)
