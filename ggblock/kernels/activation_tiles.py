"""Int8 activations of a whole tile of tokens at once: what ``activation_blocks`` does for one token, to the bit.

Lanes are tokens where a token has one number: scales and sums of 8 tokens take the instructions of one. Codes are
turned by shuffles into the order of the layout, where 4 columns of one token are followed by those of the next. Half
the time of one token after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import I32, Emit, llvm_type
from ..simd.host import PAIR_MACHINES
from ..simd.machines import MACHINES, joined
from ..simd.vec import MACHINE, emit_inverse, emit_max, emit_min, tree
from . import winograd
from .fields import ALIKE, META_STEP, MOST_LEVELS, MOST_SUM, MOST_TIMES, PAIRED, START, TIMES, TIMES_SUMS, UNIT

TILE = MACHINES[MACHINE].tile_tokens
BYTES = 128 * TILE  # of 32 float32 columns of a tile
GROUP_BYTES = ALIKE * BYTES  # of as many as may have steps that are multiples of one
META_BYTES = META_STEP * TILE  # of 32 columns of a tile


def largest(e: Emit, vectors: list[Any]) -> Any:
    """The largest lane of each of n <16 x float>, as <n x float>; n is a multiple of four."""
    return emit_max(e, *of_eight(e, vectors, emit_max))


def of_eight(e: Emit, vectors: list[Any], fold: Callable[[Emit, Any, Any], Any]) -> list[Any]:
    """The first and the last eight lanes of each of n <16 x float> folded into one, <n x float> each.

    Two vectors are folded into one inside every 128 bits, twice: then each 128 bits hold one lane of four of them.
    """
    n = len(vectors)
    for _ in range(2):
        folded = []
        for x, y in zip(vectors[::2], vectors[1::2], strict=True):
            both, even = joined(e.b, [x, y]), [i + j for i in range(0, 16, 4) for j in (0, 2, 16, 18)]
            folded.append(fold(e, e.shuffle(both, even), e.shuffle(both, [i + 1 for i in even])))
        vectors = folded
    flat, found = joined(e.b, vectors), []
    for half in range(2):
        at = [16 * v + 8 * half + i for v in range(n // 4) for i in range(4)]
        found.append(fold(e, e.shuffle(flat, at), e.shuffle(flat, [i + 4 for i in at])))
    return found


def columns_of(e: Emit, source: Any) -> list[list[Any]]:
    """32 columns of ``TILE`` tokens, float32 (TILE, 32) at ``source``: both halves by token, <16 x float> each."""
    return [[e.load(source, 128 * t + 64 * i, "f32x16") for t in range(TILE)] for i in range(2)]


def turned(e: Emit, halves: list[list[Any]]) -> list[list[Any]]:
    """32 columns of all tokens, both halves by token (<16 x i8>), as groups of four columns in the order of the layout:
    of the first and of the last four groups (4, TILE, 4), in <64 x i8>."""
    if e.machine.narrow:  # two columns of one half and two of the other
        words = [e.bitcast(v, "i16x8") for of_token in zip(*halves, strict=True) for v in of_token]
        both = e.bitcast(e.shuffle(joined(e.b, words), _woven_order()), f"i32x{8 * TILE}")
        flat = [e.part(both, 4 * TILE * i, 4 * TILE) for i in range(2)]
    else:
        order, flat = [4 * t + g for g in range(4) for t in range(TILE)], []
        for codes in halves:
            flat.append(e.shuffle(joined(e.b, [e.bitcast(v, "i32x4") for v in codes]), order))
    return [[e.bitcast(e.part(words, i, 16), "i8x64") for i in range(0, 4 * TILE, 16)] for words in flat]


def _woven_order() -> list[int]:
    return [16 * t + 8 * half + g for g in range(8) for t in range(TILE) for half in range(2)]


def sizes_of(e: Emit, halves: list[list[Any]]) -> list[list[Any]]:
    """Magnitudes of what ``columns_of`` returned."""
    return [[e.call("fabs", v) for v in values] for values in halves]


def store_groups(e: Emit, to: Any, halves: list[list[Any]]) -> None:
    """32 columns, as ``turned`` returned them."""
    for at, part in enumerate(part for parts in halves for part in parts):
        e.store(to, 64 * at, part)


def folded(e: Emit, value: Any, n: int) -> Any:
    """A vector's lanes added up into ``n``, those that are ``n`` apart."""
    while value.type.count > n:
        half = value.type.count // 2
        value = e.b.add(e.part(value, 0, half), e.part(value, half, half))
    return value


