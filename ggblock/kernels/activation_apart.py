"""Int8 activations of a tile of tokens where four of 32 columns stand apart: with upper halves, and a step of the rest.

Few columns of a trained model's activations are far larger than the others, mostly the same ones for all tokens. Where
such a column is among 32, their step is its own, and the others are told apart poorly. So of four columns, the ones
with the largest values in the tile, codes may have 15 bits::

    x = d (q + 128 high)        d from the largest of the other 28 columns

and the product of the weights with ``high``, one dot product more for each token, is added 128 times. Four columns
are those that are multiplied together: where products are first summed in int16, two of the first 16 and two of the
last.

Of what such a block has in the second term's place only the first bytes count: ``high`` of its four columns, bytes
(TILE, 4); then, where products are first summed in int16, two int16 a token, -1 * sum of ``high`` of the first 16 and
of the last 16 columns; then the group's number, 0 to 7, int32. The scale ``d`` is negative: that marks the block. Sums
in the meta are of the whole codes, those of pairs in int16 of ``q`` alone.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import I32, Emit
from ..simd.host import PAIR_MACHINES
from ..simd.vec import MACHINE, emit_max, tree
from . import winograd
from .activation_tiles import (
    BYTES,
    META_BYTES,
    TILE,
    byte_codes,
    columns_of,
    factors_of,
    folded,
    larger_step,
    load_step,
    make_alike,
    sizes_of,
    starts_of,
    step_with,
    store_groups,
    store_step,
    sums_of,
    turned,
    write_meta,
)
from .fields import ALIKE, HIGH_BITS

HIGH = 1 << HIGH_BITS  # times the upper half; 127 of them and a lower half from -64 to 64 are the most
APART_SUM = 2 * HIGH // 2  # where that counts, what the lower halves' magnitudes add up to: two columns of 16
NOWHERE = -1  # the number of no group


def _of_neighbours(e: Emit, v: Any, each: int) -> Any:
    """The largest of each two or four lanes, in all of them."""
    for n in (1, 2)[: each // 2]:
        v = emit_max(e, v, e.shuffle(v, [i ^ n for i in range(16)]))
    return v


def _group_of_lane(e: Emit, half: int, lane: int) -> int:
    """Which four columns of the layout the ``lane``-th of a half belongs to."""
    return lane // 2 if e.machine.narrow else 4 * half + lane // 4


def _lanes(e: Emit, number: Any) -> list[Any]:
    """Of both halves, which of 16 columns belong to the group ``number``."""
    groups = [ir.Constant(ir.VectorType(I32, 16), [_group_of_lane(e, i, lane) for lane in range(16)]) for i in range(2)]
    return [e.b.icmp_signed("==", e.splat(number), of_lane) for of_lane in groups]


def _largest_group(e: Emit, sizes: list[list[Any]]) -> Any:
    """The number of the four columns whose largest values, squared and added up over the tokens, are the most: i32."""
    b, totals = e.b, []
    if e.machine.narrow:  # a group has two columns in either half
        sizes = [[emit_max(e, x, y) for x, y in zip(*sizes, strict=True)]]
    each = 2 if e.machine.narrow else 4
    for values in sizes:
        tops = [_of_neighbours(e, v, each) for v in values]
        totals.append(reduce(lambda total, v: e.fma(v, v, total), tops, e.zero("f32x16")))
    found = [b.extract_element(v, ir.Constant(I32, lane)) for v in totals for lane in range(0, 16, each)]
    best, number = found[0], ir.Constant(I32, 0)
    for group, value in enumerate(found[1:], 1):
        more = b.fcmp_ordered(">", value, best)
        best, number = b.select(more, value, best), b.select(more, ir.Constant(I32, group), number)
    return number


@intrinsic(prefer_literal=True)
def quantize_apart(typingctx, x, q, high, meta, levels, limit, n, together):
    """``n`` times 32 columns of ``TILE`` tokens, float32 (n, TILE, 32) at ``x``, those with four of them apart for
    which the squares of the steps, summed over the tokens, are less so by more than ``limit``: written over what
    ``activation_tiles`` has written with as many ``levels``, ``together`` as of ``choose_steps``."""

    def codegen(c, builder, s, args):
        e, b = Emit(builder, MACHINE), builder
        source, first, second, to, most, least, n, together = args
        numbers, steps, alike = e.stack(4 * ALIKE), e.stack(8 * TILE * ALIKE), b.icmp_signed(">", together, e.i64(1))

        def one(i: Any, found: list[Any]) -> list[Any]:
            sizes = sizes_of(e, columns_of(e, e.at(source, i, BYTES)))
            number, zero = _largest_group(e, sizes), e.zero("f32x16")
            rest = [[b.select(here, zero, v) for v in of] for here, of in zip(_lanes(e, number), sizes, strict=True)]
            whole_d, of_whole = whole = step_with(e, sizes, most, alike)
            upper = [b.fmul(v, e.const(f"f32x{TILE}", by)) for v, by in ((whole_d, 1 / HIGH), (of_whole, HIGH))]
            step = larger_step(e, (upper[0], upper[1]), step_with(e, rest, most, alike, APART_SUM))
            saved = tree(e, e.fma(whole_d, whole_d, b.fneg(b.fmul(step[0], step[0]))), b.fadd)
            is_apart = b.fcmp_ordered(">", saved, least)
            store_step(e, e.at(steps, i, 8 * TILE), *(b.select(is_apart, *v) for v in zip(step, whole, strict=True)))
            e.store(e.at(numbers, i, 4), 0, b.select(is_apart, number, ir.Constant(I32, NOWHERE)))
            return [b.or_(found[0], is_apart)]

        def settle(i: Any, _: list[Any]) -> list[Any]:
            store_step(e, e.at(to, i, META_BYTES), *load_step(e, e.at(steps, i, 8 * TILE)))
            return []

        def write(i: Any, _: list[Any]) -> list[Any]:
            to_bytes, of_meta = (e.at(place, i, 32 * TILE) for place in (first, second)), e.at(to, i, META_BYTES)
            _write(e, e.at(source, i, BYTES), *to_bytes, of_meta, e.load(e.at(numbers, i, 4), 0, "i32"))
            return []

        with b.if_then(e.loop(e.i64(0), n, 1, [ir.Constant(ir.IntType(1), 0)], one)[0]):
            e.loop(e.i64(0), n, 1, [], settle)
            make_alike(e, to, n, alike)
            e.loop(e.i64(0), n, 1, [], write)
        return c.get_dummy_value()

    return types.void(*[types.int64] * 5, types.float32, *[types.int64] * 2), codegen


def _write(e: Emit, source: Any, first: Any, second: Any, to: Any, number: Any) -> None:
    """32 columns in the steps at ``to``, the group ``number`` apart, if there is one."""
    d, inverse = load_step(e, to)
    b, zero, apart, factors = e.b, e.zero("f32x16"), _lanes(e, number), factors_of(e, inverse)
    lowers, uppers = [], []
    for here, values in zip(apart, columns_of(e, source), strict=True):
        whole = [e.rint(b.fmul(v, f)) for v, f in zip(values, factors, strict=True)]
        upper = [e.rint(b.fmul(v, e.const("f32x16", 1 / HIGH))) for v in whole]
        uppers.append([b.select(here, v, zero) for v in upper])
        lowers.append([e.fma(v, e.const("f32x16", -HIGH), w) for v, w in zip(uppers[-1], whole, strict=True)])
    fours, high = (turned(e, [[byte_codes(e, v) for v in values] for values in of]) for of in (lowers, uppers))
    store_groups(e, first, fours)
    sums_high, starts_high = sums_of(e, high), starts_of(e, high)
    sums = [b.add(n, e.shl(above, HIGH_BITS)) for n, above in zip(sums_of(e, fours), sums_high, strict=True)]
    # all but one of eight are zero
    e.store(second, 0, reduce(b.add, [folded(e, e.bitcast(v, "i32x16"), TILE) for parts in high for v in parts]))
    if starts_high:
        e.store(second, 4 * TILE, starts_high)
    e.store(second, 8 * TILE, number)
    paired = []
    if e.machine.name in PAIR_MACHINES:
        paired = winograd.words_apart(e, winograd.words_of(e, fours, TILE), sums_high)
    nowhere = b.icmp_signed("==", number, ir.Constant(I32, NOWHERE))
    write_meta(e, to, d, sums, starts_of(e, fours), paired, b.select(nowhere, d, b.fneg(d)))
