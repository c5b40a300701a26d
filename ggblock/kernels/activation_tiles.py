"""Int8 activations of a whole tile of tokens at once: what ``activation_blocks`` does for one token, to the bit.

Lanes are tokens where a token has one number: scales and sums of 8 tokens take the instructions of one. Codes are
turned by shuffles into the order of the layout, where 4 columns of one token are followed by those of the next. Half
the time of one token after the other.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import I32, Emit, llvm_type
from ..simd.host import PAIR_MACHINES
from ..simd.machines import MACHINES, joined
from ..simd.vec import MACHINE, emit_inverse, emit_max, emit_min
from . import winograd
from .fields import MOST_LEVELS, PAIRED

TILE = MACHINES[MACHINE].tile_tokens
BYTES = 128 * TILE  # of 32 float32 columns of a tile


def largest(e: Emit, vectors: list[Any]) -> Any:
    """The largest lane of each of n <16 x float>, as <n x float>; n is a multiple of four."""
    return emit_max(e, *largest_of_eight(e, vectors))


def largest_of_eight(e: Emit, vectors: list[Any]) -> list[Any]:
    """The largest of the first and of the last eight lanes of each of n <16 x float>, <n x float> each.

    Two vectors are folded into one inside every 128 bits, twice: then each 128 bits hold one lane of four of them.
    """
    n = len(vectors)
    for _ in range(2):
        folded = []
        for x, y in zip(vectors[::2], vectors[1::2], strict=True):
            both, even = joined(e.b, [x, y]), [i + j for i in range(0, 16, 4) for j in (0, 2, 16, 18)]
            folded.append(emit_max(e, e.shuffle(both, even), e.shuffle(both, [i + 1 for i in even])))
        vectors = folded
    flat, found = joined(e.b, vectors), []
    for half in range(2):
        at = [16 * v + 8 * half + i for v in range(n // 4) for i in range(4)]
        found.append(emit_max(e, e.shuffle(flat, at), e.shuffle(flat, [i + 4 for i in at])))
    return found


def columns_of(e: Emit, source: Any) -> list[list[Any]]:
    """32 columns of ``TILE`` tokens, float32 (TILE, 32) at ``source``: both halves by token, <16 x float> each."""
    return [[e.load(source, 128 * t + 64 * i, "f32x16") for t in range(TILE)] for i in range(2)]


def turned(e: Emit, codes: list[Any]) -> list[Any]:
    """16 columns of all tokens, ``codes`` by token (<16 x i8>), as (4 groups, TILE, 4), <64 x i8> each."""
    words = joined(e.b, [e.bitcast(v, "i32x4") for v in codes])
    words = e.shuffle(words, [4 * t + g for g in range(4) for t in range(TILE)])
    return [e.bitcast(e.part(words, i, 16), "i8x64") for i in range(0, 4 * TILE, 16)]


def store_half(e: Emit, to: Any, i: int, parts: list[Any]) -> None:
    """Half ``i`` of 32 columns, as ``turned`` returned it."""
    for at, part in enumerate(parts):
        e.store(to, 16 * TILE * i + 64 * at, part)


def folded(e: Emit, value: Any, n: int) -> Any:
    """A vector's lanes added up into ``n``, those that are ``n`` apart."""
    while value.type.count > n:
        half = value.type.count // 2
        value = e.b.add(e.part(value, 0, half), e.part(value, half, half))
    return value


def sums_of(e: Emit, parts: list[Any]) -> Any:
    """Sums of the codes of 16 columns by token, <TILE x i32>, from what ``turned`` returned."""
    total = e.zero("i32x16")
    for part in parts:
        total = e.dot_us(total, e.const("i8x64", 1), part)
    return folded(e, total, TILE)


def pairs_of(e: Emit, parts: list[Any]) -> Any:
    """Of 16 columns by token the sums of every first and second of four and of every third and fourth, int16 beside
    each other, negative: <2 TILE x i16>, from what ``turned`` returned."""
    assert e.machine.narrow and TILE == 4
    (part,) = parts
    sums = e.machine.narrow[0](e.b, e.zero("i16x32"), e.const("i8x64", 1), part)
    return e.b.sub(e.zero(f"i16x{2 * TILE}"), folded(e, sums, 2 * TILE))


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
    first, last = largest_of_eight(e, apart)
    paired, others = step_of(e, first, fewer), step_of(e, last, most)
    larger = e.b.fcmp_ordered(">", paired[0], others[0])
    return e.b.select(larger, paired[0], others[0]), e.b.select(larger, paired[1], others[1])


