"""MXFP4 against a scalar decoder that works out the 4-bit floats and the power of two."""
from __future__ import annotations

import math

import numpy as np

from .common import check_twin, f32, nibbles


def e2m1(code: int) -> float:
    """A 4-bit float: sign, 2 bits of exponent (bias 1), 1 of mantissa; minus zero counts as zero."""
    exponent, mantissa = code >> 1 & 3, code & 1
    size = mantissa / 2 if exponent == 0 else (1 + mantissa / 2) * 2 ** (exponent - 1)
    return -size if code & 8 and size else size


def decode_block(block: bytes) -> list[np.float32]:
    # Half the scale times twice the value: 2 ** 128 would not fit a float32.
    return [f32(math.ldexp(2 * e2m1(code), block[0] - 128)) for code in nibbles(block, 1, 16)]


def test_twin() -> None:
    check_twin("mxfp4", decode_block, n_blocks=400)
