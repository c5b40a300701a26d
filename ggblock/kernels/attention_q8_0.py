"""The two products of attention on a KV cache of 8 bits, by integer dot products.

A panel holds 16 positions of one KV head: first the scales, a half for every position and 32 dimensions
(n32, 16), then the codes, signed bytes: of keys (head / 4, 16 positions, 4 dimensions), of values (head / 16,
4, 16 dimensions, 4 positions). So four bytes that a dot product adds up are neighbours in both: dimensions of a key,
positions of a value. Codes and scales are those of Q8_0: ``d = max|x| / 127`` over 32 dimensions, ``round(x / d)``.

The other side of each product is rounded to 14 bits, in two terms of 7 bits that are never negative, which is the form
that every machine multiplies with signed bytes without a correction for each register:

- queries, by row and 32 dimensions: ``c = round(8191 q / max|q|) + 8192 = 128 a + b``. What 8192 adds is taken off
  through the sum of a key's codes, itself a dot product with ones, one for all rows.
- softmax weights times the values' scales, by row, 64 keys and 32 dimensions: ``c = round(16383 w / max w)``.

Their rounding is at most max|q| / 16382 and max w / 32766: beside the codes' own, up to max|x| / 254, nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit
from ..simd.jit import inline
from ..simd.machines import MACHINES
from ..simd.vec import (
    MACHINE,
    Vec,
    bitcast,
    convert,
    lane_of,
    load,
    max_of,
    prefetch,
    rolled,
    round_even,
    shift_right,
    splat,
    store,
    store_half,
    vabs,
    vmax,
    zero,
)
from . import shapes
from .shapes import KEYS, MICRO_ROWS

F = "f32x16"
Q_STEPS, W_STEPS = 8191, 16383


@intrinsic
def halves(typingctx, address):
    """16 halves as float32."""
    return Vec("f32", 16)(types.int64), lambda c, b, s, a: Emit(b, MACHINE).half_load(a[0], 0)


@intrinsic(prefer_literal=True)
def key_dots(typingctx, q, keys, out, out_step, size, rows, ahead):
    """Scores of a panel of keys: float32 at ``out``, 16 for each of ``rows`` rows, ``out_step`` bytes apart.

    ``q``: rows as ``write_query`` leaves them. All but addresses are literals; ``size`` of a head in the cache.
    """
    step, n, r, far = (v.literal_value for v in (out_step, size, rows, ahead))
    n32 = -(-n // 32)

    def codegen(c, builder, s, args):
        e = Emit(builder, MACHINE)
        queries, panel, to = args[:3]
        ones = e.const("i8x64", 1)

        def part(groups: int, scale: Any, codes: Any, at: Any, at_d: Any, sums: Any) -> list[Any]:
            if far:
                e.prefetch(scale, far, 2)
            first = [e.zero("i32x16")] * r
            second, total = list(first), e.zero("i32x16")
            for k in range(groups):
                if far:
                    e.order()
                    e.prefetch(codes, 64 * k + far, 2)
                v = e.load(codes, 64 * k, "i8x64")
                total = e.dot_us(total, ones, v)
                for row in range(r):
                    first[row] = e.dot_us(first[row], e.bytes4(at, row * 4 * n + 4 * k), v)
                    second[row] = e.dot_us(second[row], e.bytes4(at, row * 4 * n + n + 4 * k), v)
            d = e.half_load(scale, 0)
            out = []
            for row in range(r):
                dots = builder.add(e.shl(builder.sub(first[row], e.shl(total, 6)), 7), second[row])
                factor = builder.fmul(d, e.splat_load(at_d, row * 4 * n, "f32"))
                out.append(e.fma(e.i_to_f32(dots), factor, sums[row]))
            return out

        def body(i: Any, v: Any) -> Any:
            sums = part(8, v[0], v[1], v[2], v[3], v[4:])
            return [e.at(v[0], 32), e.at(v[1], 512), e.at(v[2], 32), e.at(v[3], 4), *sums]

        start = [panel, e.at(panel, 32 * n32), queries, e.at(queries, 2 * n), *[e.zero(F)] * r]
        v = e.loop(e.i64(0), e.i64(n // 32), 1, start, body)
        sums = part(4, *v[:4], v[4:]) if n % 32 else v[4:]
        for row, total in enumerate(sums):
            e.store(to, row * step, total)
        return c.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, out_step, size, rows, ahead), codegen


@intrinsic(prefer_literal=True)
def value_dots(typingctx, weights, keys, values, n_panels, out, size, columns, rows, ahead):
    """Adds ``weights @ values`` to ``16 * columns`` columns of ``rows`` rows of ``out`` (float32, ``4 * size`` bytes
    apart).

    ``weights``: rows of ``keys`` keys as ``write_weights`` leaves them. ``values``: codes of the first of the columns
    in the first panel. All but the addresses and ``n_panels`` are literals.
    """
    count, n, m, r, far = (v.literal_value for v in (keys, size, columns, rows, ahead))
    panel_bytes, weight_bytes = shapes.panel_bytes(n, "q8_0"), shapes.weight_bytes(count)

    def codegen(c, builder, s, args):
        e = Emit(builder, MACHINE)
        w, codes, panels, to = args[0], *args[2:5]

        def body(i: Any, v: Any) -> Any:
            at, p, sums = v[0], v[1], list(v[2:])
            for k in range(4):
                for j in range(m):
                    if far:
                        e.order()
                        e.prefetch(p, 256 * j + 64 * k + far, 2)
                    x = e.load(p, 256 * j + 64 * k, "i8x64")
                    for row in range(r):
                        for term in range(2):
                            which = (row * m + j) * 2 + term
                            u = e.bytes4(at, row * weight_bytes + term * count + 4 * k)
                            sums[which] = e.dot_us(sums[which], u, x)
            return [e.at(at, 16), e.at(p, panel_bytes), *sums]

        v = e.loop(e.i64(0), panels, 1, [w, codes, *[e.zero("i32x16")] * (2 * r * m)], body)[2:]
        for row in range(r):
            d = e.splat_load(w, row * weight_bytes + 2 * count, "f32")
            for j in range(m):
                first, second = v[(row * m + j) * 2 : (row * m + j) * 2 + 2]
                dots = e.i_to_f32(builder.add(e.shl(first, 7), second))
                place = row * 4 * n + 64 * j
                e.store(to, place, e.fma(dots, d, e.load(to, place, F)))
        return c.get_dummy_value()

    sig = types.void(types.int64, keys, types.int64, types.int64, types.int64, size, columns, rows, ahead)
    return sig, codegen


@inline
def inverse(steps, peak):
    """``steps / peak``; 0 where everything is zero, or too small for float32 to tell."""
    f = steps / peak
    return f if f < np.float32(3e38) else peak * np.float32(0)


@inline
def write_codes(values, first, second):
    """16 numbers from 0 to 16383 (float32, whole) as two terms of 7 bits."""
    c = convert(values, "i32x16")
    a = shift_right(c, 7)
    store(first, convert(a, "i8x16"))
    store(second, convert(c & splat(np.int32(127), "i32x16"), "i8x16"))


@inline
def write_query(x, to, size):
    """``size`` floats (a multiple of 16) at ``x`` as a row for ``key_dots``: ``size`` bytes of each term, then a
    float32 for 32 of them; ``4 * size`` bytes are enough."""
    for i in range(0, size, 32):
        whole = i + 32 <= size
        a = load(x + 4 * i, F)
        b = load(x + 4 * i + 64, F) if whole else zero(F)
        peak = max_of(vmax(vabs(a), vabs(b)))
        f, middle = splat(inverse(np.float32(Q_STEPS), peak), F), splat(np.float32(Q_STEPS + 1), F)
        write_codes(round_even(a * f) + middle, to + i, to + size + i)
        if whole:
            write_codes(round_even(b * f) + middle, to + i + 16, to + size + i + 16)
        store(to + 2 * size + i // 8, np.float32(peak * np.float32(1 / Q_STEPS)))


@inline
def write_weights(w, scales, panel_bytes, n_keys, most, to):
    """``n_keys`` softmax weights (float32 at ``w``) times the values' scales (of 32 dimensions, a panel's ``scales``
    after the other) as a row for ``value_dots`` with room for ``most``."""
    peaks = zero(F)
    for j in range(0, n_keys, 16):
        peaks = vmax(peaks, load(w + 4 * j, F) * halves(scales + j // 16 * panel_bytes))
    peak = max_of(peaks)
    f, half = splat(inverse(np.float32(W_STEPS), peak), F), splat(np.float32(0.5), F)
    for j in range(0, n_keys, 16):
        v = load(w + 4 * j, F) * halves(scales + j // 16 * panel_bytes)
        write_codes(v * f + half, to + j, to + most + j)
    store(to + 2 * most, np.float32(peak * np.float32(1 / W_STEPS)))


def make_products(size: int, rows: int, block_keys: int, many: bool) -> tuple[Any, Any]:
    """``scores(q, keys, n_keys, p)`` and ``gather(p, values, n_keys, o)`` for ``rows`` rows, heads of ``size`` and at
    most ``block_keys`` keys.

    ``p``: float32 (MICRO_ROWS, block_keys), scores or weights; behind it room for ``shapes.weight_bytes`` a row.
    """
    padded = shapes.padded(size)
    n32, panel_bytes = -(-padded // 32), shapes.panel_bytes(size, "q8_0")
    row_bytes, score_bytes, weight_bytes = 4 * padded, 4 * block_keys, shapes.weight_bytes(block_keys)
    wide = MACHINES[MACHINE].lanes >= 16
    micro = rows if wide or rows == 1 else 2 - rows % 2  # rows at once: what the registers hold
    columns = 2 if wide and rows <= 4 else 1
    even = padded % 32 == 0
    far = 0 if many else max(16384, KEYS // 16 * panel_bytes)  # see ``attention``

    @inline
    def scores(q, keys, n_keys, p):
        for j in range(0, n_keys, 16):
            for r in range(0, rolled(rows), micro):
                panel, to = keys + j // 16 * panel_bytes, p + 4 * j + r * score_bytes
                key_dots(q + r * row_bytes, panel, to, score_bytes, padded, micro, far)

    @inline
    def gather(p, values, n_keys, o):
        codes = p + MICRO_ROWS * score_bytes
        if far:
            for j in range(0, n_keys, 16):
                prefetch(values + j // 16 * panel_bytes + far)
        for d in range(0, rolled(padded), 32):
            for r in range(rolled(rows)):
                w, to = p + r * score_bytes, codes + r * weight_bytes
                write_weights(w, values + d, panel_bytes, n_keys, block_keys, to)
            first = values + 32 * n32 + d * 16
            for r in range(0, rolled(rows), micro):
                w, to = codes + r * weight_bytes, o + 4 * d + r * row_bytes
                if columns == 2 and (even or d + 32 <= padded):
                    value_dots(w, block_keys, first, n_keys // 16, to, padded, 2, micro, far)
                else:
                    value_dots(w, block_keys, first, n_keys // 16, to, padded, 1, micro, far)
                    if even or d + 32 <= padded:
                        value_dots(w, block_keys, first + 256, n_keys // 16, to + 64, padded, 1, micro, far)

    return scores, gather


@inline
def quantize(x, i, size, scale):
    """Dimensions ``i .. i + 31`` of a position: writes their scale, returns what to multiply with for codes."""
    a = load(x + 4 * i, F)
    b = load(x + 4 * i + 64, F) if i + 32 <= size else zero(F)
    peak = max_of(vmax(vabs(a), vabs(b)))
    store_half(scale, np.float32(peak * np.float32(1 / 127)))
    return inverse(np.float32(127), peak)


@inline
def write_key(x, panel, slot, size):
    """A key, ``size`` floats (a multiple of 16), into place ``slot`` of a panel."""
    codes = panel + (size + 31) // 32 * 32 + 4 * slot
    f = np.float32(0)
    for i in range(0, size, 16):
        if i % 32 == 0:
            f = quantize(x, i, size, panel + i + 2 * slot)
        c = convert(convert(round_even(load(x + 4 * i, F) * splat(f, F)), "i32x16"), "i8x16")
        four = bitcast(c, "i32x4")
        store(codes + 16 * i, lane_of(four, 0))
        store(codes + 16 * i + 64, lane_of(four, 1))
        store(codes + 16 * i + 128, lane_of(four, 2))
        store(codes + 16 * i + 192, lane_of(four, 3))


@inline
def write_value(x, panel, slot, size):
    """A value, ``size`` floats (a multiple of 16), into place ``slot`` of a panel; what is at ``x`` is lost."""
    codes = panel + (size + 31) // 32 * 32 + slot // 4 * 64 + slot % 4
    f = np.float32(0)
    for i in range(0, size, 16):
        if i % 32 == 0:
            f = quantize(x, i, size, panel + i + 2 * slot)
        c = convert(convert(round_even(load(x + 4 * i, F) * splat(f, F)), "i32x16"), "i8x16")
        store(x + 4 * i, c)
        for j in range(16):
            store(codes + 16 * i + 4 * j, load(x + 4 * i + j, "i8"))
