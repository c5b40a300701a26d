"""TQ1_0 against a scalar decoder that finds the ternary digits by division, and one by multiplication for odd bytes."""
from __future__ import annotations

import numpy as np

from .common import check_twin, f32, half


def digits(byte: int, n_digits: int) -> list[int]:
    """The leading ternary digits: each is what a multiplication by 3 carries out of the byte."""
    out = []
    for _ in range(n_digits):
        carry, byte = divmod(byte * 3, 256)
        out.append(carry)
    return out


def decode_block(block: bytes) -> list[np.float32]:
    scale = half(block, 52)
    out = []
    for at, n_bytes, n_digits in ((0, 32, 5), (32, 16, 5), (48, 4, 4)):
        for k in range(n_digits):
            out += [scale * f32(digits(byte, n_digits)[k] - 1) for byte in block[at : at + n_bytes]]
    return out


def test_twin() -> None:
    check_twin("tq1_0", decode_block)


def test_a_byte_is_its_base_3_number_scaled_and_rounded_up() -> None:
    for number in range(243):
        want = [number // 3 ** (4 - k) % 3 for k in range(5)]
        assert digits(-(-number * 256 // 243), 5) == want
