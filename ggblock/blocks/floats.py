"""F32, F16, BF16, F64: plain floating-point numbers, one weight a block.

Decoding to float32 is exact but for F64, which rounds to nearest even. Encoders round to nearest even; BF16
turns every NaN into a quiet one (its payload's upper bits and the sign are kept).
"""
from __future__ import annotations

import numpy as np

from .base import F32, U8, BlockType, Field, chunked


def _decode_f32(blocks: U8, out: F32) -> None:
    out[:] = blocks.view("<f4")


def _decode_f16(blocks: U8, out: F32) -> None:
    out[:] = blocks.view("<f2")


def _decode_bf16(blocks: U8, out: F32) -> None:
    out.view(np.uint32)[:] = blocks.view("<u2").astype(np.uint32) << np.uint32(16)


def _decode_f64(blocks: U8, out: F32) -> None:
    out[:] = blocks.view("<f8")


def _encode_f32(blocks: F32, importance: F32 | None = None) -> U8:
    return np.ascontiguousarray(blocks, "<f4").view(np.uint8)


def _encode_f16(blocks: F32, importance: F32 | None = None) -> U8:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(blocks, "<f2").view(np.uint8)


def _encode_bf16(blocks: F32, importance: F32 | None = None) -> U8:
    bits = np.ascontiguousarray(blocks, np.float32).view(np.uint32)
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    # The addend never carries out of 32 bits for numbers and infinities: 0xFF800000 + 0x7FFF fits.
    rounded = (bits + (np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)))) >> np.uint32(16)
    quiet = bits >> np.uint32(16) | np.uint32(0x40)
    stored: U8 = np.where(nan, quiet, rounded).astype("<u2").view(np.uint8)
    return stored


def _encode_f64(blocks: F32, importance: F32 | None = None) -> U8:
    return np.ascontiguousarray(blocks, "<f8").view(np.uint8)


F32_TYPE = BlockType(
    "f32", 0, 1, 4, 1, (Field("x", 0, 4, 1, 32, "f32", "the weight"),), chunked(_decode_f32, 1, 4), _encode_f32
)
F16_TYPE = BlockType(
    "f16", 1, 1, 2, 1, (Field("x", 0, 2, 1, 16, "f16", "the weight"),), chunked(_decode_f16, 1, 2), _encode_f16
)
BF16_TYPE = BlockType(
    "bf16", 30, 1, 2, 1, (Field("x", 0, 2, 1, 16, "bf16", "the upper half of the weight's float32"),),
    chunked(_decode_bf16, 1, 2), _encode_bf16,
)
F64_TYPE = BlockType(
    "f64", 28, 1, 8, 1, (Field("x", 0, 8, 1, 64, "f64", "the weight"),), chunked(_decode_f64, 1, 8), _encode_f64
)

TYPES = (F32_TYPE, F16_TYPE, BF16_TYPE, F64_TYPE)
