"""The online softmax of a block of keys, up to eight query rows at once, between the two products of ``attention``.

What is one number a row, its maximum and its sum, is a lane of a vector of eight: the rows' vectors of 16 keys are
reduced together, and nothing waits for a comparison of single numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit
from ..simd.jit import inline
from ..simd.machines import joined
from ..simd.vec import (
    MACHINE,
    Vec,
    emit_exp2,
    emit_max,
    lane_at,
    lanes_of,
    less,
    load,
    rolled,
    select,
    splat,
    stack,
    store,
    tree,
    vexp2,
    vmax,
    zero,
)
from . import attention_words
from .shapes import MICRO_ROWS

F = "f32x16"
MASKED = np.float32(-3.0e38)
ALPHAS = 64 * MICRO_ROWS  # behind a vector a row: what the earlier sum of each row is multiplied by
PEAKS = ALPHAS + 4 * MICRO_ROWS  # the largest score of each row in the block
SHARES = PEAKS + 4 * MICRO_ROWS  # and the weight of that beside the largest of all
ROOM = SHARES + 4 * MICRO_ROWS


def reduced(e: Emit, rows: list[Any], combine: Callable[[Any, Any], Any]) -> Any:
    """Eight <16 x float> as <8 x float>: what the lanes of each combine to, in the same order on every machine.

    In every four lanes neighbours of two rows are put side by side, then pairs of four rows; then fours are combined.
    """
    fours = [i // 4 * 4 for i in range(16)]
    neighbours = [at + i % 4 // 2 + 16 * (i % 2) for i, at in enumerate(fours)]
    pairs = [at + i % 2 + 16 * (i % 4 // 2) for i, at in enumerate(fours)]
    for order in (neighbours, pairs):
        both = [joined(e.b, list(two)) for two in zip(rows[::2], rows[1::2], strict=True)]
        rows = [combine(e.shuffle(v, order), e.shuffle(v, [i + 2 for i in order])) for v in both]
    both, halves = joined(e.b, rows), [i % 8 + 16 * (i // 8) for i in range(16)]
    last = combine(e.shuffle(both, halves), e.shuffle(both, [i + 8 for i in halves]))
    quarters = [i % 4 + 8 * (i // 4) for i in range(8)]
    return combine(e.shuffle(last, quarters), e.shuffle(last, [i + 4 for i in quarters]))


def _rows(e: Emit, room: Any, n: int) -> list[Any]:
    """The vectors of ``n`` rows; of the last one again where eight are wanted."""
    rows = [e.load(room, 64 * r, F) for r in range(n)]
    return rows + rows[-1:] * (MICRO_ROWS - n)


@intrinsic(prefer_literal=True)
def advance(typingctx, room, m, rows, apart):
    """The maxima ``m`` of ``rows`` rows, float32, raised to those of the vectors at ``room``, behind which is written
    by how much their earlier sums shrink; ``apart``: and what ``PEAKS`` and ``SHARES`` say. Returns whether any does.
    """
    n, both = rows.literal_value, apart.literal_value

    def codegen(c, b, s, a):
        e = Emit(b, MACHINE)
        before, few = e.load(a[1], 0, "f32x8"), e.const("f32x8", MASKED)
        peaks = reduced(e, _rows(e, a[0], n), partial(emit_max, e))
        now = emit_max(e, peaks, before)
        # a row that saw nothing yet has a sum that means nothing
        alphas = b.select(b.fcmp_ordered("<=", before, few), e.zero("f32x8"), emit_exp2(e, b.fsub(before, now)))
        e.store(a[1], 0, now)
        e.store(a[0], ALPHAS, alphas)
        if both:
            e.store(a[0], PEAKS, peaks)
            e.store(a[0], SHARES, emit_exp2(e, b.fsub(peaks, now)))
        grown = b.zext(b.fcmp_ordered(">", now, before), e.zero("i32x8").type)
        return b.icmp_signed("!=", tree(e, grown, b.or_), e.const("i32", 0))

    return types.boolean(types.int64, types.int64, rows, apart), codegen


@intrinsic(prefer_literal=True)
def add_up(typingctx, room, l, rows):
    """``l`` of ``rows`` rows, float32: shrunk as ``advance`` says, and the sums of the vectors at ``room`` added."""
    n = rows.literal_value

    def codegen(c, b, s, a):
        e = Emit(b, MACHINE)
        sums = reduced(e, _rows(e, a[0], n), b.fadd)
        e.store(a[1], 0, e.fma(e.load(a[1], 0, "f32x8"), e.load(a[0], ALPHAS, "f32x8"), sums))
        return c.get_dummy_value()

    return types.void(types.int64, types.int64, rows), codegen


@intrinsic
def largest_of(typingctx, row):
    """The largest of each 16 of 128 floats, <8 x float>."""

    def codegen(c, b, s, a):
        e = Emit(b, MACHINE)
        return reduced(e, _rows(e, a[0], 8), partial(emit_max, e))

    return Vec("f32", 8)(types.int64), codegen


def make_online(
    row_bytes: int, rows: int, block_keys: int, scores: Any, gather: Any, in_words: bool = False, marks: bool = False
) -> Any:
    """The block around its two products: masks, and the softmax that goes on from block to block. ``in_words``: weights
    beside the largest of their row in the block are left at the head of their rows, as ``attention_words`` writes them,
    and behind them the weight of that one. ``marks``: the largest score of each 16 keys is
    left at ``tops``, rows ``top_step`` bytes apart: see ``attention_q12``."""
    score_bytes, apart = block_keys * 4, int(in_words)
    assert rows <= MICRO_ROWS

    @inline
    def block(q, keys, values, first, n_keys, o, m, l, p, low, high, masked, tops, top_step):
        # keys: the panel that holds position ``first`` (a multiple of 16); values: position ``first``
        # row r sees positions low[r] .. high[r] - 1 (int32 arrays); ``masked``: whether any row sees less than all
        # m, l: float32 (MICRO_ROWS), whatever the number of rows
        scores(q, keys, n_keys, p)
        room = stack(ROOM)
        for r in range(rolled(rows)):
            row = p + r * score_bytes
            best = splat(MASKED, F)
            if masked:
                lo, hi = splat(load(low + 4 * r, "i32"), "i32x16"), splat(load(high + 4 * r, "i32"), "i32x16")
                for j in range(0, n_keys, 16):
                    at = lanes_of("i32x16") + splat(np.int32(first + j), "i32x16")
                    s = select(less(at, hi), load(row + 4 * j, F), splat(MASKED, F))
                    s = select(less(at, lo), splat(MASKED, F), s)
                    store(row + 4 * j, s)
                    best = vmax(best, s)
            else:
                for j in range(0, n_keys, 16):
                    best = vmax(best, load(row + 4 * j, F))
            store(room + 64 * r, best)
            if marks:
                for j in range(0, n_keys, 128):
                    most, to = largest_of(row + 4 * j), tops + r * top_step + j // 4
                    if j + 128 <= n_keys:
                        store(to, most)
                    else:  # what is behind may be another thread's
                        for i in range((n_keys - j) // 16):
                            store(to + 4 * i, lane_at(most, i))
        shrinks = advance(room, m, rows, apart)
        for r in range(rolled(rows)):
            row = p + r * score_bytes
            largest = room + PEAKS + 4 * r if in_words else m + 4 * r
            shift, total = splat(load(largest, "f32"), F), zero(F)
            for j in range(0, n_keys, 16):
                w = vexp2(load(row + 4 * j, F) - shift)
                if in_words:
                    attention_words.write_weights(w, row + 2 * j)
                else:
                    store(row + 4 * j, w)
                total = total + w
            if in_words:
                share = load(room + SHARES + 4 * r, "f32")
                store(row + 2 * block_keys, share)
                total = total * splat(share, F)
            store(room + 64 * r, total)
        add_up(room, l, rows)
        if shrinks:
            for r in range(rolled(rows)):
                alpha = splat(load(room + ALPHAS + 4 * r, "f32"), F)
                for d in range(0, rolled(row_bytes), 64):
                    store(o + r * row_bytes + d, load(o + r * row_bytes + d, F) * alpha)
        gather(p, values, n_keys, o)

    return block
