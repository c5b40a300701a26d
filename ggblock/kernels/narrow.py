"""Units against many tokens where products of bytes are first summed in int16 (``Machine.narrow``: AVX2).

Two instructions multiply 32 pairs of bytes and add the products of two to a lane; widening such sums to int32 takes two
more, so sums are widened as rarely as they can be:

Four columns that are multiplied together are two of a unit's first 16 and two of its last 16. So one of two int16 adds
up the products of the first 16 columns and the other those of the last 16, also where these are sub-blocks of their
own, until all 32 columns are multiplied.

What a type takes off its codes starts the sums (``fields.META``). They may wrap around on the way: only what is left at
the end must fit, and codes less than that are half as large. Q6_K and Q5_0 are widened once a unit, not four times.

Where sums had to be widened more than once a unit and the sub-blocks of 256 weights have whole numbers for scales
(``families.has_whole_scales``), these multiply the sums as they are widened, for nothing. The activations' scales of
256 columns are then whole multiples of one (``fields.TOGETHER``), so that whole numbers are added up over all of them,
mins as well, before anything becomes a float (``group``). What codes below 64 and activations with codes up to 127 add
up to over 16 columns need not fit int16, so a step is as large as makes it fit (``fields.MOST_SUM``): rarely larger
than what it is for other reasons. The multiples are one for all tokens of a tile, so that a unit's scales are
multiplied by them once. At most ``8 * 2 * 128 * MOST_TIMES * 32 * MOST_SUM``, what the sums of a block add up to is
just below 2**31.

Mean KL of gemma-3-270m's prefill (Q4_K_M, 1,024 tokens): 0.0014 with a scale for each 32 columns, 0.0013 with multiples
by token, 0.0019 with those of a tile, 0.0055 with one scale for 256 columns, which would be no faster.

Signed codes of full range would have to be widened after each product, and their signs moved to the activations before.
So their units have the upper and the lower four bits of ``code + 128`` as bytes of their own (``families.in_halves``):
twice the products, each as cheap as those of a 4-bit type.

G multiply-adds a second and core of Zen 4, 512 tokens, with a float for each unit and sub-blocks of 16 one after the
other, and so: Q6_K 115 and 143, Q3_K 116 and 142, Q2_K 109 and 133, Q5_K 121 and 133. Q4_K, widened once a unit either
way, 130 and 129: it has floats, as all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..simd.emit import Emit
from ..simd.machines import joined
from . import families
from .block_products import group_of, sum_word, together
from .families import has_whole_scales, in_halves, scales_at
from .fields import HIGH_BITS, META_STEP, NARROW, START, TIMES, TIMES_SUMS, UNIT
from .shapes import UNIT_CODES

#: What is taken off codes in halves, and of that what the upper halves start with, in their own steps.
RAISED, RAISED_UPPER = 128, 8

#: Of a unit with whole numbers for scales, from ``scales_at`` on: these, their factor, mins, their negative factor.
FACTOR, MINS, OF_MINS = 64, 128, 192


def emit_unpack(e: Emit, fam: Any, p: Any, to: Any, mode: str) -> None:
    """The panel block of ``fam`` at ``p`` as whole units at ``to``: see ``unpacked``."""
    shared, size, each = fam.prepare(e, p), families.unit_bytes(fam, e.machine.name, mode), 32 // fam.sub
    n_subs, scales = fam.block // fam.sub, scales_at(fam, e.machine.name)
    for first in range(0, n_subs, each):
        unit, subs = first // each * size, range(first, min(first + each, n_subs))
        for i, half in enumerate(_codes(e, fam, p, subs)):
            for k, value in enumerate(_woven(e, half)):
                e.store(to, unit + UNIT_CODES * i + 64 * k, value)
        if has_whole_scales(fam, e.machine.name):
            numbers = [fam.parts(e, p, shared, s) for s in subs]
            e.store(to, unit + scales, _two_words(e, [scale for scale, _ in numbers], each))
            factor, of_mins = fam.whole(e, shared)
            e.store(to, unit + scales + FACTOR, factor)
            if fam.has_offsets:
                e.store(to, unit + scales + MINS, _two_words(e, [offset for _, offset in numbers], each))
                e.store(to, unit + scales + OF_MINS, e.b.fneg(of_mins))
            continue
        floats = [fam.complete(e, p, shared, s) for s in subs] + [(e.zero("f32x16"),) * 2] * (each - len(subs))
        for within, (scale, offset) in enumerate(floats):
            e.store(to, unit + scales + 64 * within, scale)
            if fam.has_offsets:
                e.store(to, unit + scales + 64 * (each + within), offset)


def _codes(e: Emit, fam: Any, p: Any, subs: range) -> list[list[Any]]:
    """The codes of a unit, eight times <64 x i8>, as they are in a row; of codes in halves the upper and the lower."""
    groups = [(s, k) for s in subs for k in range(fam.sub // 4)]
    lacking = [e.zero("i8x64")] * (8 - len(groups))
    if not in_halves(fam, e.machine.name):
        return [[fam.codes(e, p, *at) for at in groups] + lacking]
    raised = [fam.raised_codes(e, p, *at) for at in groups]
    return [[e.bytes_lshr(v, 4, 15) for v in raised] + lacking, [e.and_(v, 15) for v in raised] + lacking]


def _woven(e: Emit, codes: list[Any]) -> list[Any]:
    """Groups of four columns in the order of the activations: two of the first 16 and two of the last."""
    out = []
    for x, y in zip(codes[:4], codes[4:], strict=True):
        x, y = e.bitcast(x, "i16x32"), e.bitcast(y, "i16x32")
        both = joined(e.b, [x, y])
        for i in range(2):
            out.append(e.bitcast(e.shuffle(both, [j for r in range(16) for j in (2 * r + i, 32 + 2 * r + i)]), "i8x64"))
    return out


def _two_words(e: Emit, numbers: list[Any], each: int) -> Any:
    """Whole numbers of the first and of the last 16 columns, <16 x i32> each or both alike, as int16 side by side."""
    low, high = numbers[0], numbers[-1] if len(numbers) == each else e.zero("i32x16")
    return e.b.or_(e.and_(low, 0xFFFF), e.shl(high, 16))


def steps(
    e: Emit, fam: Any, p: Any, bases: tuple[Any, ...], meta: Any, tokens: int, with_offset: list[int], high: Any
) -> Iterator[tuple[list[Any], Any, list[int], list[tuple[int, Any]]]]:
    """What a unit adds to the sums of all tokens, in steps: dot products by token, <16 x float>, their factor, which
    sub-blocks' offsets (of ``with_offset``) are added with them, and other offsets, each with its word of the meta.
    ``high``: see ``unpacked._add``.
    """
    whole, halved = (of(fam, e.machine.name) for of in (has_whole_scales, in_halves))
    alone = len(bases) == 1
    at_scales, n_subs = scales_at(fam, e.machine.name), 32 // fam.sub
    if high is not None:
        e.order()  # else LLVM loads before the branch what both ways load, and keeps it: Q6_K 7 % slower, Q2_K 4 %

    def number(at: int, within: int) -> Any:
        """A scale, or at ``MINS`` a min: one of two whole numbers times the factor behind them, or a float."""
        if not whole:
            return e.load(p, at_scales + at + 64 * within, "f32x16")
        both, factor = e.load(p, at_scales + at, "i32x16"), e.load(p, at_scales + at + FACTOR, "f32x16")
        value = e.i_to_f32(e.ashr(both if within else e.shl(both, 16), 16))
        return e.b.fmul(e.b.fneg(factor) if at else factor, value)

    starts = [_start(e, fam, meta, START * tokens + t) for t in range(tokens)] if alone else None
    terms = [(_halves_sums if halved else _sums)(e, fam, p, base, tokens, starts) for base in bases]
    if high is not None:
        terms = [_with_upper(e, fam, p, high, terms[0])]
    for within in range(n_subs):
        factor, zero, offsets = number(0, within), RAISED if halved else int(fam.zero), []
        if within in with_offset and whole:
            offsets.append((sum_word(fam, within), number(MINS, within)))
        if zero and not alone:
            offsets.append((sum_word(fam, within), e.b.fmul(factor, e.const("f32x16", -zero))))
        values = [e.i_to_f32(together(e, [of_one[within][t] for of_one in terms])) for t in range(tokens)]
        loaded = [] if whole else with_offset[within : within + 1]
        yield values, factor if high is None else e.b.fneg(factor), loaded, offsets


def _sums(e: Emit, fam: Any, p: Any, base: Any, tokens: int, starts: list[Any] | None) -> list[list[Any]]:
    """Dot products of a unit with one term, by sub-block and token, <16 x i32>."""
    (add, widen), n_subs, zero = e.machine.narrow, 32 // fam.sub, int(fam.zero)
    # groups of four whose products, two to a lane, cannot leave int16
    each = NARROW // (max(fam.max_code - zero, zero) if starts else fam.max_code)
    assert each >= 8 or not (starts and zero), fam
    acc, pairs = [[e.zero("i32x16")] * tokens for _ in range(n_subs)], starts or [e.zero("i16x32")] * tokens
    for begin in range(0, 8, each):
        for k in range(begin, min(8, begin + each)):
            value = e.load(p, 64 * k, "i8x64")
            pairs = [add(e.b, v, value, e.bytes4(base, (k * tokens + t) * 4)) for t, v in enumerate(pairs)]
            pairs = e.pin(pairs)
        for ones, sums in zip(_ones(e, n_subs), acc, strict=True):
            sums[:] = [widen(e.b, a, v, ones) for a, v in zip(sums, pairs, strict=True)]
        pairs = [e.zero("i16x32")] * tokens
    return acc


def _ones(e: Emit, n_subs: int) -> list[Any]:
    """What the sums of the first and of the last 16 columns are multiplied by, by sub-block, <32 x i16>."""
    if n_subs == 1:
        return [e.const("i16x32", 1)]
    return [e.bitcast(e.const("i32x16", 1 << 16 * i), "i16x32") for i in range(n_subs)]


def _halves_sums(e: Emit, fam: Any, p: Any, base: Any, tokens: int, starts: list[Any] | None) -> list[list[Any]]:
    """The same for codes in halves; ``starts`` are those of the upper ones. Two tokens at a time, so that registers
    hold the sums of both halves."""
    (add, widen), zero = e.machine.narrow, e.zero("i32x16")
    assert NARROW // 15 >= 8
    out: list[list[Any]] = [[] for _ in range(32 // fam.sub)]
    for first in range(0, tokens, 2):
        pairs = [*(starts[first : first + 2] if starts else [e.zero("i16x32")] * 2), *[e.zero("i16x32")] * 2]
        for k in range(8):
            upper, lower = e.load(p, 64 * k, "i8x64"), e.load(p, UNIT_CODES + 64 * k, "i8x64")
            x = [e.bytes4(base, (k * tokens + first + t) * 4) for t in range(2)]
            pairs = e.pin([add(e.b, v, (upper, lower)[i // 2], x[i % 2]) for i, v in enumerate(pairs)])
        for ones, sums in zip(_ones(e, len(out)), out, strict=True):
            sums += [widen(e.b, widen(e.b, zero, pairs[t], e.shl(ones, 4)), pairs[2 + t], ones) for t in range(2)]
    return out


def _start(e: Emit, fam: Any, at: Any, word: int) -> Any:
    """What products start with in int16, <32 x i16>: what a type takes off its codes (of codes in halves the upper
    ones), times the negative sums of activations that are word ``word`` at ``at``."""
    zero = RAISED_UPPER if in_halves(fam, e.machine.name) else int(fam.zero)
    if not zero:
        return e.zero("i16x32")
    return e.shl(_two(e, at, word), zero.bit_length() - 1)


def _two(e: Emit, at: Any, word: int) -> Any:
    """Word ``word`` at ``at``, two int16, in all lanes: <32 x i16>."""
    return e.bitcast(e.splat_load(at, 4 * word, "i32"), "i16x32")


def _upper(e: Emit, fam: Any, p: Any, high: Any, tokens: int) -> list[list[Any]]:
    """Sums in int16 of what stands apart (``activation_apart``) times its codes, by token, and by halves of codes."""
    add, group = e.machine.narrow[0], group_of(e, high, tokens)
    codes = [e.load(e.at(p, group, 64), i * UNIT_CODES, "i8x64") for i in range(1 + in_halves(fam, e.machine.name))]
    out = []
    for t in range(tokens):
        x, start = e.bytes4(high, 4 * t), _start(e, fam, high, tokens + t)
        out.append([add(e.b, e.zero("i16x32") if i else start, v, x) for i, v in enumerate(codes)])
    return out


def _with_upper(e: Emit, fam: Any, p: Any, high: Any, acc: list[list[Any]]) -> list[list[Any]]:
    """``acc``, as of ``_sums``, plus what stands apart adds to it."""
    widen, upper = e.machine.narrow[1], _upper(e, fam, p, high, len(acc[0]))
    out = []
    for ones, sums in zip(_ones(e, len(acc)), acc, strict=True):
        found = []
        for total, parts in zip(sums, upper, strict=True):
            for i, v in enumerate(parts):
                total = widen(e.b, total, v, e.shl(ones, HIGH_BITS + 4 * (len(parts) - 1 - i)))
            found.append(total)
        out.append(found)
    return out


def group(
    e: Emit, fam: Any, p: Any, q: Any, high: Any, meta: Any, tokens: int, n_units: Any, sums: Any,
    ask: Callable[[Any], None],
) -> list[Any]:  # fmt: skip
    """Adds to ``sums`` (``unpacked.Sums``) what ``n_units`` units from ``p`` on, of a block with whole numbers for
    scales, add with activations whose scales are multiples of one; returns the addresses behind them. ``ask(i)``:
    called first for each of them."""
    (add, widen), b, size = e.machine.narrow, e.b, families.unit_bytes(fam, e.machine.name, "1+")
    scales, steps = scales_at(fam, e.machine.name), (size, 32 * tokens, 32 * tokens, META_STEP * tokens)

    def unit(i: Any, carried: list[Any]) -> list[Any]:
        at, x, above, words, *whole = carried
        ask(i)
        pairs = [_start(e, fam, words, START * tokens + t) for t in range(tokens)]
        for k in range(8):
            codes = e.load(at, 64 * k, "i8x64")
            pairs = e.pin([add(b, v, codes, e.bytes4(x, (k * tokens + t) * 4)) for t, v in enumerate(pairs)])
        factors = b.mul(e.load(at, scales, "i16x32"), _two(e, words, TIMES * tokens))  # all have the same
        whole = [widen(b, total, v, factors) for total, v in zip(whole, pairs, strict=True)]
        with b.if_then(b.icmp_signed("<", e.load(words, 0, "i32"), e.zero("i32"))):
            _add_apart(e, fam, at, above, words, tokens, sums)
        return [*(e.at(v, by) for v, by in zip(carried[:4], steps, strict=True)), *whole]

    carried = e.loop(e.i64(0), n_units, 1, [p, q, high, meta, *[e.zero("i32x16")] * tokens], unit)
    behind, whole = carried[:4], carried[4:]
    mins = _mins(e, p, meta, tokens, n_units, size, scales + MINS) if fam.has_offsets else []
    sums.settle()
    factor = e.load(p, scales + FACTOR, "f32x16")
    for t in range(tokens):
        d = e.splat_load(meta, 4 * (UNIT * tokens + t), "f32")
        total = e.fma(e.i_to_f32(whole[t]), b.fmul(factor, d), sums[t])
        if mins:
            total = e.fma(e.i_to_f32(mins[t]), b.fmul(e.load(p, scales + OF_MINS, "f32x16"), d), total)
        sums[t] = total
    sums.settle()
    return behind


def _mins(e: Emit, p: Any, meta: Any, tokens: int, n_units: Any, size: int, at_mins: int) -> list[Any]:
    """Mins of units times the negative sums of activations, by token, <16 x i32>."""
    widen = e.machine.narrow[1]

    def unit(i: Any, acc: list[Any]) -> list[Any]:
        mins, words = e.load(e.at(p, i, size), at_mins, "i16x32"), e.at(meta, i, META_STEP * tokens)
        return [widen(e.b, v, _two(e, words, TIMES_SUMS * tokens + t), mins) for t, v in enumerate(acc)]

    return e.loop(e.i64(0), n_units, 1, [e.zero("i32x16")] * tokens, unit)


def _add_apart(e: Emit, fam: Any, p: Any, high: Any, meta: Any, tokens: int, sums: Any) -> None:
    """Adds what stands apart in a unit to ``sums``: as floats, since whole numbers could leave int32."""
    widen, scales, zero = e.machine.narrow[1], scales_at(fam, e.machine.name), e.zero("i32x16")
    sums.settle()
    for t, (upper,) in enumerate(_upper(e, fam, p, high, tokens)):
        d = e.b.fmul(e.splat_load(meta, 4 * t, "f32"), e.const("f32x16", -(2.0**HIGH_BITS)))  # d is negative
        factor = e.b.fmul(e.load(p, scales + FACTOR, "f32x16"), d)
        total = e.fma(e.i_to_f32(widen(e.b, zero, upper, e.load(p, scales, "i16x32"))), factor, sums[t])
        if fam.has_offsets:
            factor = e.b.fmul(e.load(p, scales + OF_MINS, "f32x16"), d)
            number = widen(e.b, zero, _two(e, high, tokens + t), e.load(p, scales + MINS, "i16x32"))
            total = e.fma(e.i_to_f32(number), factor, total)
        sums[t] = total
    sums.settle()
