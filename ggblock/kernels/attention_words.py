"""The two products of attention over many tokens by dot products of int16, from a cache of halves.

On x86 an instruction does two steps of the microkernel (two instructions do, without VNNI), where float32 takes an
instruction each and converts halves again for every micro-tile. A block of keys and of values is rounded once for all
queries of an item, into scratch, in pairs of neighbours (dimensions of a key, positions of a value) in a lane of 32
bits.

Whole numbers: a row of queries has a step of its own, so have each key and each dimension of a block's values. The
largest of its step is ``largest`` or ``VALUES``, so that no sum of products leaves 32 bits. Softmax weights are rounded
to steps of ``1 / WEIGHTS`` of the largest of their row in the block. Those of 64 keys times values: 64 * 8191 * 4095 <
2**31.

A step is at most 2**-11 of the largest number it is for. Mean KL of prefill to float activations, 2,048 tokens of
prose, SmolLM2 and gemma: 0.0007 and 0.0017 as with products of floats; with one step for all keys of a block and one
for all values 0.0007 and 0.0025; with bfloat16 instead 0.0009 and 0.0027.

Scratch: keys as the cache's panels, (padded head / 2, 16 positions, 2); values (positions / 2, padded head, 2); steps
of keys, float32 (64), and of values (padded head), times ``1 / WEIGHTS``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit
from ..simd.jit import inline
from ..simd.machines import MACHINES
from ..simd.vec import (
    MACHINE,
    ROUND,
    Vec,
    emit_inverse,
    emit_magnitude,
    load,
    max_of,
    rolled,
    splat,
    store,
    vabs,
    vmax,
    zero,
)
from . import shapes
from .attention_products import outer_words
from .attention_q8_0 import inverse
from .shapes import KEYS

F = "f32x16"
VALUES, WEIGHTS = 4095, 8191


def largest(size: int) -> int:
    """The largest code of a query and of a key with heads of ``size``."""
    return min(32767, math.isqrt((2**31 - 1) // shapes.padded(size)))


@intrinsic
def words(typingctx, x):
    """16 floats of less than 32,767 in magnitude, already times their factor and plus ``ROUND``, as int16."""

    def codegen(c, b, s, a):
        e = Emit(b, MACHINE)
        return b.trunc(e.bitcast(a[0], "i32x16"), e.zero("i16x16").type)

    return Vec("i16", 16)(x), codegen


@intrinsic
def pairs(typingctx, first, second, factors):
    """16 halves at each of two addresses times ``factors``, rounded, as pairs of int16: the first in the low half of a
    lane."""

    def codegen(c, b, s, a):
        e = Emit(b, MACHINE)
        rounding = e.const(F, ROUND)
        low, high = (e.bitcast(e.fma(e.half_load(at, 0), a[2], rounding), "i32x16") for at in a[:2])
        return b.or_(e.and_(low, 0xFFFF), e.shl(high, 16))

    return Vec("i32", 16)(types.int64, types.int64, factors), codegen


@intrinsic(prefer_literal=True)
def steps_of(typingctx, halves, n, stride, most, to, factor):
    """Of 16 halves each, ``n`` times, ``stride`` bytes apart: what the largest magnitude of each lane is multiplied by
    to be ``most``, <16 x float>; 0 where all are zero. Steps times ``factor`` are written to ``to``."""
    apart, largest_code, times = (v.literal_value for v in (stride, most, factor))

    def codegen(c, b, s, a):
        e = Emit(b, MACHINE)

        def body(i: Any, carried: Any) -> list[Any]:
            at, peak = carried
            return [e.at(at, apart), emit_magnitude(e, e.load(at, 0, "i16x16"), peak)]

        peak = e.loop(e.i64(0), a[1], 1, [a[0], e.zero("i16x16")], body)[1]
        peak = e.half_to_f32(e.bitcast(peak, "f16x16"))
        e.store(a[4], 0, b.fmul(peak, e.const(F, 1.0 / largest_code / times)))
        return emit_inverse(e, e.const("f32x16", float(largest_code)), peak)

    return Vec("f32", 16)(types.int64, types.int64, stride, most, types.int64, factor), codegen


@inline
def write_query(x, to, size, steps):
    """``size`` floats (a multiple of 16) at ``x`` as int16, and behind them their step."""
    peak = zero(F)
    for i in range(0, size, 16):
        peak = vmax(peak, vabs(load(x + 4 * i, F)))
    most = max_of(peak)
    f = splat(inverse(np.float32(steps), most), F)
    for i in range(0, size, 16):
        store(to + 2 * i, words(load(x + 4 * i, F) * f + splat(np.float32(ROUND), F)))
    store(to + 2 * size, np.float32(most * (np.float32(1) / np.float32(steps))))


@inline
def write_weights(w, to):
    """16 softmax weights, the largest of their row and block being one, as int16."""
    store(to, words(w * splat(np.float32(WEIGHTS), F) + splat(np.float32(ROUND), F)))


def make_prepare(size: int) -> Any:
    """``prepare(keys, values, n_keys, n_seen, to, fours)``: ``n_keys`` keys and values (a multiple of 16), of which the
    first ``n_seen`` are there, as the products read them; ``fours`` is for ``cache_q12``."""
    padded, most = shapes.padded(size), largest(size)
    panel, value_bytes, behind = padded * 32, padded * 2, shapes.pair_bytes(size)

    @inline
    def prepare(keys, values, n_keys, n_seen, to, fours):
        steps = to + 2 * behind
        for j in range(n_keys // 16):
            first, at = keys + j * panel, to + j * panel
            factors = steps_of(first, padded, 32, most, steps + 64 * j, 1)
            for i in range(0, panel, 64):
                store(at + i, pairs(first + i, first + i + 32, factors))
        for d in range(0, rolled(padded), 16):
            first, at = values + 2 * d, to + behind + 4 * d
            # of a text that was there before nothing is seen
            factors = steps_of(first, n_seen, value_bytes, VALUES, steps + 4 * KEYS + 4 * d, WEIGHTS)
            for i in range(0, n_keys, 2):
                here = first + i * value_bytes
                store(at + i * value_bytes, pairs(here, here + value_bytes, factors))

    return prepare


def make_products(size: int, rows: int, block_keys: int) -> tuple[Any, Any]:
    """``scores(q, keys, n_keys, p)`` and ``gather(p, values, n_keys, o)`` for ``rows`` rows.

    ``p``: float32 (rows, block_keys), scores or, at the head of each row, int16 weights, and ``2 * block_keys`` bytes
    further what a row's are multiplied by, float32.
    """
    padded = shapes.padded(size)
    panel, row_bytes, value_step, score_bytes = padded * 32, padded * 4, padded * 4, block_keys * 4
    behind = shapes.pair_bytes(size)
    wide = MACHINES[MACHINE].lanes >= 16
    at_once = 2 if wide else 1
    several = at_once if padded % (16 * at_once) == 0 else 1

    def of_panels(panels):
        """Scores of ``panels`` times 16 keys from ``first`` on."""

        @inline
        def multiply(q, keys, first, p):
            outer_words(
                q,
                row_bytes,
                keys + first // 16 * panel,
                64,
                panel,
                panels,
                padded // 2,
                p + 4 * first,
                score_bytes,
                rows,
                0,
                q + 2 * padded,
                row_bytes,
                keys + 2 * behind + 4 * first,
            )

        return multiply

    several_panels, one_panel = of_panels(at_once), of_panels(1)

    @inline
    def scores(q, keys, n_keys, p):
        done = np.int64(0)
        if at_once > 1:
            while done + 16 * at_once <= n_keys:
                several_panels(q, keys, done, p)
                done += 16 * at_once
        while done < n_keys:
            one_panel(q, keys, done, p)
            done += 16

    @inline
    def gather(p, values, n_keys, o):
        steps = values + behind + 4 * KEYS
        for d in range(0, rolled(padded), 16 * several):
            outer_words(
                p,
                score_bytes,
                values + 4 * d,
                value_step,
                64,
                several,
                n_keys // 2,
                o + 4 * d,
                row_bytes,
                rows,
                1,
                p + 2 * block_keys,
                score_bytes,
                steps + 4 * d,
            )

    return scores, gather
