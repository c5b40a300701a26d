"""Types with one scale a block and no min: Q4_0, Q5_0, IQ4_NL, Q2_0, TQ1_0, TQ2_0.

The best scale, as one of the three float16 numbers nearest to it; then the codes.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ..blocks import BlockType
from ..blocks.codebooks import IQ4_LEVELS
from ..simd.jit import inline_strict
from ..simd.vec import convert, less, load, select, splat, zero
from .quantize_search import Grid, make_scale_search, make_ternary_search, make_weigh
from .quantize_vectors import (
    CODES,
    OUT,
    F,
    I,
    W,
    X,
    half_bits,
    half_value,
    make_pack,
    nearest,
    put_byte,
    put_half,
    reciprocal,
)

GRIDS = {"q4_0": (-8, 7, None), "q5_0": (-16, 15, None), "iq4_nl": (-127, 113, IQ4_LEVELS), "q2_0": (-1, 2, None),
         "tq1_0": (-1, 1, None), "tq2_0": (-1, 1, None)}

# steps of the search: width, number on either side, polishes; always from both ends
STEPS = {"q4_0": (0.125, 10, 2), "q5_0": (0.2, 6, 2), "iq4_nl": (3.0, 6, 1), "q2_0": (0.12, 8, 2)}


@inline_strict
def half_step(half, by):
    """The half ``by`` places further from zero than ``half`` (both as bits), with its sign; within zero and 65504."""
    magnitude = (half & splat(np.int32(0x7FFF), I)) + splat(np.int32(by), I)
    magnitude = select(less(magnitude, zero(I)), zero(I), magnitude)
    top = splat(np.int32(0x7BFF), I)
    return select(less(top, magnitude), top, magnitude) | (half & splat(np.int32(0x8000), I))


def make_encode(block: BlockType) -> Any:
    """``encode(p, given, none)`` for one of the types."""
    n = block.block_size
    grid = Grid(*GRIDS[block.name])
    value, code = grid.value, grid.code
    if block.name in STEPS:
        search = make_scale_search(n, grid, *STEPS[block.name], True)
    else:
        search = make_ternary_search(n)
    weigh = make_weigh(n)
    finish = _finish_trits(block) if block.name == "tq1_0" else _finish(block)

    @inline_strict
    def encode(p, given, none):
        weigh(p + X, p + W, given)
        half = half_bits(search(p + X, p + W, none))
        best, scale = splat(np.float32(3e38), F), zero(F)
        for i in range(-1, 2 + none):
            d = half_value(half_step(half, i))
            f, total = reciprocal(d), zero(F)
            for k in range(n):
                v = load(p + X + 64 * k, F)
                miss = d * value(v * f) - v
                total = total + load(p + W + 64 * k, F) * miss * miss
            better = less(total, best)
            best, scale = select(better, total, best), select(better, d, scale)
        f = reciprocal(scale)
        for k in range(n):
            put_byte(p + CODES + 16 * k, convert(code(load(p + X + 64 * k, F) * f), I))
        finish(p + CODES, p + OUT, scale)
    return encode


def _finish(block: BlockType) -> Any:
    at_d, pack_codes, fifth = block.field("d").offset * 16, make_pack(block.field("qs")), block.name == "q5_0"
    pack_fifth = make_pack(block.field("qh"), 4) if fifth else None

    @inline_strict
    def finish(codes, out, d):
        pack_codes(codes, out)
        if fifth:
            pack_fifth(codes, out)
        put_half(out + at_d, d)
    return finish


def _finish_trits(block: BlockType) -> Any:
    """Five ternary digits ``n`` to a byte: ``ceil(n * 256 / 243)``; see ``blocks.tq1_0``."""
    at_d, at_qh = block.field("d").offset * 16, block.field("qh").offset * 16

    @inline_strict
    def digit(codes, i):
        return convert(convert(load(codes + 16 * i, "i8x16"), I), F)

    @inline_strict
    def put(to, number):
        v = number * splat(np.float32(256 / 243), F)      # never near a whole number but at 0
        whole = nearest(v)
        put_byte(to, convert(whole + select(less(whole, v), splat(np.float32(1), F), zero(F)), I))

    @inline_strict
    def run(codes, to, n_bytes, n_digits):
        three = splat(np.float32(3), F)
        for i in range(n_bytes):
            number = zero(F)
            for k in range(n_digits):
                number = number * three + digit(codes, k * n_bytes + i)
            for _ in range(5 - n_digits):
                number = number * three
            put(to + 16 * i, number)

    @inline_strict
    def finish(codes, out, d):
        run(codes, out, 32, 5)
        run(codes + 160 * 16, out + 32 * 16, 16, 5)
        run(codes + 240 * 16, out + at_qh, 4, 4)
        put_half(out + at_d, d)
    return finish