def sums_of(e: Emit, halves: list[list[Any]]) -> list[Any]:
    """Sums of the codes of the first and of the last 16 columns by token, <TILE x i32>, from what ``turned`` returned.
    """
    if e.machine.narrow:
        sums = _pairs_of(e, halves)
        each = [e.shuffle(sums, [2 * t + half for t in range(TILE)]) for half in range(2)]
        return [e.b.sext(v, llvm_type(f"i32x{TILE}")) for v in each]
    found = []
    for parts in halves:
        total = e.zero("i32x16")
        for part in parts:
            total = e.dot_us(total, e.const("i8x64", 1), part)
        found.append(folded(e, total, TILE))
    return found


def _pairs_of(e: Emit, halves: list[list[Any]]) -> Any:
    """The same as two int16 beside each other: <2 TILE x i16>."""
    assert e.machine.narrow
    sums = e.zero("i16x32")
    for part in (part for parts in halves for part in parts):
        sums = e.machine.narrow[0](e.b, sums, e.const("i8x64", 1), part)
    return folded(e, sums, 2 * TILE)


def starts_of(e: Emit, halves: list[list[Any]]) -> Any:
    """What products that are first summed in int16 start with, by token: <2 TILE x i16>; else None."""
    return e.b.sub(e.zero(f"i16x{2 * TILE}"), _pairs_of(e, halves)) if e.machine.narrow else None


def step_of(e: Emit, peak: Any, levels: Any) -> tuple[Any, Any]:
    """The steps of codes up to ``levels``, a float, for values up to ``peak``, and what values are multiplied by for
    codes: <n x float>."""
    n = peak.type.count
    inverse = emit_inverse(e, e.splat(levels, n), peak)
    return e.b.fmul(peak, e.splat(e.b.fdiv(e.const("f32", 1.0), levels), n)), inverse


def steps_of(e: Emit, sizes: list[list[Any]], levels: Any) -> tuple[Any, Any]:
    """``step_of`` both halves' magnitudes, as ``columns_of`` has them, by token; codes go up to ``levels``, the i64 at
    ``fields.LEVELS``, and in the last eight columns up to ``MOST_LEVELS``."""
    most = e.const("f32", float(MOST_LEVELS))
    if e.machine.name not in PAIR_MACHINES:
        return step_of(e, largest(e, [emit_max(e, x, y) for x, y in zip(*sizes, strict=True)]), most)
    fewer, second = (e.b.bitcast(e.b.trunc(v, I32), most.type) for v in (levels, e.b.lshr(levels, e.i64(32))))
    lower = ir.Constant(ir.VectorType(ir.IntType(1), 16), [lane < 8 for lane in range(16)])
    # the second eight as if they had as few: then the first 24 are alike
    alike = e.b.select(lower, e.const("f32x16", 1.0), e.splat(e.b.fdiv(fewer, second)))
    apart = []  # the first 24 in eight lanes, the last eight in the others
    for x, y in zip(*sizes, strict=True):
        x = e.b.fmul(x, alike)
        x = emit_max(e, x, e.shuffle(x, [(lane + 8) % 16 for lane in range(16)]))
        apart.append(e.b.select(lower, emit_max(e, x, y), y))
    first, last = of_eight(e, apart, emit_max)
    return larger_step(e, step_of(e, first, fewer), step_of(e, last, most))


def larger_step(e: Emit, one: tuple[Any, Any], other: tuple[Any, Any]) -> tuple[Any, Any]:
    """Of two results of ``step_of`` the one with the larger step, by token."""
    larger = e.b.fcmp_ordered(">", one[0], other[0])
    return e.b.select(larger, one[0], other[0]), e.b.select(larger, one[1], other[1])


