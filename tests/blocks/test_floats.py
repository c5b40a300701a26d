"""F32, F16, BF16, F64 against Python's struct, and their encoders' rounding."""
from __future__ import annotations

import struct

import numpy as np
import pytest

from ggblock import blocks

from .common import assert_same_floats, check_twin, f32


def test_f32() -> None:
    check_twin("f32", lambda block: [f32(struct.unpack("<f", block)[0])])


def test_f16() -> None:
    every = np.arange(65536, dtype="<u2").view(np.uint8).reshape(-1, 2)
    expected = [struct.unpack("<e", bytes(block))[0] for block in every]
    assert_same_floats(blocks.by_name("f16").decode(every), np.array(expected, np.float32))


def test_bf16() -> None:
    every = np.arange(65536, dtype="<u2").view(np.uint8).reshape(-1, 2)
    expected = [struct.unpack("<f", b"\0\0" + bytes(block))[0] for block in every]
    assert_same_floats(blocks.by_name("bf16").decode(every), np.array(expected, np.float32))


def test_f64() -> None:
    numbers = [0.1, -0.0, 1e300, -1e300, 1e-300, 2.0**-149, 16777217.0, 16777219.0, float("inf"), float("nan")]
    expected = [0.1, -0.0, np.inf, -np.inf, 0.0, 2.0**-149, 16777216.0, 16777220.0, np.inf, np.nan]
    decoded = blocks.dequantize(struct.pack("<10d", *numbers), "f64", 10)
    assert_same_floats(decoded, np.array(expected, np.float32))


@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "f64"])
def test_every_stored_number_comes_back(name: str) -> None:
    block = blocks.by_name(name)
    raw = np.random.default_rng(3).integers(0, 256, (4096, 4), dtype=np.uint8)
    values = block.decode(raw.reshape(-1, 2)[:4096]) if block.block_bytes == 2 else raw.view("<f4")
    values = values[np.isfinite(values)].reshape(1, -1)
    assert_same_floats(blocks.dequantize(blocks.quantize(values, name), name, values.shape), values)


def test_bf16_rounds_half_to_even() -> None:
    bits = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x7F7FFFFF, 0x7FC00001, 0xFF800001], np.uint32)
    encoded = blocks.quantize(bits.view(np.float32), "bf16").view("<u2")[0]
    assert [hex(x) for x in encoded] == ["0x3f80", "0x3f82", "0x3f81", "0x3f80", "0x7f80", "0x7fc0", "0xffc0"]


def test_f16_rounds_half_to_even_and_overflows_to_infinity() -> None:
    values = np.array([1 + 2**-11, 1 + 3 * 2**-11, 65519.0, 65520.0, 2.0**-25, 3 * 2.0**-26], np.float32)
    encoded = blocks.quantize(values, "f16").view("<u2")[0]
    assert [hex(x) for x in encoded] == ["0x3c00", "0x3c02", "0x7bff", "0x7c00", "0x0", "0x1"]
