"""Q8_K against a scalar decoder written from its layout, and its redundant sums."""
from __future__ import annotations

import struct

import numpy as np

from ggblock import blocks

from .common import check_twin, f32, signed


def decode_block(block: bytes) -> list[np.float32]:
    scale = f32(struct.unpack_from("<f", block)[0])
    return [scale * f32(signed(byte)) for byte in block[4:260]]


def test_twin() -> None:
    check_twin("q8_k", decode_block)


def test_sums() -> None:
    x = np.random.default_rng(0).standard_normal((3, 512)).astype(np.float32)
    for block in blocks.quantize(x, "q8_k").reshape(-1, 292):
        sums = struct.unpack_from("<16h", bytes(block), 260)
        codes = [signed(int(byte)) for byte in block[4:260]]
        assert list(sums) == [sum(codes[16 * s : 16 * s + 16]) for s in range(16)]
        assert max(abs(code) for code in codes) == 127
