"""Types whose codes follow from the weights without a search: Q8_0 (ggml's bytes), Q1_0, MXFP4 (of three exponents)."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..blocks import BlockType
from ..blocks.codebooks import E2M1_DOUBLED
from ..simd.jit import inline_strict
from ..simd.vec import bitcast, convert, less, load, select, shift_left, shift_right, splat, vabs, vmax, zero
from .quantize_search import make_staircase, make_weigh
from .quantize_vectors import CODES, OUT, F, I, W, X, make_pack, nearest, put_byte, put_half, reciprocal


def make_encode(block: BlockType) -> Any:
    """``encode(p, given, none)`` for one of the types."""
    return {"q8_0": _make_q8_0, "q1_0": _make_q1_0, "mxfp4": _make_mxfp4}[block.name](block)


@inline_strict
def half_away(v):
    """The whole number nearest to ``v``, halves away from zero, as C's ``roundf``."""
    one, none = splat(np.float32(1), F), zero(F)
    size = vabs(v)
    whole = nearest(size)
    whole = whole - select(less(size, whole), one, none)
    whole = whole + select(less(size - whole, splat(np.float32(0.5), F)), none, one)
    return select(less(v, none), none - whole, whole)


def _make_q8_0(block: BlockType) -> Any:
    """The largest magnitude becomes 127; importance would change next to nothing and is ignored."""
    at_d, at_qs, n = block.field("d").offset * 16, block.field("qs").offset * 16, block.block_size

    @inline_strict
    def encode(p, given, none):
        size = zero(F)
        for k in range(n):
            size = vmax(size, vabs(load(p + X + 64 * k, F)))
        d = size / splat(np.float32(127), F)
        f = reciprocal(d)
        for k in range(n):
            put_byte(p + OUT + at_qs + 16 * k, convert(half_away(load(p + X + 64 * k, F) * f), I))
        put_half(p + OUT + at_d, d)
    return encode


def _make_q1_0(block: BlockType) -> Any:
    """Signs, and the mean magnitude, which is the least-squares scale; 0 counts as positive."""
    at_d, n = block.field("d").offset * 16, block.block_size
    weigh, pack = make_weigh(n), make_pack(block.field("qs"))

    @inline_strict
    def encode(p, given, none):
        weigh(p + X, p + W, given)
        total = sum_w = zero(F)
        for k in range(n):
            v, weight = load(p + X + 64 * k, F), load(p + W + 64 * k, F)
            total, sum_w = total + weight * vabs(v), sum_w + weight
            put_byte(p + CODES + 16 * k, select(less(v, zero(F)), zero(I), splat(np.int32(1), I)))
        pack(p + CODES, p + OUT)
        put_half(p + OUT + at_d, total * reciprocal(sum_w))
    return encode


def _make_mxfp4(block: BlockType) -> Any:
    """The power of two that sends the largest magnitude to 4..8 (OCP's choice), its half or its double: the best."""
    n, weigh, pack = block.block_size, make_weigh(block.block_size), make_pack(block.field("qs"))
    at_e = block.field("e").offset * 16
    magnitudes = E2M1_DOUBLED[:8].astype(np.float32)
    value, code = make_staircase(magnitudes, True), make_staircase(magnitudes, False)

    @inline_strict
    def encode(p, given, none):
        weigh(p + X, p + W, given)
        size = zero(F)
        for k in range(n):
            size = vmax(size, vabs(load(p + X + 64 * k, F)))
        first = shift_right(bitcast(size, I), 23)         # 127 + floor(log2 size)
        best, exponent = splat(np.float32(3e38), F), zero(I)
        for i in range(-3, 0 + none):
            e = first + splat(np.int32(i), I)
            lowest = splat(np.int32(2), I)
            e = select(less(e, lowest), lowest, e)
            scale = bitcast(shift_left(e - splat(np.int32(1), I), 23), F)       # 2**(e - 128)
            f, total = reciprocal(scale), zero(F)
            for k in range(n):
                v = vabs(load(p + X + 64 * k, F))
                miss = scale * value(v * f) - v
                total = total + load(p + W + 64 * k, F) * miss * miss
            better = less(total, best)
            best, exponent = select(better, total, best), select(better, e, exponent)
        put_byte(p + OUT + at_e, exponent)
        f = reciprocal(bitcast(shift_left(exponent - splat(np.int32(1), I), 23), F))
        for k in range(n):
            v = load(p + X + 64 * k, F)
            c = convert(code(vabs(v) * f), I)
            negative = select(less(v, zero(F)), splat(np.int32(8), I), zero(I))
            put_byte(p + CODES + 16 * k, select(less(zero(I), c), c | negative, c))
        pack(p + CODES, p + OUT)
    return encode