def bounded_step(e: Emit, step: tuple[Any, Any], sizes: list[list[Any]], most: int) -> tuple[Any, Any]:
    """``step`` or the larger one with which codes of neither half have magnitudes that add up to more than ``most``,
    16 roundings included."""
    sums = [e.b.fadd(*of_eight(e, values, lambda e, x, y: e.b.fadd(x, y))) for values in sizes]
    return larger_step(e, step_of(e, emit_max(e, *sums), e.const("f32", most - 16.0)), step)


def factors_of(e: Emit, inverse: Any) -> list[Any]:
    """Each lane in all lanes of a <16 x float>."""
    return [e.splat(e.b.extract_element(inverse, ir.Constant(I32, t))) for t in range(inverse.type.count)]


def write_meta(e: Emit, to: Any, d: Any, sums: list[Any], starts: Any, paired: list[Any], scale: Any = None) -> None:
    """The words of a tile's 32 columns: ``sums`` of codes of their halves, <TILE x i32>, times ``d``, and what products
    start with: ``starts_of`` both halves, if any; ``scale``: what stands for ``d`` itself, if not ``d``. ``paired``:
    ``winograd.words_of`` both halves, on machines that have these."""
    b = e.b
    sums = [b.add(*sums), *sums]
    whole = [starts] if starts else [b.sub(e.zero(f"i32x{TILE}"), e.shl(n, 7)) for n in sums]
    e.store(to, 0, d if scale is None else scale)
    for row, n in enumerate(sums, 1):
        e.store(to, 4 * TILE * row, b.fmul(d, b.sitofp(n, llvm_type(f"f32x{TILE}"))))
    for row, start in enumerate(whole, START):
        e.store(to, 4 * TILE * row, start)
    if starts:
        e.store(to, 4 * TILE * TIMES_SUMS, b.mul(starts, e.load(to, 4 * TILE * TIMES, f"i16x{2 * TILE}")))
    for row, value in enumerate(paired):
        e.store(to, 4 * TILE * (PAIRED + row), value)


@intrinsic(prefer_literal=True)
def choose_steps(typingctx, x, meta, levels, n, together):
    """The steps of ``n`` times 32 columns of ``TILE`` tokens, float32 (n, TILE, 32) at ``x``, with ``levels`` as
    ``steps_of`` has them, and what values are multiplied by for codes: the first two words of the meta of each.
    ``together``: of so many they may be whole multiples of one (``fields.TOGETHER``)."""

    def codegen(c, builder, s, args):
        e = Emit(builder, MACHINE)
        source, to, most, n, together = args
        alike = builder.icmp_signed(">", together, e.i64(1))

        def one(i: Any, _: list[Any]) -> list[Any]:
            sizes = sizes_of(e, columns_of(e, e.at(source, i, BYTES)))
            store_step(e, e.at(to, i, META_BYTES), *step_with(e, sizes, most, alike))
            return []

        e.loop(e.i64(0), n, 1, [], one)
        make_alike(e, to, n, alike)
        return c.get_dummy_value()

    return types.void(*[types.int64] * 5), codegen


def store_step(e: Emit, meta: Any, d: Any, inverse: Any) -> None:
    """What ``choose_steps`` leaves."""
    e.store(meta, 0, d)
    e.store(meta, 4 * TILE, inverse)


def load_step(e: Emit, meta: Any) -> tuple[Any, Any]:
    """What ``store_step`` stored."""
    return e.load(meta, 0, f"f32x{TILE}"), e.load(meta, 4 * TILE, f"f32x{TILE}")


def step_with(e: Emit, sizes: list[list[Any]], levels: Any, alike: Any, less: int = 0) -> tuple[Any, Any]:
    """``steps_of`` ``sizes``; where ``alike``, of codes whose magnitudes add up to at most ``MOST_SUM - less``."""
    step = steps_of(e, sizes, levels)
    if not e.machine.narrow:
        return step
    d, inverse = e.choose(alike, lambda: list(bounded_step(e, step, sizes, MOST_SUM - less)), lambda: list(step))
    return d, inverse


