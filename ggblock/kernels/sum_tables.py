"""What one token's blocks of 256 columns have in common for all panels, where its first term of activations is enough.

A K-quant's mins (or what its codes are raised by) are multiplied by sums of activations. Of 16 sub-blocks that is a
conversion, a load that repeats a float and a multiply-add each. Here the 16 sums of a block are whole numbers of 16
bits with one scale, as two signed bytes each, so that eight dot products of bytes take the place of all that, exactly.
The sums are rounded to 1/65,024 of the largest, which is far less than a term of 8 bits loses.

A table has ``SUMS`` bytes, a line: 16 upper and 16 lower bytes, int8, ``sum = (256 * upper + lower) * scale``; the
scale, the sum of all 256 columns and the largest scale of the block's activations, float32.
"""
from __future__ import annotations

from functools import partial
from typing import Any

from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit, llvm_type
from ..simd.machines import joined
from ..simd.vec import MACHINE, emit_max, tree
from .args import arg, state, word_stride
from .fields import N_TOKENS, SUMS

STEPS = 127 * 256  # of the largest sum
SCALE, SUM, PEAK = 32, 36, 40  # bytes at which these floats are


def make_sums() -> Any:
    """Tables of one token, every thread for itself. Columns: blocks of 256 columns, q, q2, meta, thread stride of q and
    of meta, tables, a thread's share of them, columns."""

    def sums(op, thread, n_threads):
        if state(op, N_TOKENS) == 1:
            size = word_stride((arg(op, 8) + 31) // 32)
            write(arg(op, 3) + thread * arg(op, 5), size, arg(op, 6) + thread * arg(op, 7), arg(op, 0))

    return sums


@intrinsic
def write(typingctx, meta, size, out, n256):
    """Tables of ``n256`` times 256 columns to ``out``; words of the meta lie ``size`` bytes apart."""

    def codegen(c, builder, s, a):
        e = Emit(builder, MACHINE)
        size = a[1]

        def block(i: Any, carried: Any) -> Any:
            at, to = carried
            _table(e, [e.load(e.at(at, size, word), 0, "f32x8") for word in (0, 5, 6)], to)
            return [e.at(at, 32), e.at(to, SUMS)]

        e.loop(e.i64(0), a[3], 1, [a[0], a[2]], block)
        return c.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


def _table(e: Emit, words: list[Any], to: Any) -> None:
    """Writes the table of a block: its eight scales, then its sums of 16 columns, even ones and odd ones."""
    b, largest = e.b, partial(emit_max, e)
    scales, *halves = words
    sums = e.shuffle(joined(b, halves), [i // 2 + 8 * (i % 2) for i in range(16)])
    peak = tree(e, e.call("fabs", sums), largest)
    step = b.fmul(peak, e.const("f32", 1 / STEPS))
    inverse = b.fdiv(e.const("f32", float(STEPS)), emit_max(e, peak, e.const("f32", 1e-30)))
    whole = b.fptosi(e.rint(b.fmul(sums, e.splat(inverse))), llvm_type("i32x16"))
    upper = b.ashr(b.add(whole, e.const("i32x16", 128)), e.const("i32x16", 8))
    e.store(to, 0, b.trunc(upper, llvm_type("i8x16")))
    e.store(to, 16, b.trunc(whole, llvm_type("i8x16")))
    e.store(to, SCALE, step)
    e.store(to, SUM, b.fmul(b.sitofp(tree(e, whole, b.add), step.type), step))
    e.store(to, PEAK, tree(e, scales, largest))


def weighted(e: Emit, weights: list[Any], table: Any, raised: int = 0) -> Any:
    """The sums of 16 sub-blocks, each times a weight of every row: <16 x float>. ``weights``: those of four sub-blocks
    each, <64 x i8>, at most 127 (255 where the machine takes unsigned bytes of full range), a sub-block's 16 rows after
    the other's; by how much they are raised is taken off again."""
    upper = lower = e.zero("i32x16")
    for i, four in enumerate(weights):
        rows = e.shuffle(four, [16 * (k % 4) + k // 4 for k in range(64)])
        upper = e.dot_us(upper, rows, e.bytes4(table, 4 * i))
        lower = e.dot_us(lower, rows, e.bytes4(table, 16 + 4 * i))
    (whole,) = e.pin([e.b.add(e.shl(upper, 8), lower)])  # now: LLVM would keep what it is made of until it is used
    sums = e.b.fmul(e.i_to_f32(whole), e.splat_load(table, SCALE, "f32"))
    if not raised:
        return sums
    return e.b.fadd(sums, e.splat(e.b.fmul(e.load(table, SUM, "f32"), e.const("f32", -raised))))
