"""One token's attention over a cache of 12 bits: by the first plane, and by the second where it matters.

What the second plane (``cache_q12``) adds to a number is at most half a step of 8 bits, which everywhere left out would
cost as much as a cache of 8 bits does. But errors of positions are independent: they add up as the squares of their
weights do. So ``attention`` multiplies the first plane with all its 16 positions at once, two neighbours of 16 bits in
a lane of 32 bits, and keeps the largest score of each panel; then panels in which a position has more than ``SHARE`` of
all weights of its head are mended from the second plane, scores and values, when the chunks are merged (``make_mend``).
Those are few, whatever the text: at most ``1 / SHARE`` for each head; of SmolLM2's 256 panels at depth 4,096 five.
Of a short context nearly all would be mended: a token that sees no more than ``WHOLE`` positions reads both planes.

Both sides of the products: queries have 14 bits and a step of their own; weights times peaks, by row and 64
dimensions, ``W_STEPS`` steps. No sum leaves 32 bits: 256 positions * 16383 * 127 < 2**31, and so do 64 dimensions; of
both planes 64 * 16383 * 2039 < 2**31.

Mean KL of decode to float32, with activations of 15 bits, SmolLM2 and gemma, prose: tokens up to 512, by both planes,
0.000004 and 0.00001; from there to 1,024, mended, 0.00003 and 0.00007, with 1/16 0.00006 and 0.00014, with nothing
mended 0.0008 and 0.001. What 8-bit activations of the prompt cost (``fast``): 0.0001 and 0.00005; llama.cpp 0.0033 and
0.0054.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import I16, Emit
from ..simd.jit import inline
from ..simd.machines import MACHINES
from ..simd.vec import (
    MACHINE,
    ROUND,
    lane_at,
    lanes_of,
    less,
    load,
    prefetch,
    rolled,
    select,
    splat,
    stack,
    store,
    sum_of,
    vexp2,
    zero,
)
from . import attention_words, shapes
from .args import place, smaller
from .attention_products import chains_of
from .attention_q8_0 import halves, inverse
from .attention_words import words
from .cache_q12 import MOST, fours_of, one_of_fours, together, upmost, upmost_of, wide_codes
from .shapes import GROUP, KEYS, MICRO_ROWS

F = "f32x16"
Q_STEPS = W_STEPS = 16383
MENDED = 32  # panels of a head, at most, that are mended
SHARE = np.float32(1 / MENDED)  # of a head's weights; a panel is mended if one of its positions has more
WHOLE = 512 if MACHINES[MACHINE].lanes >= 16 else 256  # positions, at most, of which one token reads all 12 bits
WHOLE_KEYS = 64  # positions whose whole codes are added up in 32 bits
FOUND = 16 * MENDED  # bytes: where they lie, and their positions


@intrinsic(prefer_literal=True)
def key_dots(typingctx, q, panel, fours, out, out_step, size, rows, ahead, planes):
    """Scores of a panel of keys: float32 at ``out``, 16 for each of ``rows`` rows, ``out_step`` bytes apart. By the
    first plane, or by both ``planes``.

    ``q``: rows as ``attention_words.write_query`` leaves them. All but addresses are literals; ``size`` of a head in
    the cache; ``ahead``: bytes ahead of the codes to prefetch into the second-level cache.
    """
    step, n, r, far, both = (v.literal_value for v in (out_step, size, rows, ahead, planes))
    both -= 1
    # where a vector takes two of 16 registers a sum waits for an addition only, one cycle: one chain a row is enough
    chains = min(2, chains_of(r, 1)) if MACHINES[MACHINE].lanes >= 16 else 1

    def codegen(c, builder, s, args):
        e = Emit(builder, MACHINE)
        queries, panel, second, to = args[:4]

        def unit(i: Any, v: Any) -> Any:  # 16 dimensions
            at, behind, at_q, found = v[0], v[1], v[2], list(v[3:])
            for k in range(0, 8, 2):
                e.order()
                e.prefetch(at, 32 * k + far, 2)
                codes = [wide_codes(e, at, 32 * k), wide_codes(e, at, 32 * k + 32)]
                if both:
                    if k % 4 == 0:
                        e.prefetch(behind, 16 * k + far // 2, 2)
                    codes = [together(e, *two) for two in zip(codes, fours_of(e, behind, 16 * k), strict=True)]
                for j, x in enumerate(codes):
                    for row in range(r):
                        which = row * chains + j % chains
                        y = e.splat_load(at_q, row * 4 * n + 4 * (k + j), "i32")
                        found[which] = e.dot_words(found[which], e.bitcast(x, "i32x16"), y)
            return [e.at(at, 256), e.at(behind, 128 * both), e.at(at_q, 32), *found]

        def group(scale: Any, where: list[Any], sums: list[Any], units: int) -> list[Any]:
            e.prefetch(scale, far, 2)
            v = e.loop(e.i64(0), e.i64(units), 1, [*where, *[e.zero("i32x16")] * (r * chains)], unit)
            where, found = v[:3], v[3:]
            d = e.half_load(scale, 0)
            totals = [reduce(builder.add, found[row * chains : (row + 1) * chains]) for row in range(r)]
            return [
                e.at(scale, 32), *where,
                *(e.fma(e.i_to_f32(total), d, earlier) for total, earlier in zip(totals, sums, strict=True)),
            ]  # fmt: skip

        v = e.loop(
            e.i64(0), e.i64(n // GROUP), 1,
            [panel, e.at(panel, 32 * shapes.groups_of(n)), second, queries, *[e.zero(F)] * r],
            lambda i, v: group(v[0], v[1:4], v[4:], GROUP // 16),
        )  # fmt: skip
        sums = (group(v[0], v[1:4], v[4:], n % GROUP // 16) if n % GROUP else v)[4:]
        for row, total in enumerate(sums):
            unit_of = e.const(F, (1 if both else 16) / MOST)
            factor = builder.fmul(e.splat_load(queries, row * 4 * n + 2 * n, "f32"), unit_of)
            e.store(to, row * step, builder.fmul(total, factor))
        return c.get_dummy_value()

    at, literal = types.int64, (out_step, size, rows, ahead, planes)
    return types.void(at, at, at, at, *literal), codegen


@intrinsic(prefer_literal=True)
def value_dots(typingctx, weights, steps, codes, fours, up, n_panels, out, keys, size, columns, rows, ahead, planes):
    """Adds ``weights @ values`` to ``16 * columns`` columns of ``rows`` rows of ``out`` (float32, ``4 * size`` bytes
    apart). By the first plane, or by both ``planes``: then two columns, four or one.

    ``weights``, ``steps``: those of the first row as ``write_weights`` leaves them with room for ``keys`` keys, from a
    panel on. ``codes``: of the first of the columns in the first panel; ``fours``: of its 32 dimensions in the second
    plane, where they are ``up`` bits up, 0 or 4, if it is one column. All but the addresses, ``up`` and ``n_panels``
    are literals.
    """
    n, m, r, far, both = (v.literal_value for v in (size, columns, rows, ahead, planes))
    both -= 1
    weight_bytes, pitch, behind = (
        shapes.weight_bytes(keys.literal_value), shapes.first_panel(n), both * shapes.second_panel(n)
    )  # fmt: skip

    def codegen(c, builder, s, args):
        e = Emit(builder, MACHINE)
        w, to_steps, first, second, shift, panels, to = args[:7]

        def lower(at: Any, k: int) -> list[Any]:
            """What the second plane has for the columns."""
            if m > 1:
                return [v for j in range(0, m, 2) for v in fours_of(e, at, 128 * j + 32 * k)]
            return [one_of_fours(e, at, 32 * k, shift)]

        def body(i: Any, v: Any) -> Any:
            at, p, fours, sums = v[0], v[1], v[2], list(v[3:])
            for k in range(8):
                values = []
                for j in range(m):
                    e.order()
                    if k % 2 == 0:
                        e.prefetch(p, 256 * j + 32 * k + far, 2)
                    values.append(wide_codes(e, p, 256 * j + 32 * k))
                if both:
                    if k % 2 == 0:
                        for j in range(0, m, 2):
                            e.prefetch(fours, 128 * j + 32 * k + far // 2, 2)
                    values = [together(e, *two) for two in zip(values, lower(fours, k), strict=True)]
                for row in range(r):
                    x = e.splat_load(at, row * weight_bytes + 4 * k, "i32")
                    for j, y in enumerate(values):
                        sums[row * m + j] = e.dot_words(sums[row * m + j], e.bitcast(y, "i32x16"), x)
            return [e.at(at, 32), e.at(p, pitch), e.at(fours, behind), *sums]

        found = e.loop(e.i64(0), panels, 1, [w, first, second, *[e.zero("i32x16")] * (r * m)], body)[3:]
        for row in range(r):
            d = builder.fmul(e.splat_load(to_steps, row * weight_bytes, "f32"), e.const(F, 1.0 if both else 16.0))
            for j in range(m):
                place = row * 4 * n + 64 * j
                e.store(to, place, e.fma(e.i_to_f32(found[row * m + j]), d, e.load(to, place, F)))
        return c.get_dummy_value()

    at, literal = types.int64, (keys, size, columns, rows, ahead, planes)
    return types.void(at, at, at, at, types.int64, types.int64, at, *literal), codegen


@inline
def reads_both(start, position):
    """Whether a token at ``position`` that sees those from ``start`` on reads both planes of all."""
    return position - start < WHOLE


@intrinsic
def any_above(typingctx, x, limit):
    """Whether any of 16 floats is above the lane of ``limit``."""

    def codegen(c, builder, s, a):
        found = builder.bitcast(builder.fcmp_ordered(">", a[0], a[1]), I16)
        return builder.icmp_unsigned("!=", found, ir.Constant(I16, 0))

    return types.boolean(x, limit), codegen


@inline
def write_weights(w, peaks, panel_bytes, n_keys, most, to):
    """``n_keys`` softmax weights (float32 at ``w``) times the values' peaks (of a group, a panel's ``panel_bytes``
    after the other's) as a row for ``value_dots`` with room for ``most``: int16, then the float32 step of products."""
    largest = zero(F)
    for j in range(0, n_keys, 16):
        largest = upmost(load(w + 4 * j, F) * halves(peaks + j // 16 * panel_bytes), largest)
    peak = upmost_of(largest)
    f, rounding = splat(inverse(np.float32(W_STEPS), peak), F), splat(np.float32(ROUND), F)
    for j in range(0, n_keys, 16):
        store(to + 2 * j, words(load(w + 4 * j, F) * halves(peaks + j // 16 * panel_bytes) * f + rounding))
    store(to + 2 * most, np.float32(peak * np.float32(1 / (W_STEPS * MOST))))


def _products(size: int, rows: int, block_keys: int, planes: int) -> tuple[Any, Any]:
    """``scores`` and ``gather`` as ``make_products`` has them, by one plane or by both: with the address of each."""
    padded = shapes.padded(size)
    scale_bytes, panel_bytes = 32 * shapes.groups_of(padded), shapes.panel_bytes(size, "q12")
    four_bytes = shapes.second_bytes(size, "q12")
    row_bytes, score_bytes, weight_bytes = 4 * padded, 4 * block_keys, shapes.weight_bytes(block_keys)
    wide = MACHINES[MACHINE].lanes >= 16
    micro = rows if wide or rows <= 4 else rows // 2 if rows % 2 == 0 else 3 if rows % 3 == 0 else 1
    columns = 1 if not wide else 4 if rows <= 4 else 2  # of 16 dimensions at once: what the registers hold
    ragged = padded % (16 * columns) != 0
    far = max(16384, KEYS // 16 * panel_bytes)  # see ``attention``
    at_once = WHOLE_KEYS // 16 if planes > 1 else block_keys // 16  # panels whose products are added up

    @inline
    def scores(q, keys, second, n_keys, p):
        for j in range(n_keys // 16):
            panel, fours = keys + j * panel_bytes, second + j * four_bytes
            for r in range(0, rolled(rows), micro):
                to = p + 64 * j + r * score_bytes
                key_dots(q + r * row_bytes, panel, fours, to, score_bytes, padded, micro, far, planes)

    @inline
    def gather(p, values, second, n_keys, o):
        codes = p + MICRO_ROWS * score_bytes
        for j in range(n_keys // 16):
            prefetch(values + j * panel_bytes + far)
        for d in range(0, rolled(padded), GROUP):
            for r in range(rolled(rows)):
                w, to = p + r * score_bytes, codes + r * weight_bytes
                write_weights(w, values + d // GROUP * 32, panel_bytes, n_keys, block_keys, to)
            end = smaller(d + GROUP, padded)
            for j in range(0, n_keys // 16, at_once):
                n, panel, fours = smaller(n_keys // 16 - j, at_once), values + j * panel_bytes, second + j * four_bytes
                for r in range(0, rolled(rows), micro):
                    w, c = codes + r * weight_bytes + 32 * j, np.int64(d)
                    step, to = codes + r * weight_bytes + 2 * block_keys, o + r * row_bytes
                    while c < end:
                        at, behind, up = panel + scale_bytes + 16 * c, fours + c // 32 * 256, c // 16 % 2 * 4
                        if not ragged or c + 16 * columns <= end:
                            value_dots(
                                w, step, at, behind, up, n, to + 4 * c, block_keys, padded, columns, micro, far, planes
                            )
                            c += 16 * columns
                        else:
                            value_dots(
                                w, step, at, behind, up, n, to + 4 * c, block_keys, padded, 1, micro, far, planes
                            )
                            c += 16

    return scores, gather


def make_products(size: int, rows: int, block_keys: int) -> tuple[Any, Any]:
    """``scores(q, keys, n_keys, p)`` and ``gather(p, values, n_keys, o)`` for ``rows`` rows, heads of ``size`` and at
    most ``block_keys`` keys. ``keys`` and ``values`` are addresses of two int64: the address of the first plane, and
    that of the second if both planes count, else 0.

    ``p``: float32 (MICRO_ROWS, block_keys), scores or weights; behind it room for ``shapes.weight_bytes`` a row.
    """
    (scores_of_first, gather_first), (scores_of_both, gather_both) = (
        _products(size, rows, block_keys, planes) for planes in (1, 2)
    )

    @inline
    def scores(q, keys, n_keys, p):
        first, second = load(keys, "i64"), load(keys + 8, "i64")
        if second == 0:
            scores_of_first(q, first, first, n_keys, p)
        else:
            scores_of_both(q, first, second, n_keys, p)

    @inline
    def gather(p, values, n_keys, o):
        first, second = load(values, "i64"), load(values + 8, "i64")
        if second == 0:
            gather_first(p, first, first, n_keys, o)
        else:
            gather_both(p, first, second, n_keys, o)

    return scores, gather


@intrinsic(prefer_literal=True)
def both_scores(typingctx, q, panel, fours, out, size):
    """One row's scores of a panel of keys: float32 (2, 16) at ``out``, of the first plane and what the second adds."""
    n = size.literal_value

    def codegen(c, builder, s, args):
        e = Emit(builder, MACHINE)
        query, scales, second, to = args[:4]

        def unit(i: Any, v: Any) -> Any:  # 16 dimensions
            at, behind, at_q, sums = v[0], v[1], v[2], list(v[3:])
            for k in range(8):
                x = e.splat_load(at_q, 4 * k, "i32")
                for plane, y in enumerate([wide_codes(e, at, 32 * k), fours_of(e, behind, 32 * (k // 2))[k % 2]]):
                    which = 2 * plane + k % 2
                    sums[which] = e.dot_words(sums[which], e.bitcast(y, "i32x16"), x)
            return [e.at(at, 256), e.at(behind, 128), e.at(at_q, 32), *sums]

        where, found = [e.at(scales, 32 * shapes.groups_of(n)), second, query], [e.zero(F)] * 2
        for g in range(shapes.groups_of(n)):
            units = min(GROUP, n - GROUP * g) // 16
            v = e.loop(e.i64(0), e.i64(units), 1, [*where, *[e.zero("i32x16")] * 4], unit)
            where, d = v[:3], e.half_load(scales, 32 * g)
            totals = [e.i_to_f32(builder.add(v[3 + 2 * plane], v[4 + 2 * plane])) for plane in range(2)]
            found = [e.fma(total, d, sums) for total, sums in zip(totals, found, strict=True)]
        step = e.splat_load(query, 2 * n, "f32")
        for plane, factor in enumerate((16 / MOST, 1 / MOST)):
            e.store(to, 64 * plane, builder.fmul(found[plane], builder.fmul(step, e.const(F, factor))))
        return c.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, size), codegen


@intrinsic(prefer_literal=True)
def both_values(typingctx, codes, step, panel, fours, out, columns):
    """Adds to 16 or 32 columns of ``out``, float32: by the first plane of a panel's values with the first row of
    ``codes``, by the second with the second one, int16 (2, 16), times ``step``."""
    m = columns.literal_value

    def codegen(c, builder, s, args):
        e = Emit(builder, MACHINE)
        weights, first, second, to = args[0], args[2], args[3], args[4]
        sums = [e.zero("i32x16")] * (2 * m)
        for k in range(8):
            fours = fours_of(e, second, 32 * k)
            for plane in range(2):
                x = e.splat_load(weights, 32 * plane + 4 * k, "i32")
                for j in range(m):
                    y = fours[j] if plane else wide_codes(e, first, 256 * j + 32 * k)
                    sums[2 * j + plane] = e.dot_words(sums[2 * j + plane], e.bitcast(y, "i32x16"), x)
        for j in range(m):
            total = builder.add(e.shl(sums[2 * j], 4), sums[2 * j + 1])
            e.store(to, 64 * j, e.fma(e.i_to_f32(total), e.splat(args[1]), e.load(to, 64 * j, F)))
        return c.get_dummy_value()

    return types.void(types.int64, types.float32, types.int64, types.int64, types.int64, columns), codegen


def make_mend(size: int) -> Any:
    """``mend(q, keys, values, fours, tops, start, position, best, total, out)``: what the second plane adds to one
    head's result where it matters. Writes to ``out`` the difference of its weighted sum of values, float32 (padded
    head), returns that of the sum of its weights.

    ``q``: as ``make_attention`` has it. ``keys``, ``values``, ``fours``: the cache of its KV head, and its second
    plane. ``tops``: the largest score of each panel, float32. It sees positions from ``start`` to ``position``, with
    ``best`` the largest score and ``total`` the sum of weights beside it.
    """
    padded = shapes.padded(size)
    panel_bytes, four_bytes = shapes.panel_bytes(size, "q12"), shapes.second_bytes(size, "q12")
    scale_bytes = 32 * shapes.groups_of(padded)
    run, row_bytes = shapes.run("q12"), 4 * padded
    to_values = run // 16 * four_bytes  # from the second plane of keys on
    ragged = padded % 32 != 0

    @inline
    def find(tops, start, position, best, limit, found):
        """Writes the panels with a score that has more than ``limit`` of weight, returns how many."""
        n, last = np.int64(0), position // 16
        for panel in range(start // 16 // 16 * 16, last + 1, 16):
            w = vexp2(load(tops + 4 * panel, F) - splat(best, F))
            if any_above(w, splat(limit, F)):
                for i in range(16):
                    at = panel + i
                    if lane_at(w, i) > limit and at >= start // 16 and at <= last and n < MENDED:
                        store(found + 8 * n, place(16 * at, run) // 16)
                        store(found + 8 * MENDED + 8 * n, 16 * at)
                        n += 1
        return n

    @inline
    def fetch(at, n_bytes):
        for i in range(0, rolled(n_bytes), 64):
            prefetch(at + i)

    @inline
    def mend(q, keys, values, fours, tops, start, position, best, total, out):
        for i in range(0, rolled(row_bytes), 64):
            store(out + i, zero(F))
        found = stack(FOUND)
        n = find(tops, start, position, best, np.float32(SHARE * total), found)
        if n == 0:
            return np.float32(0)
        for i in range(n):
            unit = load(found + 8 * i, "i64")
            fetch(keys + unit * panel_bytes, panel_bytes)
            fetch(fours + unit * four_bytes, four_bytes)
            fetch(values + unit * panel_bytes, panel_bytes)
            fetch(fours + to_values + unit * four_bytes, four_bytes)
        query, scores, grown = stack(row_bytes), stack(128), zero(F)
        attention_words.write_query(q, query, padded, Q_STEPS)
        nothing = splat(np.float32(-126), F)
        for i in range(n):
            unit, at = load(found + 8 * i, "i64"), load(found + 8 * MENDED + 8 * i, "i64")
            both_scores(query, keys + unit * panel_bytes, fours + unit * four_bytes, scores, padded)
            here, s = lanes_of("i32x16") + splat(np.int32(at), "i32x16"), load(scores, F) - splat(best, F)
            s = select(less(here, splat(np.int32(position + 1), "i32x16")), s, nothing)
            s = select(less(here, splat(np.int32(start), "i32x16")), nothing, s)
            before = vexp2(s)
            after = select(less(nothing, s), vexp2(s + load(scores + 64, F)), before)
            grown = grown + (after - before)
            panel, second = values + unit * panel_bytes, fours + to_values + unit * four_bytes
            step = np.float32(0)
            for d in range(0, rolled(padded), 32):
                if d % GROUP == 0:
                    peaks = halves(panel + d // GROUP * 32)
                    peak = upmost_of(upmost(before * peaks, upmost(after * peaks, zero(F))))
                    f, rounding = splat(inverse(np.float32(W_STEPS), peak), F), splat(np.float32(ROUND), F)
                    store(scores, words((after - before) * peaks * f + rounding))
                    store(scores + 32, words(after * peaks * f + rounding))
                    step = np.float32(peak * np.float32(1 / (W_STEPS * MOST)))
                codes, to = panel + scale_bytes + 16 * d, out + 4 * d
                if ragged and d + 32 > padded:
                    both_values(scores, step, codes, second + 8 * d, to, 1)
                else:
                    both_values(scores, step, codes, second + 8 * d, to, 2)
        return sum_of(grown)

    return mend