def make_alike(e: Emit, meta: Any, n: Any, alike: Any) -> None:
    """Of ``n`` times 32 columns at ``meta``, where ``alike``, steps that are whole multiples of one: ``MOST_TIMES`` of
    it are the largest. All tokens of the tile have as many times their own, which ``fields.UNIT`` says."""
    if not e.machine.narrow:
        return
    b, name = e.b, f"f32x{TILE}"

    def largest_of(i: Any, before: list[Any]) -> list[Any]:
        d, _ = load_step(e, e.at(meta, i, META_BYTES))
        return [emit_max(e, d, before[0]), e.fma(d, e.zero(name), before[1])]  # where one is NaN so is the sum

    with b.if_then(alike):
        peak, odd = e.loop(e.i64(0), n, 1, [e.zero(name)] * 2, largest_of)
        unit, inverse = step_of(e, peak, e.const("f32", float(MOST_TIMES)))
        unit = b.fadd(unit, odd)

        def one(i: Any, _: list[Any]) -> list[Any]:
            at = e.at(meta, i, META_BYTES)
            times = e.call("ceil", b.fmul(load_step(e, at)[0], inverse))
            times = emit_min(e, emit_max(e, times, e.const(name, 1.0)), e.const(name, float(MOST_TIMES)))
            times = e.splat(tree(e, times, partial(emit_max, e)), TILE)
            d = b.fmul(unit, times)
            store_step(e, at, d, emit_inverse(e, e.const(name, 1.0), d))
            number = b.fptosi(times, llvm_type(f"i32x{TILE}"))
            e.store(at, 4 * TILE * TIMES, b.or_(number, e.shl(number, 16)))
            e.store(at, 4 * TILE * UNIT, unit)
            return []

        e.loop(e.i64(0), n, 1, [], one)


@intrinsic(prefer_literal=True)
def quantize_tile(typingctx, x, q, q2, meta, two):
    """32 columns of ``TILE`` tokens, float32 (TILE, 32) at ``x``, as one or two terms of int8, in the steps that
    ``choose_steps`` left at ``meta``; see ``activations``."""
    both = two.literal_value

    def codegen(c, builder, s, args):
        e, b = Emit(builder, MACHINE), builder
        source, first, second, to = args[:4]
        d, inverse = load_step(e, to)
        factors = factors_of(e, inverse)
        steps = [[b.fmul(v, f) for v, f in zip(values, factors, strict=True)] for values in columns_of(e, source)]
        rounded = [[e.rint(v) for v in values] for values in steps]
        fours = turned(e, [[byte_codes(e, v) for v in values] for values in rounded])
        store_groups(e, first, fours)
        sums = sums_of(e, fours)
        if both:
            rest = [[remainder(e, v, r) for v, r in zip(*of, strict=True)] for of in zip(steps, rounded, strict=True)]
            rests = turned(e, [[byte_codes(e, v) for v in values] for values in rest])
            store_groups(e, second, rests)
            sums = [b.add(e.shl(n, 8), more) for n, more in zip(sums, sums_of(e, rests), strict=True)]
            d = b.fmul(d, e.const(f"f32x{TILE}", 1 / 256))
        paired = winograd.words_of(e, fours, TILE) if e.machine.name in PAIR_MACHINES else []
        write_meta(e, to, d, sums, starts_of(e, fours), paired)
        return c.get_dummy_value()

    return types.void(*[types.int64] * 4, two), codegen


def byte_codes(e: Emit, whole: Any) -> Any:
    """Whole numbers as <16 x i8>."""
    return e.b.trunc(e.b.fptosi(whole, llvm_type("i32x16")), llvm_type("i8x16"))


def remainder(e: Emit, value: Any, rounded: Any) -> Any:
    """What rounding left, in steps of 1/256, cut to [-127, 127]."""
    steps = e.rint(e.b.fmul(e.b.fsub(value, rounded), e.const("f32x16", 256.0)))
    return emit_max(e, emit_min(e, steps, e.const("f32x16", 127.0)), e.const("f32x16", -127.0))
