"""Q2_K, Q4_K and Q5_K: sub-blocks with a scale and a min, both multiples of a float16 super-scale.

First the best scale and min of every sub-block alone. Then, for given super-scales, every sub-block tries the multiples
next to its own, by the error of what a reader will see; the super-scales get their least squares for the codes found,
and the multiples are tried again. The best of all is kept.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ..blocks import BlockType
from ..simd.jit import inline_strict
from ..simd.vec import convert, less, load, select, shift_left, splat, store, vmax, zero
from .quantize_search import make_range_search, make_weigh
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

SCALES, MINS = FLOATS, FLOATS + 16 * 64                 # of the sub-blocks alone; then their multiples
BEST_SCALES, BEST_MINS = FLOATS + 32 * 64, FLOATS + 48 * 64
TRY_SCALES, TRY_MINS = FLOATS + 64 * 64, FLOATS + 80 * 64
SUM_W, SUM_X = FLOATS + 96 * 64, FLOATS + 112 * 64

# steps of the search: first, width, number, polishes; then neighbours tried on either side, and rounds of super-scales.
# More of each was tried: twice the steps or the neighbours gain less than half a percent of the error.
STEPS = {"q2_k": (-1.0, 0.12, 22, 2, 1, 4), "q4_k": (-1.6, 0.16, 20, 2, 1, 4), "q5_k": (-1.6, 0.16, 20, 2, 1, 4)}


def make_encode(block: BlockType) -> Any:
    """``encode(p, given, none)`` for one of the three types."""
    n_sub, size = block.n_sub_blocks, block.sub_block_size
    code_max = {"q2_k": 3, "q4_k": 15, "q5_k": 31}[block.name]
    limit = np.float32(15 if block.name == "q2_k" else 63)
    top = np.float32(code_max)
    first, width, n_steps, n_polish, reach, n_rounds = STEPS[block.name]
    search = make_range_search(size, code_max, first, width, n_steps, n_polish)
    weigh = make_weigh(block.block_size)
    finish = _finish(block)
    stride = 64 * size

    @inline_strict
    def sums(x, w, scale, minimum):
        """sum(w q), sum(w q q), sum(w q x) for the codes that follow from ``scale`` and ``minimum``."""
        f = reciprocal(scale)
        offset = minimum * f
        sq = sqq = sqx = zero(F)
        for k in range(size):
            v = load(x + 64 * k, F)
            q = clamp(nearest(v * f + offset), np.float32(0), top)
            wq = load(w + 64 * k, F) * q
            sq, sqq, sqx = sq + wq, sqq + wq * q, sqx + wq * v
        return sq, sqq, sqx

    @inline_strict
    def error(x, w, scale, minimum):
        """The squared error of what a reader will see. Unlike a gain it loses nothing where the fit is almost exact."""
        f, total = reciprocal(scale), zero(F)
        offset = minimum * f
        for k in range(size):
            v = load(x + 64 * k, F)
            q = clamp(nearest(v * f + offset), np.float32(0), top)
            miss = (scale * q - minimum) - v
            total = total + load(w + 64 * k, F) * miss * miss
        return total

    @inline_strict
    def tried(p, none, d, dmin, ms, mm):
        """Multiples of the super-scales for scales and mins at ``ms`` and ``mm``: error, sums for the next ones."""
        total = aa = bb = cc = dd = ee = zero(F)
        inv_d, inv_m = reciprocal(d), reciprocal(dmin)
        two = splat(np.float32(2), F)
        for j in range(n_sub + none):
            x, w = p + X + j * stride, p + W + j * stride
            s0 = nearest(load(p + ms + 64 * j, F) * inv_d)
            m0 = clamp(nearest(load(p + mm + 64 * j, F) * inv_m), np.float32(0), limit)
            sw, sx = load(p + SUM_W + 64 * j, F), load(p + SUM_X + 64 * j, F)
            inv_w = reciprocal(sw)
            best = splat(np.float32(-3e38), F)
            bs = bm = sq = sqq = sqx = zero(F)
            for i in range(-reach, reach + 1 + none):
                s = clamp(s0 + splat(np.float32(i), F), np.float32(0), limit)
                scale = d * s
                tq, tqq, tqx = sums(x, w, scale, dmin * m0)
                m = clamp(nearest((scale * tq - sx) * inv_w * inv_m), np.float32(0), limit)
                minimum = dmin * m
                # the squared error is sum(w x x) less this
                gain = two * (scale * tqx - minimum * sx + scale * minimum * tq) \
                    - scale * scale * tqq - minimum * minimum * sw
                better = less(best, gain)
                best, bs, bm = select(better, gain, best), select(better, s, bs), select(better, m, bm)
                sq, sqq, sqx = select(better, tq, sq), select(better, tqq, sqq), select(better, tqx, sqx)
            total = total + error(x, w, d * bs, dmin * bm)
            store(p + TRY_SCALES + 64 * j, bs)
            store(p + TRY_MINS + 64 * j, bm)
            aa = aa + bs * bs * sqq
            bb = bb + bs * bm * sq
            cc = cc + bm * bm * sw
            dd = dd + bs * sqx
            ee = ee + bm * sx
        return total, aa, bb, cc, dd, ee

    @inline_strict
    def encode(p, given, none):
        weigh(p + X, p + W, given)
        top_s = top_m = zero(F)
        for j in range(n_sub + none):
            s, m = search(p + X + j * stride, p + W + j * stride, none)
            store(p + SCALES + 64 * j, s)
            store(p + MINS + 64 * j, m)
            top_s, top_m = vmax(top_s, s), vmax(top_m, m)
            sw = sx = zero(F)
            for k in range(size):
                weight = load(p + W + j * stride + 64 * k, F)
                sw, sx = sw + weight, sx + weight * load(p + X + j * stride + 64 * k, F)
            store(p + SUM_W + 64 * j, sw)
            store(p + SUM_X + 64 * j, sx)
        d, dmin = super_scale(top_s, limit), super_scale(top_m, limit)
        best, best_d, best_m = splat(np.float32(3e38), F), d, dmin
        for r in range(n_rounds + none):
            total, aa, bb, cc, dd, ee = tried(p, none, d, dmin, SCALES, MINS)
            better = less(total, best)
            best = select(better, total, best)
            best_d, best_m = select(better, d, best_d), select(better, dmin, best_m)
            for j in range(n_sub + none):
                s, m = load(p + TRY_SCALES + 64 * j, F), load(p + TRY_MINS + 64 * j, F)
                store(p + BEST_SCALES + 64 * j, select(better, s, load(p + BEST_SCALES + 64 * j, F)))
                store(p + BEST_MINS + 64 * j, select(better, m, load(p + BEST_MINS + 64 * j, F)))
            if r % 2 == 1:      # next from another start: the largest scale and min are not at the limit
                d = super_scale(top_s, limit - np.float32((r + 1) // 2))
                dmin = super_scale(top_m, limit - np.float32((r + 1) // 2))
                continue
            # least squares of x ~ d * (s q) - dmin * m over the super-block
            det = aa * cc - bb * bb
            sound = less(aa * cc * splat(np.float32(1e-5), F), det)
            inverse = reciprocal(det)
            d = select(sound, (dd * cc - bb * ee) * inverse, dd * reciprocal(aa))
            dmin = select(sound, (bb * dd - aa * ee) * inverse, zero(F))
            d, dmin = as_half(vmax(d, zero(F))), as_half(vmax(dmin, zero(F)))
        for j in range(n_sub + none):
            bs, bm = load(p + BEST_SCALES + 64 * j, F), load(p + BEST_MINS + 64 * j, F)
            put_byte(p + SMALL + 16 * j, convert(bs, I))
            put_byte(p + SMALL + 16 * (n_sub + j), convert(bm, I))
            scale, minimum = best_d * bs, best_m * bm
            f = reciprocal(scale)
            offset = minimum * f
            for k in range(size):
                v = load(p + X + j * stride + 64 * k, F)
                q = clamp(nearest(v * f + offset), np.float32(0), top)
                put_byte(p + CODES + (j * size + k) * 16, convert(q, I))
        finish(p + CODES, p + SMALL, p + OUT, best_d, best_m)
    return encode


def _finish(block: BlockType) -> Any:
    """``finish(codes, small, out, d, dmin)``: the block's bytes."""
    at_d, at_min = block.field("d").offset * 16, block.field("dmin").offset * 16
    pack_codes = make_pack(block.field("qs"))

    if block.name == "q2_k":
        pack_small = make_pack(block.field("scales"))

        @inline_strict
        def finish2(codes, small, out, d, dmin):
            pack_codes(codes, out)
            pack_small(small, out)
            put_half(out + at_d, d)
            put_half(out + at_min, dmin)
        return finish2

    at_scales = block.field("scales").offset * 16
    high = block.name == "q5_k"
    pack_high = make_pack(block.field("qh"), 4) if high else None
    four = "i8x64"

    @inline_strict
    def finish(codes, small, out, d, dmin):
        pack_codes(codes, out)
        if high:
            pack_high(codes, out)
        put_half(out + at_d, d)
        put_half(out + at_min, dmin)
        # blocks.k_scales: the upper two bits of scales and mins 4-7 lie above scales and mins 0-3
        top, nibble = splat(np.int8(0x30), four), splat(np.int8(15), four)
        s0, s1 = load(small, four), load(small + 64, four)
        m0, m1 = load(small + 128, four), load(small + 192, four)
        store(out + at_scales, s0 | shift_left(s1 & top, 2))
        store(out + at_scales + 64, m0 | shift_left(m1 & top, 2))
        store(out + at_scales + 128, (s1 & nibble) | shift_left(m1 & nibble, 4))
    return finish
