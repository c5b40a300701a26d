"""Searches for scales and mins, in 16 lanes at once; see ``quantize_vectors``.

A sub-block is ``n`` vectors of weights at ``x``, with what their squared errors count at ``w``. A search tries steps
around the obvious one, solves each time the least squares for the codes that follow, and keeps the best; the squared
error of a solution follows from the sums, so no second pass over the weights is needed.

``none`` is 0, but only when the kernel runs: added to the length of an outer loop, it keeps LLVM from unrolling what is
tried one after the other (compiling Q6_K then took minutes, not seconds).
"""
from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ..simd.jit import inline_strict
from ..simd.vec import less, load, select, splat, store, vabs, vmax, vmin, zero
from .quantize_vectors import HUGE, F, clamp, nearest, reciprocal


@inline_strict
def solve_range(sum_w, sum_y, a, b, c, most):
    """(gain, scale, offset) of ``y ~ scale * q + offset`` for ``a = sum(w q)``, ``b = sum(w q q)``, ``c = sum(w q y)``.

    ``offset`` stays at most ``most``. Gain: by how much the squared error is less than that of y ~ 0.
    """
    det = sum_w * b - a * a
    sound = less(sum_w * b * splat(np.float32(1e-5), F), det)      # all codes equal: rounding decides about det
    inverse = reciprocal(det)
    scale = select(sound, (sum_w * c - sum_y * a) * inverse, zero(F))
    offset = select(sound, (b * sum_y - a * c) * inverse, zero(F))
    above = less(most, offset)
    offset = select(above, most, offset)
    through = (c - offset * a) * reciprocal(b)
    scale = select(above, through, select(sound, scale, through))
    two = splat(np.float32(2), F)
    gain = two * (scale * c + offset * sum_y) - scale * scale * b - two * scale * offset * a - offset * offset * sum_w
    return gain, scale, offset