def factors_of(e: Emit, inverse: Any) -> list[Any]:
    """Each lane in all lanes of a <16 x float>."""
    return [e.splat(e.b.extract_element(inverse, ir.Constant(I32, t))) for t in range(inverse.type.count)]


def write_meta(
    e: Emit, to: Any, d: Any, sums: list[Any], pairs: list[Any], paired: list[Any], scale: Any = None
) -> None:
    """The words of a tile's 32 columns: ``sums`` of codes of their halves, <TILE x i32>, times ``d``, and what products
    start with; ``scale``: what stands for ``d`` itself, if not ``d``. ``paired``: ``winograd.words_of`` both halves, on
    machines that have these."""
    b = e.b
    sums = [b.add(*sums), *sums]
    starts = [b.add(*pairs), *pairs] if pairs else [b.sub(e.zero(f"i32x{TILE}"), e.shl(n, 7)) for n in sums]
    e.store(to, 0, d if scale is None else scale)
    for row, (n, start) in enumerate(zip(sums, starts, strict=True), 1):
        e.store(to, 4 * TILE * row, b.fmul(d, b.sitofp(n, llvm_type(f"f32x{TILE}"))))
        e.store(to, 4 * TILE * (row + 3), start)
    for row, value in enumerate(paired):
        e.store(to, 4 * TILE * (PAIRED + row), value)


@intrinsic(prefer_literal=True)
def quantize_tile(typingctx, x, q, q2, meta, levels, two):
    """32 columns of ``TILE`` tokens, float32 (TILE, 32) at ``x``, as one or two terms of int8, with ``levels`` as
    ``steps_of`` has them; see ``activations``."""
    both = two.literal_value

    def codegen(c, builder, s, args):
        e, b = Emit(builder, MACHINE), builder
        source, first, second, to, most = args[:5]
        halves = columns_of(e, source)
        d, inverse = steps_of(e, [[e.call("fabs", v) for v in values] for values in halves], most)
        factors, sums, rests, pairs, fours = factors_of(e, inverse), [], [], [], []
        for i, values in enumerate(halves):
            steps = [b.fmul(v, f) for v, f in zip(values, factors, strict=True)]
            rounded = [e.rint(v) for v in steps]
            parts = turned(e, [byte_codes(e, v) for v in rounded])
            store_half(e, first, i, parts)
            sums.append(sums_of(e, parts))
            if e.machine.narrow:
                pairs.append(pairs_of(e, parts))
            fours.append(parts)
            if both:
                rest = [byte_codes(e, remainder(e, v, r)) for v, r in zip(steps, rounded, strict=True)]
                parts = turned(e, rest)
                store_half(e, second, i, parts)
                rests.append(sums_of(e, parts))
        if both:
            sums = [b.add(e.shl(n, 8), rest) for n, rest in zip(sums, rests, strict=True)]
            d = b.fmul(d, e.const(f"f32x{TILE}", 1 / 256))
        paired = winograd.words_of(e, fours, TILE) if e.machine.name in PAIR_MACHINES else []
        write_meta(e, to, d, sums, pairs, paired)
        return c.get_dummy_value()

    return types.void(*[types.int64] * 5, two), codegen


def byte_codes(e: Emit, whole: Any) -> Any:
    """Whole numbers as <16 x i8>."""
    return e.b.trunc(e.b.fptosi(whole, llvm_type("i32x16")), llvm_type("i8x16"))


def remainder(e: Emit, value: Any, rounded: Any) -> Any:
    """What rounding left, in steps of 1/256, cut to [-127, 127]."""
    steps = e.rint(e.b.fmul(e.b.fsub(value, rounded), e.const("f32x16", 256.0)))
    return emit_max(e, emit_min(e, steps, e.const("f32x16", 127.0)), e.const("f32x16", -127.0))
