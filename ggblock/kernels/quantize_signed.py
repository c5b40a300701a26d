"""Q3_K, Q6_K and IQ4_XS: sub-blocks with a signed scale, a multiple of a float16 super-scale, and no min.

As in ``quantize_ranges``: the best scale of every sub-block alone, then multiples of a super-scale next to it, then a
better super-scale for the codes found, and again; the best of all is kept.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ..blocks import BlockType
from ..blocks.codebooks import IQ4_LEVELS
from ..simd.jit import inline_strict
from ..simd.vec import convert, less, load, select, splat, store, vabs, zero
from .quantize_search import Grid, make_scale_search, make_weigh
from .quantize_vectors import (
    CODES,
    FLOATS,
    OUT,
    SMALL,
    F,
    I,
    W,
    X,
    as_half,
    clamp,
    make_pack,
    nearest,
    put_byte,
    put_half,
    reciprocal,
    super_scale,
)

ALONE, BEST, TRIED = FLOATS, FLOATS + 16 * 64, FLOATS + 32 * 64      # scales of the sub-blocks alone; their multiples

GRIDS = {"q3_k": (-4, 3, None), "q6_k": (-32, 31, None), "iq4_xs": (-127, 113, IQ4_LEVELS)}

# steps of the search: width, number on either side, polishes, both ends; neighbours on either side; rounds of
# super-scales. Sending the largest weight to the other end too lowers the error by 2 to 4 %; more steps or neighbours
# than these, by less than 0.5 %.
STEPS = {"q3_k": (0.2, 5, 1, True, 1, 8), "q6_k": (0.2, 3, 1, True, 1, 2), "iq4_xs": (4.0, 4, 1, True, 1, 4)}
RESTART = 0.3        # how far below its limit the largest scale is put, from one start to the next


def make_encode(block: BlockType) -> Any:
    """``encode(p, given, none)`` for one of the three types."""
    n_sub, size = block.n_sub_blocks, block.sub_block_size
    grid = Grid(*GRIDS[block.name])
    value, code = grid.value, grid.code
    low, high = (np.float32(-128), np.float32(127)) if block.name == "q6_k" else (np.float32(-32), np.float32(31))
    width, n_steps, n_polish, both, reach, n_rounds = STEPS[block.name]
    restart = np.float32(RESTART)
    search = make_scale_search(size, grid, width, n_steps, n_polish, both)
    weigh = make_weigh(block.block_size)
    finish = _finish(block)
    stride = 64 * size

    @inline_strict
    def error(x, w, scale):
        """The squared error of what a reader will see."""
        f, total = reciprocal(scale), zero(F)
        for k in range(size):
            v = load(x + 64 * k, F)
            miss = scale * value(v * f) - v
            total = total + load(w + 64 * k, F) * miss * miss
        return total

    @inline_strict
    def tried(p, none, d):
        """Multiples of ``d`` for all sub-blocks; the error, and the least squares for ``d`` and the codes found."""
        total = along = energy = zero(F)
        inverse = reciprocal(d)
        for j in range(n_sub + none):
            x, w = p + X + j * stride, p + W + j * stride
            s0 = nearest(load(p + ALONE + 64 * j, F) * inverse)
            best = splat(np.float32(-3e38), F)
            bs = bb = bc = zero(F)
            for i in range(-reach, reach + 1 + none):
                s = clamp(s0 + splat(np.float32(i), F), low, high)
                scale = d * s
                f = reciprocal(scale)
                b = c = zero(F)
                for k in range(size):
                    v = load(x + 64 * k, F)
                    q = value(v * f)
                    wq = load(w + 64 * k, F) * q
                    b, c = b + wq * q, c + wq * v
                gain = (c + c) * scale - scale * scale * b     # the squared error is sum(w x x) less this
                better = less(best, gain)
                best, bs = select(better, gain, best), select(better, s, bs)
                bb, bc = select(better, b, bb), select(better, c, bc)
            store(p + TRIED + 64 * j, bs)
            total = total + error(x, w, d * bs)
            along, energy = along + bs * bc, energy + bs * bs * bb
        return total, along, energy

    @inline_strict
    def encode(p, given, none):
        weigh(p + X, p + W, given)
        top = reach_top = zero(F)
        for j in range(n_sub + none):
            store(p + ALONE + 64 * j, search(p + X + j * stride, p + W + j * stride, none))
        for j in range(n_sub + none):
            s = load(p + ALONE + 64 * j, F)
            larger = less(reach_top, vabs(s))
            top, reach_top = select(larger, s, top), select(larger, vabs(s), reach_top)
        d = super_scale(top, low)
        best, best_d = splat(np.float32(3e38), F), d
        for r in range(n_rounds + none):
            total, along, energy = tried(p, none, d)
            better = less(total, best)
            best, best_d = select(better, total, best), select(better, d, best_d)
            for j in range(n_sub + none):
                s = load(p + TRIED + 64 * j, F)
                store(p + BEST + 64 * j, select(better, s, load(p + BEST + 64 * j, F)))
            if r % 2 == 1:      # next from another start: the largest scale is not at the limit
                d = super_scale(top, low + restart * np.float32((r + 1) // 2))
            else:
                d = as_half(along * reciprocal(energy))
        for j in range(n_sub + none):
            s = load(p + BEST + 64 * j, F)
            put_byte(p + SMALL + 16 * j, convert(s - splat(low, F), I))
            f = reciprocal(best_d * s)
            for k in range(size):
                put_byte(p + CODES + (j * size + k) * 16, convert(code(load(p + X + j * stride + 64 * k, F) * f), I))
        finish(p + CODES, p + SMALL, p + OUT, best_d)
    return encode


def _finish(block: BlockType) -> Any:
    """``finish(codes, small, out, d)``: the block's bytes; ``small``: scales counted from their lowest."""
    at_d = block.field("d").offset * 16
    if block.name == "q6_k":
        pack_low, pack_high = make_pack(block.field("ql")), make_pack(block.field("qh"), 4)
        at_scales = block.field("scales").offset * 16

        @inline_strict
        def finish6(codes, small, out, d):
            pack_low(codes, out)
            pack_high(codes, out)
            put_half(out + at_d, d)
            for j in range(16):
                store(out + at_scales + 16 * j, load(small + 16 * j, "i8x16") ^ splat(np.int8(-128), "i8x16"))
        return finish6

    pack_codes = make_pack(block.field("qs"))
    pack_scales_low, pack_scales_high = make_pack(block.field("scales_l")), make_pack(block.field("scales_h"), 4)
    third = block.name == "q3_k"
    pack_third = make_pack(block.field("hmask"), 2) if third else None

    @inline_strict
    def finish(codes, small, out, d):
        pack_codes(codes, out)
        if third:
            pack_third(codes, out)
        pack_scales_low(small, out)
        pack_scales_high(small, out)
        put_half(out + at_d, d)
    return finish
