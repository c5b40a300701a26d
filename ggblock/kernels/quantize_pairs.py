"""Q4_1 and Q5_1: a float16 scale and a float16 offset a block.

The best range; then each of the three float16 scales nearest to it with the least-squares offset for the codes found.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ..blocks import BlockType
from ..simd.jit import inline_strict
from ..simd.vec import convert, less, load, select, splat, zero
from .quantize_scales import half_step
from .quantize_search import make_range_search, make_weigh
from .quantize_vectors import (
    CODES,
    OUT,
    F,
    I,
    W,
    X,
    as_half,
    clamp,
    half_bits,
    half_value,
    make_pack,
    nearest,
    put_byte,
    put_half,
    reciprocal,
)


def make_encode(block: BlockType) -> Any:
    """``encode(p, given, none)`` for one of the two types."""
    n = block.block_size
    fifth = block.name == "q5_1"
    top = np.float32(31 if fifth else 15)
    search = make_range_search(n, int(top), -1.6, 0.2, 16, 2, signed=True)
    weigh = make_weigh(n)
    at_d, at_m = block.field("d").offset * 16, block.field("m").offset * 16
    pack_codes = make_pack(block.field("qs"))
    pack_fifth = make_pack(block.field("qh"), 4) if fifth else None

    @inline_strict
    def codes(v, scale_inverse, offset):
        return clamp(nearest((v - offset) * scale_inverse), np.float32(0), top)

    @inline_strict
    def encode(p, given, none):
        weigh(p + X, p + W, given)
        scale, minimum = search(p + X, p + W, none)
        half, start = half_bits(scale), as_half(zero(F) - minimum)
        best, best_d, best_m = splat(np.float32(3e38), F), zero(F), start
        for i in range(-1, 2 + none):
            d = half_value(half_step(half, i))
            f, m = reciprocal(d), start
            for _ in range(3 + none):
                total = sum_w = sum_miss = zero(F)
                for k in range(n):
                    v, weight = load(p + X + 64 * k, F), load(p + W + 64 * k, F)
                    step = d * codes(v, f, m)
                    miss = v - (step + m)
                    total = total + weight * miss * miss
                    sum_w, sum_miss = sum_w + weight, sum_miss + weight * miss
                better = less(total, best)
                best, best_d, best_m = select(better, total, best), select(better, d, best_d), select(better, m, best_m)
                m = as_half(m + sum_miss * reciprocal(sum_w))
        f = reciprocal(best_d)
        for k in range(n):
            put_byte(p + CODES + 16 * k, convert(codes(load(p + X + 64 * k, F), f, best_m), I))
        pack_codes(p + CODES, p + OUT)
        if fifth:
            pack_fifth(p + CODES, p + OUT)
        put_half(p + OUT + at_d, best_d)
        put_half(p + OUT + at_m, best_m)
    return encode
