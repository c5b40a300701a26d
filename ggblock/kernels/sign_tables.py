"""One token against weights that are a factor or its negative (``Family.tables`` "1t"), by tables of
sums.

Four bits of a row name one of 16 sums of four activations, each added or subtracted. One instruction looks up what four
bits of each of 64 bytes stand for, 256 weights, and a dot product with ones adds that up: a third of the instructions
that making bytes of bits and multiplying them takes. The sums are those of both terms of the activations, rounded to 8
bits with a scale per 32 columns, which is 1/127 of the largest sum there. So four columns are off by at most half a
step, which is never more than half a step of the first term in each of them.

Machines that look bytes up in tables of 16 need the same byte of all rows together (``q1_0_places``), and add up
numbers of 16 bits. That ends in so many instructions that 64 columns have one scale there. GB/s of one core of Zen 4,
weights in L2, without tables and with them: AVX2 8.7 and 22.2, AVX-512 14.4 and 22.7 (with tables of 64 bytes 40). With
a scale for 32 columns 18.7 and 17.1, for 128 24 and 25.7, but then mean KL of gemma's decode 0.054 instead of 0.029.

Tables of 128 columns: for 32 columns after 32 the sums for the low four bits of a row's bytes, then for the high four,
64 int8 each, 128 higher where tables have 16 bytes; then the four scales, by how much a row is higher for what its
bytes are, and the largest scale of the activations, float32, and room to the next line. Entry
``16 j + n`` belongs to byte ``j`` of a row and bits ``n``: the sum of columns ``8 j .. 8 j + 3`` (high bits: and four
on), those whose bit is 0 negative.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit, llvm_type
from ..simd.machines import joined
from ..simd.vec import MACHINE, emit_max, tree
from .args import arg, state
from .fields import N_TOKENS, TABLED

SCALES = 512  # byte at which the four scales begin
RAISED, PEAK = SCALES + 16, SCALES + 20  # and at which these floats are
#: Bits of a step with which columns are added up before the sum is rounded. Ties go up: with six bits that was 1/128 of
#: a step in every sum, and since all rows had it in common the mean KL of Q1_0 (gemma) 0.26 instead of 0.027.
FRACTION = 16
TOGETHER = 2  # times 32 columns that have a scale in common where tables have 16 bytes


def make_tables() -> Any:
    """Tables of one token: see ``kernel``."""

    def table(e: Emit, terms: tuple[Any, Any], meta: Any, to: Any) -> None:
        for first in (0, 64):
            _columns(e, terms, meta, to, first)
        steps = [e.load(to, SCALES + 4 * k, "f32") for k in range(0, 4, TOGETHER)]
        e.store(to, RAISED, e.b.fmul(reduce(e.b.fadd, steps), e.const("f32", 128.0 * 8 * TOGETHER)))
        e.store(to, PEAK, reduce(partial(emit_max, e), [e.load(meta, 4 * k, "f32") for k in range(4)]))

    return kernel("1t", table)


def kernel(mode: str, table: Callable[[Emit, tuple[Any, Any], Any, Any], None]) -> Any:
    """What writes tables of one token for a mode of ``fields.SLICED``: every thread for itself, or each its share of
    those of all. ``table(e, terms, meta, to)`` emits what writes one. Columns: how many tables, q, q2, meta, thread
    stride of q and of meta, tables, a thread's share of them (0: all threads have the same)."""
    _, columns, size = TABLED[mode]

    @intrinsic
    def write(typingctx, q, q2, meta, out, n):
        """Tables of ``n`` blocks to ``out``."""

        def codegen(c, builder, s, a):
            e = Emit(builder, MACHINE)

            def block(i: Any, carried: Any) -> Any:
                x, x2, m, to = carried
                table(e, (x, x2), m, to)
                return [e.at(x, columns), e.at(x2, columns), e.at(m, columns // 8), e.at(to, size)]

            e.loop(e.i64(0), a[4], 1, a[:4], block)
            return c.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    def tables(op, thread, n_threads):
        if state(op, N_TOKENS) == 1:
            first, end, q = np.int64(0), arg(op, 0), thread * arg(op, 4)
            if arg(op, 7) == 0:
                first, end = arg(op, 0) * thread // n_threads, arg(op, 0) * (thread + 1) // n_threads
            q += columns * first
            meta, out = thread * arg(op, 5) + columns // 8 * first, thread * arg(op, 7) + size * first
            write(arg(op, 1) + q, arg(op, 2) + q, arg(op, 3) + meta, arg(op, 6) + out, end - first)

    return tables


def _columns(e: Emit, terms: tuple[Any, Any], meta: Any, to: Any, first: int) -> None:
    """Writes the tables and scales of 64 columns from ``first`` on: four of them in each of 16 lanes."""
    b, largest = e.b, partial(emit_max, e)
    scales = [e.load(meta, first // 8 + 4 * k, "f32") for k in range(2)]
    d = joined(b, [e.splat(scale, 8) for scale in scales])
    words = [e.load(x, first, "i32x16") for x in terms]
    columns = []
    for j in range(4):
        one, two = (e.ashr(e.shl(word, 24 - 8 * j), 24) for word in words)
        columns.append(b.fmul(e.i_to_f32(b.add(e.shl(one, 8), two)), d))
    sums = reduce(b.fadd, [e.call("fabs", v) for v in columns])
    peaks = [tree(e, e.part(sums, 8 * k, 8), largest) for k in range(2)]
    peaks = peaks if e.machine.lookup64 else [largest(*peaks)] * 2
    inverses = [b.fdiv(e.const("f32", float(127 << FRACTION)), largest(peak, e.const("f32", 1e-30))) for peak in peaks]
    inverse = joined(b, [e.splat(v, 8) for v in inverses])
    x = [b.fptosi(e.rint(b.fmul(v, inverse)), llvm_type("i32x16")) for v in columns]
    raised = e.const("i32x16", (0 if e.machine.lookup64 else 128 << FRACTION) + (1 << FRACTION - 1))
    signed = [[b.sub(e.zero("i32x16"), v), v] for v in x]
    low = [b.add(b.add(raised, signed[0][n % 2]), signed[1][n // 2]) for n in range(4)]
    high = [b.add(signed[2][n % 2], signed[3][n // 2]) for n in range(4)]
    made = entries(e, [b.add(low[n % 4], high[n // 4]) for n in range(16)])
    for table in range(4):  # a half of the bits of four bytes each
        lanes = [8 * (table // 2) + 2 * j + table % 2 for j in range(4)]
        e.store(to, 4 * first + 64 * table, turned(e, made, lanes))
    for k, peak in enumerate(peaks):
        step = b.fmul(peak, e.const("f32", 1 / 127))
        for scale in scales:  # NaN stays NaN, which the largest of several need not be
            step = b.fadd(step, b.fmul(scale, e.const("f32", 0.0)))
        e.store(to, SCALES + first // 8 + 4 * k, step)


def entries(e: Emit, sums: list[Any]) -> list[Any]:
    """16 sums with ``FRACTION`` bits below a step, in each lane, as bytes of four words."""
    words = []
    for first in range(0, 16, 4):
        of_word = [e.shl(e.and_(e.lshr(v, FRACTION), 255), 8 * j) for j, v in enumerate(sums[first : first + 4])]
        words.append(reduce(e.b.or_, of_word))
    return words


def turned(e: Emit, words: list[Any], lanes: list[int]) -> Any:
    """Entries of four ``lanes`` as four tables of 16 bytes, <64 x i8>."""
    four = [e.shuffle(word, lanes) for word in words]
    pairs = [e.b.shuffle_vector(*four[k : k + 2], e.lanes(range(8))) for k in (0, 2)]
    return e.bitcast(e.b.shuffle_vector(*pairs, e.lanes([4 * (n % 4) + n // 4 for n in range(16)])), "i8x64")


def block(e: Emit, fam: Any, p: Any, table: Any, total: Any) -> Any:
    """``total`` and what one panel block adds; ``table``: those of its columns."""
    added = (_by_words if e.machine.lookup64 else _by_bytes)(e, fam, p, table)
    return e.fma(added, e.half_load(p, 0), total)


def _by_words(e: Emit, fam: Any, p: Any, table: Any) -> Any:
    """The sums of a block, <16 x float>: all four bytes of a row by one table of 64."""
    ones, place, added = e.const("i8x64", 1), e.bytes([16 * (i % 4) for i in range(64)]), e.zero("f32x16")
    for s in range(fam.block // 32):
        e.order()  # memory is read forward: see the head of ``matmul``
        signs, value = fam.signs(e, p, s), e.zero("i32x16")
        for half in range(2):
            index = e.b.or_(e.bytes_lshr(signs, 4 * half, 15), place)
            value = e.dot_us(value, ones, e.lookup64(e.load(table, 128 * s + 64 * half, "i8x64"), index))
        added = e.fma(e.i_to_f32(value), e.splat_load(table, SCALES + 4 * s, "f32"), added)
    return added


def _by_bytes(e: Emit, fam: Any, p: Any, table: Any) -> Any:
    """The same by tables of 16: first all rows' bytes of one place are brought together. What is looked up is 128
    higher. It is added up as numbers of 16 bits: the second of two bytes alone, and both as they are, of which the
    second is then taken off."""
    nothing, rows = [e.zero(f"i16x{2 * e.machine.lanes}")] * 2, [e.splat(e.b.fneg(e.load(table, RAISED, "f32")), 8)] * 2
    for first in range(0, fam.block // 32, TOGETHER):
        sums = nothing
        for s in range(first, first + TOGETHER):
            e.order()
            bytes_of_all = fam.places_of_bytes(e, p, s)
            for half in range(2):
                entries = e.load(table, 128 * s + 64 * half, "i8x64")
                sums = added(e, sums, e.lookup_rows(entries, e.bytes_lshr(bytes_of_all, 4 * half, 15)))
            sums = e.pin(sums)
        rows = e.pin(scaled(e, sums, e.splat_load(table, SCALES + 4 * first, "f32", 8), rows))
    return in_order(e, rows, fam.place_rows)


def added(e: Emit, sums: list[Any], found: Any) -> list[Any]:
    """``sums``, of pairs of bytes as numbers of 16 bits and of the second bytes alone, and ``found``, register after
    register."""
    both, second = sums
    pairs = e.bitcast(found, f"i16x{found.type.count // 2}")
    for first in range(0, pairs.type.count, both.type.count):
        part = e.part(pairs, first, both.type.count)
        both, second = e.b.add(both, part), e.b.add(second, e.lshr(part, 8))
    return [both, second]


def scaled(e: Emit, sums: list[Any], scale: Any, rows: list[Any]) -> list[Any]:
    """``rows``, those of first bytes and of second ones, each <8 x float>, and times ``scale`` what ``added`` has made
    of bytes of 16 rows, place by place."""
    both, second = sums
    made = []
    for v, row in zip((e.b.sub(both, e.shl(second, 8)), second), rows, strict=True):
        while (half := v.type.count // 2) >= 8:
            v = e.b.add(e.part(v, 0, half), e.part(v, half, half))
        made.append(e.fma(e.i_to_f32(v), scale, row))
    return made


def in_order(e: Emit, rows: list[Any], order: Sequence[int]) -> Any:
    """``rows`` as <16 x float>: bytes lie in ``order``."""
    at = [order.index(row) for row in range(16)]
    return e.shuffle(joined(e.b, rows), [i // 2 + 8 * (i % 2) for i in at])
