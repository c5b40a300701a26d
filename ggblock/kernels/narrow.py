"""Units against many tokens where products of bytes are first summed in int16 (``Machine.narrow``: AVX2).

Two instructions multiply 32 pairs of bytes and add the products of two to a lane; widening such sums to int32 takes two
more, so sums are widened as rarely as they can be:

What a type takes off its codes starts the sums (``fields.META``). They may wrap around on the way: only what is left at
the end must fit, and codes less than that are half as large. Q6_K's sub-blocks and Q5_0's are widened once, not twice.

Whole numbers that scale sub-blocks of 16 multiply the sums as they are widened, for nothing: two sub-blocks are then
one float (``has_whole_scales``).

Signed codes of full range would have to be widened after each product, and their signs moved to the activations before.
So their units have the upper and the lower four bits of ``code + 128`` as bytes of their own (``families.in_halves``):
twice the products, each as cheap as those of a 4-bit type.

G multiply-adds a second and core of Zen 4, before and after: Q6_K 93 and 113, Q3_K 107 and 114, MXFP4 89 and 114, Q5_0
117 and 130, Q8_0 and IQ4_XS 63 and 70.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..simd.emit import Emit
from .block_products import NARROW, dots, group_of, sum_word, together
from .families import in_halves, scales_at
from .fields import HIGH_BITS
from .shapes import UNIT_CODES

#: What is taken off codes in halves, and of that what the upper halves start with, in their own steps.
RAISED, RAISED_UPPER = 128, 8


def halves(e: Emit, fam: Any, p: Any, s: int, k: int) -> tuple[Any, Any]:
    """Codes of weights ``4 k .. 4 k + 3`` of sub-block ``s`` so: upper and lower, each <64 x i8>."""
    raised = fam.raised_codes(e, p, s, k)
    return e.bytes_lshr(raised, 4, 15), e.and_(raised, 15)


def has_whole_scales(e: Emit, fam: Any) -> bool:
    """Whether units have the scales of two sub-blocks as two int16 a row, then the factor of both."""
    return bool(e.machine.narrow and fam.sub == 16 and fam.max_scale and not fam.signed)


def steps(
    e: Emit, fam: Any, p: Any, bases: tuple[Any, ...], meta: Any, tokens: int, with_offset: list[int], high: Any
) -> Iterator[tuple[list[Any], Any, list[int], list[tuple[int, Any]]]]:
    """What a unit adds to the sums of all tokens, in steps: dot products by token, <16 x float>, their factor, which
    sub-blocks' offsets (of ``with_offset``) are added with them, and other offsets, each with its word of the meta.
    ``high``: see ``unpacked._add``.
    """
    whole, halved, alone = has_whole_scales(e, fam), in_halves(fam, e.machine.name), len(bases) == 1
    at_scales, n_subs, groups = scales_at(fam, e.machine.name), 32 // fam.sub, fam.sub // 4
    sums_of, zeros = _halves_dots if halved else _dots, [e.zero("i32x16")] * tokens
    if high is not None:
        e.order()  # else LLVM loads before the branch what both ways load, and keeps it: Q6_K 7 % slower, Q2_K 4 %

    def scale(within: int) -> Any:
        value = e.load(p, at_scales + 64 * within, "f32x16")
        if whole:
            both, factor = e.load(p, at_scales, "i32x16"), e.load(p, at_scales + 64, "f32x16")
            value = e.b.fmul(factor, e.i_to_f32(e.ashr(both if within else e.shl(both, 16), 16)))
        return value if high is None else e.b.fneg(value)

    if whole and alone:
        acc, factors = zeros, []
        for within in range(n_subs):
            factors.append(e.shuffle(e.load(p, at_scales, "i16x32"), [i // 2 * 2 + within for i in range(32)]))
            acc = sums_of(e, fam, p, bases[0], within, _starts(e, fam, meta, within, tokens), acc, factors[within])
        if high is not None:
            acc = _with_upper(e, fam, p, high, acc, factors)
        factor = e.load(p, at_scales + 64, "f32x16")
        yield [e.i_to_f32(v) for v in acc], factor if high is None else e.b.fneg(factor), with_offset, []
        return
    for within in range(n_subs):
        taken = []
        if alone or halved:
            starts = _starts(e, fam, meta, within, tokens) if alone else [e.zero("i16x32")] * tokens
            terms = [sums_of(e, fam, p, base, within, starts, zeros, None) for base in bases]
            if high is not None:
                ones = [e.const("i16x32", int(i == within)) for i in range(n_subs)]
                terms = [_with_upper(e, fam, p, high, terms[0], ones)]
        else:
            first = 64 * within * groups
            terms = dots(e, fam, lambda k, at=first: e.load(p, at + 64 * k, "i8x64"), bases, within * groups, tokens)
        values = [e.i_to_f32(together(e, [of_one[t] for of_one in terms])) for t in range(tokens)]
        factor, zero = scale(within), RAISED if halved else int(fam.zero)
        if zero and not alone:
            taken = [(sum_word(fam, within), e.b.fmul(factor, e.const("f32x16", -zero)))]
        yield values, factor, with_offset[within : within + 1], taken


def _with_upper(e: Emit, fam: Any, p: Any, high: Any, acc: list[Any], factors: list[Any]) -> list[Any]:
    """``acc``, by token, plus what stands apart adds to it (``activation_apart``), times ``factors`` by sub-block."""
    (add, widen), tokens, halved = e.machine.narrow, len(acc), in_halves(fam, e.machine.name)
    group = group_of(e, high, tokens)
    codes = [e.load(e.at(p, group, 64), i * UNIT_CODES, "i8x64") for i in range(1 + halved)]
    factor = factors[0]
    if len(factors) > 1:
        factor = e.b.select(e.b.icmp_signed(">=", group, e.i64(4)), factors[1], factor)
    factor, out = e.shl(factor, HIGH_BITS), []
    for t, total in enumerate(acc):
        x = e.bytes4(high, 4 * t)
        upper = add(e.b, _start(e, fam, high, 4 * (tokens + t)), codes[0], x)
        if halved:
            total = widen(e.b, total, upper, e.shl(factor, 4))
            upper = add(e.b, e.zero("i16x32"), codes[1], x)
        out.append(widen(e.b, total, upper, factor))
    return out


def _start(e: Emit, fam: Any, at: Any, offset: int) -> Any:
    """What products start with in int16, <32 x i16>: what a type takes off its codes (of codes in halves the upper
    ones), times the negative sums of activations at ``at + offset``."""
    zero = RAISED_UPPER if in_halves(fam, e.machine.name) else int(fam.zero)
    if not zero:
        return e.zero("i16x32")
    return e.shl(e.bitcast(e.splat_load(at, offset, "i32"), "i16x32"), zero.bit_length() - 1)


def _starts(e: Emit, fam: Any, meta: Any, within: int, tokens: int) -> list[Any]:
    """The same of a sub-block, by token."""
    at = sum_word(fam, within, True) * tokens * 4
    return [_start(e, fam, meta, at + t * 4) for t in range(tokens)]


def _dots(
    e: Emit, fam: Any, p: Any, base: Any, within: int, starts: list[Any], acc: list[Any], factors: Any
) -> list[Any]:
    """``acc`` plus ``factors`` times the dot products of a sub-block with one term."""
    (add, widen), tokens, zero, groups = e.machine.narrow, len(starts), int(fam.zero), fam.sub // 4
    each, first = NARROW // max(fam.max_code - zero, zero), within * groups
    assert each >= groups or not zero
    for begin in range(0, groups, each):
        pairs = list(starts)
        for k in range(first + begin, first + min(groups, begin + each)):
            value = e.load(p, 64 * k, "i8x64")
            pairs = [add(e.b, v, value, e.bytes4(base, (k * tokens + t) * 4)) for t, v in enumerate(pairs)]
            pairs = e.pin(pairs)
        acc = [widen(e.b, a, v, factors) for a, v in zip(acc, pairs, strict=True)]
    return acc


def _halves_dots(
    e: Emit, fam: Any, p: Any, base: Any, within: int, starts: list[Any], acc: list[Any], factors: Any
) -> list[Any]:
    """The same for codes in halves; ``starts`` are those of the upper ones. Two tokens at a time, so that registers
    hold the sums of both halves."""
    (add, widen), tokens, groups, out = e.machine.narrow, len(starts), fam.sub // 4, list(acc)
    assert factors is None and NARROW // 15 >= groups
    sixteen = e.const("i16x32", 16)
    for first in range(0, tokens, 2):
        pairs = [*starts[first : first + 2], *[e.zero("i16x32")] * 2]
        for k in range(within * groups, (within + 1) * groups):
            upper, lower = e.load(p, 64 * k, "i8x64"), e.load(p, UNIT_CODES + 64 * k, "i8x64")
            x = [e.bytes4(base, (k * tokens + first + t) * 4) for t in range(2)]
            pairs = e.pin([add(e.b, v, (upper, lower)[i // 2], x[i % 2]) for i, v in enumerate(pairs)])
        for t in range(2):
            out[first + t] = widen(e.b, widen(e.b, out[first + t], pairs[t], sixteen), pairs[2 + t])
    return out
