"""One token against weights that are a factor or its negative (``Family.is_signs``), by tables of sums.

Four bits of a row name one of 16 sums of four activations, each added or subtracted. One instruction looks up what four
bits of each of 64 bytes stand for, 256 weights, and a dot product with ones adds that up: a third of the instructions
that making bytes of bits and multiplying them takes. The sums are those of both terms of the activations, rounded to 8
bits with a scale per 32 columns, which is 1/127 of the largest sum there. So four columns are off by at most half a
step, which is never more than half a step of the first term in each of them.

Tables of 128 columns: for 32 columns after 32 the sums for the low four bits of a row's bytes, then for the high four,
64 int8 each; then the four scales, float32, and room to the next line. Entry ``16 j + n`` belongs to byte ``j`` of a
row and bits ``n``: the sum of columns ``8 j .. 8 j + 3`` (high bits: and four on), those whose bit is 0 negative.
"""
from __future__ import annotations

from functools import partial
from typing import Any

from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit, llvm_type
from ..simd.vec import MACHINE, emit_max, tree
from .args import arg, state
from .fields import N_TOKENS, TABLES

SCALES = 512  # byte at which the four scales begin


def make_tables() -> Any:
    """Tables of one token, every thread for itself. Columns: blocks of 128 columns, q, q2, meta, thread stride of q and
    of meta, tables, a thread's share of them."""

    def tables(op, thread, n_threads):
        if state(op, N_TOKENS) == 1:
            q = thread * arg(op, 4)
            write(arg(op, 1) + q, arg(op, 2) + q, arg(op, 3) + thread * arg(op, 5), arg(op, 6) + thread * arg(op, 7),
                  arg(op, 0))  # fmt: skip

    return tables


@intrinsic
def write(typingctx, q, q2, meta, out, n128):
    """Tables of ``n128`` times 128 columns to ``out``."""

    def codegen(c, builder, s, a):
        e = Emit(builder, MACHINE)

        def block(i: Any, carried: Any) -> Any:
            x, x2, m, to = carried
            for k in range(4):
                scale = _columns(e, (x, x2), 32 * k, to, 128 * k)
                e.store(to, SCALES + 4 * k, e.b.fmul(scale, e.load(m, 4 * k, "f32")))
            return [e.at(x, 128), e.at(x2, 128), e.at(m, 16), e.at(to, TABLES)]

        e.loop(e.i64(0), a[4], 1, a[:4], block)
        return c.get_dummy_value()

    return types.void(*[types.int64] * 5), codegen


def _columns(e: Emit, terms: tuple[Any, ...], at: int, to: Any, place: int) -> Any:
    """Writes the tables of 32 columns to byte ``place`` of ``to``; returns their scale in steps of the second term."""
    b, zero, ones = e.b, e.zero("i32x16"), e.const("i8x64", 1)
    twice = e.bytes([2 * (i // 4 >> i % 4 & 1) for i in range(64)])
    sums = []
    for first in (0, 4):
        for j in range(4):
            fours = [e.bytes4(x, at + 8 * j + first) for x in terms]
            one, two = [b.sub(e.dot_us(zero, twice, x), e.dot_us(zero, ones, x)) for x in fours]
            sums.append(b.sitofp(b.add(e.shl(one, 8), two), llvm_type("f32x16")))
    largest = sums[0]  # of both signs: what is a sum has its negative beside it
    for v in sums[1:]:
        largest = emit_max(e, largest, v)
    peak = tree(e, largest, partial(emit_max, e))
    inverse = b.fdiv(e.const("f32", 127.0), emit_max(e, peak, e.const("f32", 1.0)))
    steps = [b.fptosi(e.rint(b.fmul(v, e.splat(inverse))), llvm_type("i32x16")) for v in sums]
    entry = [i // 16 + 4 * (i % 16) for i in range(64)]
    for half in range(2):
        table = zero
        for j, v in enumerate(steps[4 * half : 4 * half + 4]):
            table = b.or_(table, e.shl(e.and_(v, 0xFF), 8 * j))
        e.store(to, place + 64 * half, e.shuffle(e.bitcast(table, "i8x64"), entry))
    return b.fmul(peak, e.const("f32", 1 / 127))


def block(e: Emit, fam: Any, p: Any, table: Any, total: Any) -> Any:
    """``total`` and what one panel block adds; ``table``: those of its columns."""
    b, ones, place = e.b, e.const("i8x64", 1), e.bytes([16 * (i % 4) for i in range(64)])
    factor, added = e.half_load(p, 0), e.zero("f32x16")
    for s in range(fam.block // 32):
        e.order()  # memory is read forward: see the head of ``matmul``
        signs, value = fam.signs(e, p, s), e.zero("i32x16")
        for half in range(2):
            index = b.or_(e.bytes_lshr(signs, 4 * half, 15), place)
            sums = e.lookup64(e.load(table, 128 * s + 64 * half, "i8x64"), index)
            value = e.dot_us(value, ones, sums)
        added = e.fma(b.sitofp(value, added.type), e.splat_load(table, SCALES + 4 * s, "f32"), added)
    return e.fma(added, factor, total)

