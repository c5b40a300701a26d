"""Q4_K against a scalar decoder written from its layout, and the packing of its scales."""
from __future__ import annotations

import numpy as np

from ggblock.blocks.k_scales import pack_scales, unpack_scales

from .common import check_twin, f32, half


def scale_and_min(packed: bytes, s: int) -> tuple[int, int]:
    """The 6-bit scale and min of sub-block ``s`` out of the twelve bytes."""
    if s < 4:
        return packed[s] % 64, packed[s + 4] % 64
    return packed[s + 4] % 16 + 16 * (packed[s - 4] // 64), packed[s + 4] // 16 + 16 * (packed[s] // 64)


def decode_block(block: bytes) -> list[np.float32]:
    super_scale, super_min = half(block, 0), half(block, 2)
    out = []
    for s in range(8):
        scale, minimum = scale_and_min(block[4:16], s)
        for byte in block[16 + 32 * (s // 2) : 48 + 32 * (s // 2)]:
            code = byte // 16 if s % 2 else byte % 16
            out.append(super_scale * f32(scale) * f32(code) - super_min * f32(minimum))
    return out


def test_twin() -> None:
    check_twin("q4_k", decode_block)


def test_scales_survive_packing() -> None:
    rng = np.random.default_rng(0)
    scales, mins = rng.integers(0, 64, (2, 500, 8), dtype=np.uint8)
    packed = pack_scales(scales, mins)
    assert packed.shape == (500, 12)
    for got, want in zip(unpack_scales(packed), (scales, mins), strict=True):
        np.testing.assert_array_equal(got, want)
    for row, scale_row, min_row in zip(packed[:20], scales, mins, strict=False):
        assert [scale_and_min(bytes(row), s) for s in range(8)] == list(zip(scale_row, min_row, strict=True))