def make_range_search(
    n: int, code_max: int, first: float, width: float, n_steps: int, n_polish: int, signed: bool = False
) -> Any:
    """``search(x, w, none)``: (scale, min) for ``scale * q - min``, ``q`` in 0..code_max; both >= 0, unless ``signed``.

    Tries ``code_max + first + width * i`` steps over the range of the weights (and 0, where the min has no sign), i
    below ``n_steps``; then codes and least squares in turn, ``n_polish`` times.
    """
    top, begin, step = np.float32(code_max), np.float32(code_max + first), np.float32(width)
    margin = np.float32(2e-6 if code_max < 31 else 5e-7)      # a few thousandths of the squared error of normal weights

    @inline_strict
    def keep(gain, scale, offset, best, best_scale, best_offset):
        # more than rounding: of fits that are all exact the first is kept, the same in every sub-block
        better = less(best + best * splat(margin, F), gain) & less(zero(F), scale)
        return select(better, gain, best), select(better, scale, best_scale), select(better, offset, best_offset)

    @inline_strict
    def search(x, w, none):
        low, high = zero(F), load(x, F)
        if signed:
            low = high
        for k in range(n):
            v = load(x + 64 * k, F)
            low, high = vmin(low, v), vmax(high, v)
        sum_w = sum_y = zero(F)
        for k in range(n):
            weight = load(w + 64 * k, F)
            sum_w = sum_w + weight
            sum_y = sum_y + weight * (load(x + 64 * k, F) - low)
        most = splat(HUGE, F) if signed else zero(F) - low
        inverse = reciprocal(high - low)
        best, scale, offset = zero(F), zero(F), zero(F)
        for i in range(n_steps // 2 + none):           # two steps at a time: twice as many independent sums
            f0 = splat(np.float32(begin + step * np.float32(2 * i)), F) * inverse
            f1 = splat(np.float32(begin + step * np.float32(2 * i + 1)), F) * inverse
            a0 = b0 = c0 = a1 = b1 = c1 = zero(F)
            for k in range(n):
                y, weight = load(x + 64 * k, F) - low, load(w + 64 * k, F)
                q0 = vmin(nearest(y * f0), splat(top, F))
                q1 = vmin(nearest(y * f1), splat(top, F))
                wq0, wq1 = weight * q0, weight * q1
                a0, a1 = a0 + wq0, a1 + wq1
                b0, b1 = b0 + wq0 * q0, b1 + wq1 * q1
                c0, c1 = c0 + wq0 * y, c1 + wq1 * y
            g, s, o = solve_range(sum_w, sum_y, a0, b0, c0, most)
            best, scale, offset = keep(g, s, o, best, scale, offset)
            g, s, o = solve_range(sum_w, sum_y, a1, b1, c1, most)
            best, scale, offset = keep(g, s, o, best, scale, offset)
        for _ in range(n_polish + none):
            f = reciprocal(scale)
            a = b = c = zero(F)
            for k in range(n):
                y, weight = load(x + 64 * k, F) - low, load(w + 64 * k, F)
                q = clamp(nearest((y - offset) * f), np.float32(0), top)
                wq = weight * q
                a, b, c = a + wq, b + wq * q, c + wq * y
            g, s, o = solve_range(sum_w, sum_y, a, b, c, most)
            best, scale, offset = keep(g, s, o, best, scale, offset)
        return scale, zero(F) - (low + offset)
    return search


class Grid:
    """The codes of a scale without a min: whole numbers ``low`` .. ``high``, or the ascending ``levels``.

    ``value(v)``: the one nearest to ``v``; ``code(v)``: its stored code, counted from 0.
    """

    def __init__(self, low: int, high: int, levels: Any = None) -> None:
        self.low, self.high = low, high
        bottom, top = np.float32(low), np.float32(high)
        if levels is None:
            @inline_strict
            def value(v):
                return clamp(nearest(v), bottom, top)

            @inline_strict
            def code(v):
                return clamp(nearest(v), bottom, top) - splat(bottom, F)
        else:
            value, code = make_staircase(levels, True), make_staircase(levels, False)
        self.value, self.code = value, code


def make_staircase(levels: Any, heights: bool) -> Any:
    """``f(v)``: the one of ascending ``levels`` that is nearest to ``v``, or its index.

    Counts the steps that lie below ``v``: two instructions a level, on every machine.
    """
    values = np.asarray(levels, np.float32)
    steps = [((a + b) / np.float32(2), b - a if heights else np.float32(1)) for a, b in itertools.pairwise(values)]
    begin = values[0] if heights else np.float32(0)

    def stairs(i: int) -> Any:
        edge, height = steps[i]
        if i == 0:
            @inline_strict
            def lowest(v):
                return splat(begin, F) + select(less(splat(edge, F), v), splat(height, F), zero(F))
            return lowest
        below = stairs(i - 1)

        @inline_strict
        def step(v):
            return below(v) + select(less(splat(edge, F), v), splat(height, F), zero(F))
        return step
    return stairs(len(steps) - 1)


def make_scale_search(n: int, grid: Grid, width: float, n_steps: int, n_polish: int, both: bool = False) -> Any:
    """``search(x, w, none)``: the scale ``d`` for ``d * q``, ``q`` of ``grid``.

    The weight of largest magnitude is sent to ``grid.low`` and to ``n_steps`` places ``width`` apart on either side;
    with ``both``, also to where ``grid.high`` is. Then codes and least squares in turn, ``n_polish`` times.
    """
    value = grid.value
    bottom, top, step = np.float32(grid.low), np.float32(grid.high), np.float32(width)
    count = 2 * n_steps + 1
    margin = np.float32(2e-7 if 16 <= grid.high < 100 else 2e-6)
    begin, begin_top = bottom - step * np.float32(n_steps), top - step * np.float32(n_steps)

    @inline_strict
    def trial(x, w, f, best, scale):
        b = c = zero(F)
        for k in range(n):
            v = load(x + 64 * k, F)
            q = value(v * f)
            wq = load(w + 64 * k, F) * q
            b, c = b + wq * q, c + wq * v
        s = c * reciprocal(b)
        better = less(best + best * splat(margin, F), c * s)     # of exact fits the first, the same in every sub-block
        return select(better, c * s, best), select(better, s, scale)

    @inline_strict
    def search(x, w, none):
        size = extreme = zero(F)
        for k in range(n):
            v = load(x + 64 * k, F)
            larger = less(size, vabs(v))
            size, extreme = select(larger, vabs(v), size), select(larger, v, extreme)
        inverse = reciprocal(extreme)
        best = scale = zero(F)
        for i in range(count + none):
            best, scale = trial(x, w, splat(np.float32(begin + step * np.float32(i)), F) * inverse, best, scale)
        if both:
            for i in range(count + none):
                best, scale = trial(x, w, splat(np.float32(begin_top + step * np.float32(i)), F) * inverse, best, scale)
        for _ in range(n_polish + none):
            best, scale = trial(x, w, reciprocal(scale), best, scale)
        return scale
    return search


def make_ternary_search(n: int, n_polish: int = 3) -> Any:
    """``search(x, w, none)``: the scale ``d`` for ``d * q``, ``q`` in -1, 0, 1.

    The largest magnitude is right only for weights that are ternary already; else the best scale lies near the mean
    magnitude (1.5 times that for normally distributed weights), so thresholds around it are tried.
    """
    low, high, share = np.float32(-1), np.float32(1), np.float32(1 / n)

    @inline_strict
    def trial(x, w, f, best, scale):
        b = c = zero(F)
        for k in range(n):
            v = load(x + 64 * k, F)
            q = clamp(nearest(v * f), low, high)
            wq = load(w + 64 * k, F) * q
            b, c = b + wq * q, c + wq * v
        s = c * reciprocal(b)
        better = less(best, c * s)
        return select(better, c * s, best), select(better, s, scale)

    @inline_strict
    def search(x, w, none):
        size = total = zero(F)
        for k in range(n):
            v = vabs(load(x + 64 * k, F))
            size, total = vmax(size, v), total + v
        best, scale = trial(x, w, reciprocal(size), zero(F), zero(F))
        inverse = reciprocal(total * splat(share, F))
        for i in range(14 + none):
            f = np.float32(np.float32(0.25) + np.float32(0.06) * np.float32(i))
            best, scale = trial(x, w, splat(f, F) * inverse, best, scale)
        for _ in range(n_polish + none):
            best, scale = trial(x, w, reciprocal(scale), best, scale)
        return scale
    return search


def make_weigh(n: int) -> Any:
    """``weigh(x, w, given)``: how much squared errors count, for ``n`` vectors: the importance, or 1 without."""
    @inline_strict
    def weigh(x, w, given):
        if not given:
            for k in range(n):
                store(w + 64 * k, splat(np.float32(1), F))
    return weigh
