"""NVFP4 against a scalar decoder that works out both float formats."""
from __future__ import annotations

import numpy as np

from .common import check_twin, f32, nibbles
from .test_mxfp4 import e2m1


def e4m3(byte: int) -> float:
    """An unsigned 8-bit float: 4 bits of exponent (bias 7), 3 of mantissa; 127 is 0; bit 7 has no meaning."""
    exponent, mantissa = byte >> 3 & 15, byte & 7
    if byte == 127:
        return 0.0
    return mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)


def decode_block(block: bytes) -> list[np.float32]:
    out = []
    for s in range(4):
        out += [f32(e4m3(block[s]) * e2m1(code)) for code in nibbles(block, 4 + 8 * s, 8)]
    return out


def test_twin() -> None:
    check_twin("nvfp4", decode_block, n_blocks=200)
