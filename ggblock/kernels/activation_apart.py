"""Int8 activations of a tile of tokens where four of 32 columns stand apart: with upper halves, and a step of the rest.

Few columns of a trained model's activations are far larger than the others, mostly the same ones for all tokens. Where
such a column is among 32, their step is its own, and the others are told apart poorly. So of four columns, the ones
with the largest values in the tile, codes may have 15 bits::

    x = d (q + 128 high)        d from the largest of the other 28 columns

and the product of the weights with ``high``, one dot product more for each token, is added 128 times.

Of what such a block has in the second term's place only the first bytes count: ``high`` of its four columns, bytes
(TILE, 4); then, where products are first summed in int16, two int16 a token, -1 * sum of ``high`` of the first two and
of the last two columns; then the group's number, 0 to 7, int32. The scale ``d`` is negative: that marks the block. Sums
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
    TILE,
    byte_codes,
    columns_of,
    factors_of,
    folded,
    pairs_of,
    steps_of,
    store_half,
    sums_of,
    turned,
    write_meta,
)
from .fields import HIGH_BITS

HIGH = 1 << HIGH_BITS  # times the upper half; 127 of them and a lower half from -64 to 64 are the most


def _of_four(e: Emit, v: Any) -> Any:
    """The largest of each four lanes, in all of them."""
    for n in (1, 2):
        v = emit_max(e, v, e.shuffle(v, [i ^ n for i in range(16)]))
    return v


def _largest_group(e: Emit, sizes: list[list[Any]]) -> Any:
    """The number of the four columns whose largest values, squared and added up over the tokens, are the most: i32."""
    b, totals = e.b, []
    for values in sizes:
        tops = [_of_four(e, v) for v in values]
        totals.append(reduce(lambda total, v: e.fma(v, v, total), tops, e.zero("f32x16")))
    best, number = b.extract_element(totals[0], ir.Constant(I32, 0)), ir.Constant(I32, 0)
    for group in range(1, 8):
        value = b.extract_element(totals[group // 4], ir.Constant(I32, 4 * (group % 4)))
        more = b.fcmp_ordered(">", value, best)
        best, number = b.select(more, value, best), b.select(more, ir.Constant(I32, group), number)
    return number


@intrinsic(prefer_literal=True)
def quantize_apart(typingctx, x, q, high, meta, levels, limit):
    """32 columns of ``TILE`` tokens, float32 (TILE, 32) at ``x``, with four of them apart, written over what
    ``activation_tiles.quantize_tile`` has written with as many ``levels``: if the squares of the steps, summed over the
    tokens, are less so by more than ``limit``."""

    def codegen(c, builder, s, args):
        e, b = Emit(builder, MACHINE), builder
        source, first, second, to, most, least = args
        name = f"f32x{TILE}"
        const = lambda value: e.const(name, value)  # noqa: E731
        halves = columns_of(e, source)
        sizes = [[e.call("fabs", v) for v in values] for values in halves]
        number = _largest_group(e, sizes)
        groups = [ir.Constant(ir.VectorType(I32, 16), [4 * i + lane // 4 for lane in range(16)]) for i in range(2)]
        apart = [b.icmp_signed("==", e.splat(number), of_lane) for of_lane in groups]
        zero = e.zero("f32x16")
        rest = [[b.select(here, zero, v) for v in values] for here, values in zip(apart, sizes, strict=True)]
        (whole_d, of_whole), (d, inverse) = (steps_of(e, two, most) for two in (sizes, rest))
        at_least = b.fmul(whole_d, const(1 / HIGH))
        inverse = b.select(b.fcmp_ordered(">", at_least, d), b.fmul(of_whole, const(HIGH)), inverse)
        d = emit_max(e, at_least, d)
        less = e.fma(whole_d, whole_d, b.fneg(b.fmul(d, d)))
        with b.if_then(b.fcmp_ordered(">", tree(e, less, b.fadd), least)):
            factors, sums, fours, fours_high, sums_high, pairs = factors_of(e, inverse), [], [], [], [], []
            for i, values in enumerate(halves):
                whole = [e.rint(b.fmul(v, f)) for v, f in zip(values, factors, strict=True)]
                upper = [e.rint(b.fmul(v, e.const("f32x16", 1 / HIGH))) for v in whole]
                upper = [b.select(apart[i], v, zero) for v in upper]
                lower = [e.fma(v, e.const("f32x16", -HIGH), w) for v, w in zip(upper, whole, strict=True)]
                parts, highs = (turned(e, [byte_codes(e, v) for v in v16]) for v16 in (lower, upper))
                store_half(e, first, i, parts)
                sums_high.append(sums_of(e, highs))
                sums.append(b.add(sums_of(e, parts), e.shl(sums_high[-1], HIGH_BITS)))
                fours.append(parts)
                fours_high.append(highs)
                if e.machine.narrow:
                    pairs.append((pairs_of(e, parts), pairs_of(e, highs)))
            # all but one of eight are zero
            codes = [folded(e, e.bitcast(part, "i32x16"), TILE) for highs in fours_high for part in highs]
            e.store(second, 0, reduce(b.add, codes))
            if pairs:
                e.store(second, 4 * TILE, b.add(pairs[0][1], pairs[1][1]))
            e.store(second, 8 * TILE, number)
            paired = []
            if e.machine.name in PAIR_MACHINES:
                paired = winograd.words_apart(e, winograd.words_of(e, fours, TILE), sums_high)
            write_meta(e, to, d, sums, [of_lower for of_lower, _ in pairs], paired, b.fneg(d))
        return c.get_dummy_value()

    return types.void(*[types.int64] * 5, types.float32), codegen
