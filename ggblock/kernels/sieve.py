"""The largest logits without reading the whole output matrix.

Whoever takes the most likely word, or draws among the forty most likely, needs exact logits of those alone; but the
output matrix is the largest of a small model, and each token reads all of it. So its codes lie in two parts
(``q8_0_parted``). One token reads the upper bits of all rows and gets for each a value and how far the lower bits can
move it; to panels with a row that may be among the ``BEST`` largest these are then added. Their logits are what they
are when all are asked for, to the bit. The others keep the value of their upper bits, which is below all of the
largest: whoever looks for these finds the same in the same order.

The lower bits of a weight add to the middle of what they can be, or take off it, ``SPREAD * |d|`` at most. So they move
a row's value by at most the sum of ``SPREAD * |d| * sum(|x|)`` over its blocks, ``x`` the activations as they are
multiplied. To that comes the rounding of what is computed. For each of ``K / 32`` blocks both parts make numbers of at
most ``390 * |d| * sum(|x|)`` and add them to sums of at most 131 times that of all blocks, three additions a block;
each rounds by 2**-24 of its result. Together that is less than ``(K + 128) * 2**-20`` of the bound, by which it is
made larger.

Of gemma-3-270m a token reads 41 of 247 MB less. Panels that are completed, with one word or forty to be found: 0.2 %
and 4 % where it reads English text, 3 % and 28 % of random tokens; SmolLM2-135M 0.7 % and 18 %, 5 % and 47 %.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit
from ..simd.jit import inline
from ..simd.vec import MACHINE, Vec, emit_max, load, max_of, store, tree
from . import block_products, q8_0
from .args import arg, smaller, state, word_stride
from .fields import BEST, MOST, N_TOKENS, TURN
from .matmul import second_part
from .q8_0_parted import LOWER, SPREAD, UPPER, moved
from .ranking import clear, keep_rows, least_of
from .shares import START, end_of, first_of, take

WHOLE, FIRST, SECOND = 16 * q8_0.FAMILY.n_bytes, 16 * UPPER.n_bytes, 16 * LOWER.second  # bytes of a panel block
LISTS = 8 * MOST  # bytes of a thread's list of the largest, and of the same of all threads


@intrinsic
def split_block(typingctx, source, upper, lower):
    """A panel block of Q8_0 as its two parts."""

    def codegen(c, builder, s, a):
        e = Emit(builder, MACHINE)
        b, (source, upper, lower) = builder, a
        e.store(upper, 0, e.load(source, 0, "i8x32"))
        u = [b.xor(e.load(source, 32 + 64 * k, "i8x64"), e.const("i8x64", -128)) for k in range(8)]
        low = [b.or_(moved(e, u[k], 2, 0, 4), moved(e, u[k + 1], 2, 4, 4)) for k in range(0, 8, 2)]

        def four(first: int, at: int) -> Any:
            parts = [moved(e, u[first + j], at, 2 * j, 2) for j in range(4)]
            return b.or_(b.or_(parts[0], parts[1]), b.or_(parts[2], parts[3]))

        for i, line in enumerate((low[0], four(0, 6), low[1], low[2], four(4, 6), low[3])):
            e.store(upper, 32 + 64 * i, line)
        for i in range(2):
            e.store(lower, 64 * i, four(4 * i, 0))
        return c.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


def make_split() -> Any:
    """Panels of Q8_0 in two parts. Columns: panels, how many blocks they have, the panels of the upper part, those of
    the second region. Split by blocks."""

    def split(op, thread, n_threads):
        n = arg(op, 1)
        for i in range(n * thread // n_threads, n * (thread + 1) // n_threads):
            split_block(arg(op, 0) + WHOLE * i, arg(op, 2) + FIRST * i, arg(op, 3) + SECOND * i)

    return split


@intrinsic
def upper_tile(typingctx, w, q, q2, meta, meta_stride, spreads, y, highest, n_blocks):
    """16 rows of the upper part by one token: their values to ``y``, the most that any of them can be to ``highest``.
    Returns the least that each can be. ``spreads``: how far the lower bits move a value, per block and scale."""

    def codegen(c, builder, s, a):
        e = Emit(builder, MACHINE)
        weights, first, second, metas, word_size, spreads, out, highest, blocks = a

        def body(i: Any, carried: Any) -> Any:
            p, x0, x1, m, spread, total, reach = carried
            words = block_products.Words(e, m, word_size)
            total = block_products.block(e, UPPER, p, x0, x1, words, None, "2", None, total)
            reach = e.fma(e.call("fabs", e.half_load(p, 0)), e.splat_load(spread, 0, "f32"), reach)
            return [e.at(p, FIRST), e.at(x0, 32), e.at(x1, 32), e.at(m, 4), e.at(spread, 4), total, reach]

        zero = e.zero("f32x16")
        start = [weights, first, second, metas, spreads, zero, zero]
        *_, total, reach = e.loop(e.i64(0), blocks, 1, start, body)
        e.store(out, 0, total)
        e.store(highest, 0, tree(e, builder.fadd(total, reach), lambda p, q: emit_max(e, p, q)))
        return builder.fsub(total, reach)

    return Vec("f32", 16)(*[types.int64] * 9), codegen


@intrinsic
def lower_tile(typingctx, w, second, q, q2, meta, meta_stride, y, n_blocks):
    """Adds to ``y`` what the lower bits of the same rows add."""

    def codegen(c, builder, s, a):
        e = Emit(builder, MACHINE)
        weights, second, x, x2, metas, word_size, out, blocks = a

        def body(i: Any, carried: Any) -> Any:
            p, rest, x0, x1, m, total = carried
            words = block_products.Words(e, m, word_size)
            total = block_products.block(e, LOWER, (p, rest), x0, x1, words, None, "2", None, total)
            return [e.at(p, FIRST), e.at(rest, SECOND), e.at(x0, 32), e.at(x1, 32), e.at(m, 4), total]

        start = [weights, second, x, x2, metas, e.zero("f32x16")]
        *_, total = e.loop(e.i64(0), blocks, 1, start, body)
        e.store(out, 0, builder.fadd(e.load(out, 0, "f32x16"), total))
        return c.get_dummy_value()

    return types.void(*[types.int64] * 8), codegen


@inline
def complete(op, panel, thread):
    """Adds the lower bits of ``panel`` of a row of ``make_upper``."""
    lower_tile(
        arg(op, 0) + panel * arg(op, 3),
        second_part(op, panel, SECOND),
        arg(op, 4) + thread * arg(op, 7),
        arg(op, 5) + thread * arg(op, 7),
        arg(op, 6) + thread * arg(op, 8),
        word_stride(arg(op, 2)),
        arg(op, 9) + panel * 64,
        arg(op, 2),
    )


@inline
def write_spreads(to, q, q2, meta, n32):
    """For 32 columns after 32 how far the lower bits of a weight with scale one move a value, rounding included."""
    most = np.float32(SPREAD) * (np.float32(1) + np.float32(32 * n32 + 128) * np.float32(2.0**-20))
    for k in range(n32):
        total = np.int64(0)
        for i in range(32 * k, 32 * k + 32):
            v = 256 * np.int64(load(q + i, "i8")) + np.int64(load(q2 + i, "i8"))
            total += v if v >= 0 else -v
        store(to + 4 * k, np.float32(total) * load(meta + 4 * k, "f32") * most)


def make_upper() -> Any:
    """The upper part, of which panels have a value and what they can be at most, and the largest of what rows are at
    least; with ``BEST`` 0 all panels whole. Columns 0 to 9 as of ``matmul``, then: for each thread ``LISTS`` bytes and
    a float32 for 32 columns, bytes of them, for each panel a float32 (in whole lines), the number of rows, a line of
    ``shares`` a thread, panels that are taken from them at a time.
    """

    def upper(op, thread, n_threads):
        k, w, n_panels, panel_bytes, turn = state(op, BEST), arg(op, 0), arg(op, 1), arg(op, 3), state(op, TURN)
        if state(op, N_TOKENS) != 1:
            return
        largest, n32 = arg(op, 10) + thread * arg(op, 11), arg(op, 2)
        q, q2 = arg(op, 4) + thread * arg(op, 7), arg(op, 5) + thread * arg(op, 7)
        meta, spreads, last = arg(op, 6) + thread * arg(op, 8), largest + LISTS, largest + 4 * k - 4
        clear(largest, k)
        if k > 0:
            write_spreads(spreads, q, q2, meta, n32)
        piece = START
        while True:
            piece = take(piece, arg(op, 14), thread, n_threads, n_panels, arg(op, 15), n_panels, turn)
            if piece < 0:
                break
            for panel in range(first_of(piece), end_of(piece)):
                least = upper_tile(
                    w + panel * panel_bytes,
                    q,
                    q2,
                    meta,
                    word_stride(n32),
                    spreads,
                    arg(op, 9) + panel * 64,
                    arg(op, 12) + panel * 4,
                    n32,
                )
                if k == 0:
                    complete(op, panel, thread)
                elif max_of(least) > load(last, "f32"):
                    keep_rows(largest, k, least, panel, arg(op, 13))

    return upper


def make_rest() -> Any:
    """The lower part of panels that may have one of the largest, after all threads' ``upper``; columns as of
    ``make_upper``. Every thread finds the same panels and completes one of as many as there are threads."""

    def rest(op, thread, n_threads):
        k = state(op, BEST)
        if k == 0 or state(op, N_TOKENS) != 1:
            return
        lists, size, highest, n_panels = arg(op, 10), arg(op, 11), arg(op, 12), arg(op, 1)
        floor, found = least_of(lists, size, k, lists + thread * size + 4 * MOST, n_threads), 0
        for first in range(0, n_panels, 16):
            if max_of(load(highest + 4 * first, "f32x16")) >= floor:
                for panel in range(first, smaller(first + 16, n_panels)):
                    if load(highest + 4 * panel, "f32") >= floor:
                        if found % n_threads == thread:
                            complete(op, panel, thread)
                        found += 1

    return rest
