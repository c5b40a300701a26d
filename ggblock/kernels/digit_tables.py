"""One token against base-3 digits (``Family.tables`` "1d", ``tq1_0_threes``), by tables of sums of activations.

A number of three digits stands for the sum of three columns, each added, taken off or neither; its negative for the
same with the other sign. So one lookup in 16 bytes takes the place of three digits and their products. The sums are
those of both terms of the activations, rounded to 8 bits with one scale for 48 columns, to whole steps and a half, so
that the complement of a byte is its negative. GB/s of one core of Zen 4, weights in L2, TQ1_0 and this (for 1.037 times
the bytes): AVX2 12.0 and 22.3, AVX-VNNI 13.4 and 22.3, AVX-512 17.5 and 20.3.

Mean KL of decode to float activations, TQ1_0 of gemma-3-270m and SmolLM2: 0.085 and 0.060, of llama.cpp's 0.472 and
0.303; one scale for 256 columns 0.305 and 0.318, one term of int8 products 0.039 and 0.010, at half the speed.

A table of 256 columns: for each part of 48, for four bytes after four of a row, the sums of the numbers in their lower
halves, then in their upper ones, 16 bytes each, 127.5 higher; for the last part those of its four numbers and of its
two pairs; then six scales, by how much a row is higher for what its bytes are, and the largest scale of the
activations, float32.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

from ..simd.emit import Emit, llvm_type
from ..simd.machines import joined
from ..simd.vec import emit_max, tree
from .sign_tables import FRACTION, added, entries, in_order, kernel, scaled, turned
from .tq1_0_threes import PART_BYTES, PARTS, REST, THREES, TWOS

OF_REST, OF_TWOS = 256 * PARTS, 256 * PARTS + 64  # bytes at which the tables of the last part begin
SCALES = 256 * PARTS + 96  # bytes at which the six scales, float32, begin
RAISED, PEAK = SCALES + 4 * (PARTS + 1), SCALES + 4 * (PARTS + 2)  # and at which these floats are
LOOKUPS = [16] * PARTS + [6]  # of a row in each part


def make_digits() -> Any:
    """Tables of one token: see ``sign_tables.kernel``."""
    return kernel("1d", _table)


def _table(e: Emit, terms: tuple[Any, Any], meta: Any, to: Any) -> None:
    """Writes the table of a block."""
    b, largest = e.b, partial(emit_max, e)
    scales = [e.load(meta, 4 * k, "f32") for k in range(8)]
    x = [_floats(e, terms, 16 * i, scales[i // 2]) for i in range(16)]
    for part in range(PARTS):
        steps = _steps(e, x[3 * part : 3 * part + 3], lambda v: reduce(b.fadd, v), to, part)
        words = _entries(e, steps, THREES)
        for line in range(4):  # numbers 4 * line and on: the lower halves of eight bytes, then the upper ones
            lanes = [4 * line + i for i in range(4)]
            e.store(to, 256 * part + 128 * (line % 2) + 64 * (line // 2), turned(e, words, lanes))
    (last,) = _steps(e, x[15:], lambda v: _sums_of_rest(e, v[0]), to, PARTS)
    fours = [e.part(last, 4 * n, 4) for n in range(4)]
    e.store(to, OF_REST, turned(e, _entries(e, fours[:3], THREES), [0, 1, 2, 3]))
    pairs = [e.shuffle(fours[3], [n, 2 + n, n, 2 + n]) for n in range(2)]
    e.store(to, OF_TWOS, e.part(turned(e, _entries(e, pairs, TWOS), [0, 1, 2, 3]), 0, 32))
    raised = e.const("f32", 0.0)
    for scale in scales:  # NaN stays NaN, which the largest of several need not be
        raised = b.fadd(raised, b.fmul(scale, e.const("f32", 0.0)))
    for part, n in enumerate(LOOKUPS):
        raised = e.fma(e.load(to, SCALES + 4 * part, "f32"), e.const("f32", 127.5 * n), raised)
    e.store(to, RAISED, raised)
    e.store(to, PEAK, reduce(largest, scales))


def _sums_of_rest(e: Emit, x: Any) -> Any:
    """Sums of three of the first 12 of 16 columns, and of two of the others: <4 x float>."""
    fours = [e.part(x, 4 * n, 4) for n in range(4)]
    return emit_max(e, reduce(e.b.fadd, fours[:3]), e.b.fadd(fours[3], e.shuffle(fours[3], [1, 0, 3, 2])))


def _steps(e: Emit, columns: list[Any], sums: Callable[[list[Any]], Any], to: Any, part: int) -> list[Any]:
    """Columns of a part in steps of its tables, each <16 x i32> with ``FRACTION`` bits below one; writes its scale."""
    b = e.b
    peak = tree(e, sums([e.call("fabs", v) for v in columns]), partial(emit_max, e))
    e.store(to, SCALES + 4 * part, b.fmul(peak, e.const("f32", 1 / 127)))
    inverse = e.splat(b.fdiv(e.const("f32", float(127 << FRACTION)), emit_max(e, peak, e.const("f32", 1e-30))))
    return [b.fptosi(e.rint(b.fmul(v, inverse)), llvm_type("i32x16")) for v in columns]


def _floats(e: Emit, terms: tuple[Any, Any], at: int, scale: Any) -> Any:
    """16 activations of both terms, <16 x float>."""
    one, two = (e.b.sext(e.load(x, at, "i8x16"), llvm_type("i32x16")) for x in terms)
    return e.b.fmul(e.i_to_f32(e.b.add(e.shl(one, 8), two)), e.splat(scale))


def _entries(e: Emit, columns: list[Any], digits: list[tuple[int, ...]]) -> list[Any]:
    """For a number in each lane, whose digits multiply ``columns``, its 16 entries as bytes of four words.

    A token suffers more by errors that all rows have in common than by random ones (``sign_tables.FRACTION``). So of
    numbers of two digits, which have no signs, negative ones are off by as much the other way, and zero by turns.
    """
    count, up = columns[0].type.count, 128 << FRACTION
    less = 4 if len(digits) == 2 else 0  # numbers of two that are negative

    def total(n: int) -> Any:
        downs = [i % 2 if less and n == less else int(n < less) for i in range(count)]
        value = e.lanes([up - down for down in downs])
        for v, of in zip(columns, digits, strict=True):
            value = e.b.add(value, v) if of[n] > 1 else value if of[n] else e.b.sub(value, v)
        return value

    return entries(e, [total(n) for n in range(16)])


def block(e: Emit, fam: Any, p: Any, table: Any, total: Any) -> Any:
    """``total`` and what one panel block adds; ``table``: that of its columns."""
    b, zero, nothing = e.b, e.zero("i8x64"), [e.zero(f"i16x{2 * e.machine.lanes}")] * 2
    rows = [e.splat(b.fneg(e.load(table, RAISED, "f32")), 8)] * 2
    for part in range(PARTS):
        sums = nothing
        e.order()  # memory is read forward: see the head of ``matmul``
        signs = e.load(p, 16 * (2 + PART_BYTES * part), "i8x32")
        signs = joined(b, [signs, e.bitcast(e.shl(e.bitcast(signs, "i16x16"), 4), "i8x32")])
        for half in range(2):
            numbers = e.load(p, 16 * (4 + PART_BYTES * part + 4 * half), "i8x64")
            for n in range(2):
                entries = e.load(table, 256 * part + 128 * half + 64 * n, "i8x64")
                found = e.lookup_rows(entries, e.bytes_lshr(numbers, 4 * n, 15))
                sums = added(e, sums, b.xor(found, b.sext(b.icmp_signed("<", signs, zero), zero.type)))
                sums, (signs,) = e.pin(sums), e.pin([b.add(signs, signs)])
        rows = e.pin(scaled(e, sums, e.splat_load(table, SCALES + 4 * part, "f32", 8), rows))
    e.order()
    both = e.load(p, 16 * REST, "i8x32")
    numbers = joined(b, [both, e.bitcast(e.lshr(e.bitcast(both, "i16x16"), 4), "i8x32")])
    bits = e.bytes([0x80 >> i // 16 for i in range(64)])
    signs = b.and_(joined(b, [e.load(p, 16 * (REST + 2), "i8x16")] * 4), bits)
    found = e.lookup_rows(e.load(table, OF_REST, "i8x64"), e.and_(numbers, 15))
    sums = added(e, nothing, b.xor(found, b.sext(b.icmp_unsigned("==", signs, bits), zero.type)))
    twos = e.load(p, 16 * (REST + 3), "i8x16")
    twos = joined(b, [twos, e.bitcast(e.lshr(e.bitcast(twos, "i16x8"), 4), "i8x16"), *[e.zero("i8x16")] * 2])
    entries = joined(b, [e.load(table, OF_TWOS, "i8x32"), e.zero("i8x32")])
    found = e.lookup_rows(entries, e.and_(twos, 15))
    sums = added(e, sums, found if e.machine.lanes == 16 else e.part(found, 0, 32))
    rows = scaled(e, sums, e.splat_load(table, SCALES + 4 * PARTS, "f32", 8), rows)
    return e.fma(in_order(e, rows, range(16)), e.half_load(p, 0), total)
