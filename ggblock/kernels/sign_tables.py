"""One token against weights that are a factor or its negative (``Family.is_signs``), by tables of sums.

Four bits of a row name one of 16 sums of four activations, each added or subtracted. One instruction looks up what four
bits of each of 64 bytes stand for, 256 weights, and a dot product with ones adds that up: a third of the instructions
that making bytes of bits and multiplying them takes. The sums are those of both terms of the activations, rounded to 8
bits with a scale per 32 columns, which is 1/127 of the largest sum there. So four columns are off by at most half a
step, which is never more than half a step of the first term in each of them.

Machines that look bytes up in tables of 16 bring the same byte of all rows together first, and add up numbers of 16
bits. That ends in so many instructions that all 128 columns of a block have one scale there. GB/s of one core of Zen 4,
weights in L2, without tables and with them: AVX2 8.7 and 19.1, AVX-512 14.4 and 24.5 (with tables of 64 bytes 40).

Tables of 128 columns: for 32 columns after 32 the sums for the low four bits of a row's bytes, then for the high four,
64 int8 each, 128 higher where tables have 16 bytes; then the four scales, float32, and room to the next line. Entry
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
from ..simd.machines import MACHINES, joined
from ..simd.vec import MACHINE, emit_max, tree
from .args import arg, state
from .fields import N_TOKENS, TABLED

SCALES = 512  # byte at which the four scales begin


def make_tables() -> Any:
    """Tables of one token: see ``kernel``."""
    each = 1 if MACHINES[MACHINE].lookup64 else 4  # of the 32 columns that have a scale in common

    def table(e: Emit, terms: tuple[Any, Any], meta: Any, to: Any) -> None:
        for k in range(0, 4, each):
            _columns(e, terms, meta, to, range(k, k + each))

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


def _columns(e: Emit, terms: tuple[Any, ...], meta: Any, to: Any, units: range) -> None:
    """Writes the tables and scales of ``units``, each 32 columns, whose sums have the largest in common."""
    b, zero, ones = e.b, e.zero("i32x16"), e.const("i8x64", 1)
    twice = e.bytes([2 * (i // 4 >> i % 4 & 1) for i in range(64)])
    sums, scales = [], [e.load(meta, 4 * unit, "f32") for unit in units]
    for unit, scale in zip(units, scales, strict=True):
        d = e.splat(scale)
        for at in (32 * unit + 8 * j + first for first in (0, 4) for j in range(4)):
            fours = [e.bytes4(x, at) for x in terms]
            one, two = [b.sub(e.dot_us(zero, twice, x), e.dot_us(zero, ones, x)) for x in fours]
            sums.append(b.fmul(e.i_to_f32(b.add(e.shl(one, 8), two)), d))
    largest = reduce(partial(emit_max, e), sums)  # of both signs: what is a sum has its negative beside it
    peak = tree(e, largest, partial(emit_max, e))
    inverse = b.fdiv(e.const("f32", 127.0), emit_max(e, peak, e.const("f32", 1e-30)))
    steps = [b.fptosi(e.rint(b.fmul(v, e.splat(inverse))), llvm_type("i32x16")) for v in sums]
    entry = [i // 16 + 4 * (i % 16) for i in range(64)]
    for half in range(2 * len(units)):
        table = zero
        for j, v in enumerate(steps[4 * half : 4 * half + 4]):
            table = b.or_(table, e.shl(e.and_(v, 0xFF), 8 * j))
        table = e.shuffle(e.bitcast(table, "i8x64"), entry)
        table = table if e.machine.lookup64 else b.xor(table, e.const("i8x64", -128))
        e.store(to, 128 * units[0] + 64 * half, table)
    step = b.fmul(peak, e.const("f32", 1 / 127))
    for scale in scales:  # NaN stays NaN, which the largest of several need not be
        step = b.fadd(step, b.fmul(scale, e.const("f32", 0.0)))
    for unit in units:
        e.store(to, SCALES + 4 * unit, step)


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
    b, n_units = e.b, fam.block // 32
    sums = [e.zero(f"i16x{2 * e.machine.lanes}")] * 2
    for s in range(n_units):
        e.order()
        bytes_of_all = fam.places_of_bytes(e, p, s)
        for half in range(2):
            entries = e.load(table, 128 * s + 64 * half, "i8x64")
            sums = added(e, sums, e.lookup_rows(entries, e.bytes_lshr(bytes_of_all, 4 * half, 15)))
        sums = e.pin(sums)
    value = b.sub(of_rows(e, *sums, fam.place_rows), e.const("i32x16", 128 * 8 * n_units))
    return b.fmul(e.i_to_f32(value), e.splat_load(table, SCALES, "f32"))


def added(e: Emit, sums: list[Any], found: Any) -> list[Any]:
    """``sums``, of pairs of bytes as numbers of 16 bits and of the second bytes alone, and ``found``, register after
    register."""
    both, second = sums
    pairs = e.bitcast(found, f"i16x{found.type.count // 2}")
    for first in range(0, pairs.type.count, both.type.count):
        part = e.part(pairs, first, both.type.count)
        both, second = e.b.add(both, part), e.b.add(second, e.lshr(part, 8))
    return [both, second]


def of_rows(e: Emit, both: Any, second: Any, order: Sequence[int]) -> Any:
    """The sums of 16 rows, <16 x i32>, of what ``added`` has made of bytes of 16 rows in ``order``, place by place."""
    at = [order.index(row) for row in range(16)]
    rows = e.shuffle(joined(e.b, apart(e, both, second)), [i // 2 + 8 * (i % 2) for i in at])
    return e.b.zext(rows, e.zero("i32x16").type)


def apart(e: Emit, both: Any, second: Any) -> list[Any]:
    """The sums of first bytes and of second ones, each <8 x i16>."""
    rows = []
    for v in (e.b.sub(both, e.shl(second, 8)), second):
        while (half := v.type.count // 2) >= 8:
            v = e.b.add(e.part(v, 0, half), e.part(v, half, half))
        rows.append(v)
    return rows
