"""One token's two terms of activations as whole numbers of 16 bits, for machines whose dot products are of these.

Where a machine multiplies unsigned bytes of at most 127 (AVX2), signed codes cost it four instructions a term and 32
bytes: a sign for either side, a product, and sums of pairs, since those of full range leave 16 bits at once. Products
of 16-bit numbers take both terms together, exactly: bytes split into even and odd ones are two products and two
additions. GB/s of one core of Zen 4, weights in L2, with bytes and with words: IQ4_NL 16.8 and 24.4, IQ4_XS 14.3 and
20.3, Q8_0 34 and 56. Unsigned codes are faster with bytes.

A table is 32 columns, ``WIDE`` bytes: of four after four the first and the third, then the second and the fourth,
int16 in steps of the second term: ``256 * q + q2``.
"""
from __future__ import annotations

from typing import Any

from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit, llvm_type
from ..simd.vec import MACHINE
from .args import arg, state
from .fields import N_TOKENS, WIDE


def make_wide() -> Any:
    """Tables of one token, every thread for itself. Columns: tables of 32 columns, q, q2, meta, thread stride of q and
    of meta, tables, a thread's share of them, columns."""

    def wide(op, thread, n_threads):
        if state(op, N_TOKENS) == 1:
            q = thread * arg(op, 4)
            write(arg(op, 1) + q, arg(op, 2) + q, arg(op, 6) + thread * arg(op, 7), arg(op, 0))

    return wide


@intrinsic
def write(typingctx, q, q2, out, n32):
    """Tables of ``n32`` times 32 columns to ``out``."""

    def codegen(c, builder, s, a):
        e, words = Emit(builder, MACHINE), llvm_type("i16x32")

        def table(i: Any, carried: Any) -> Any:
            x, x2, to = carried
            one, two = (builder.sext(e.load(at, 0, "i8x32"), words) for at in (x, x2))
            both = builder.add(e.shl(one, 8), two)
            e.store(to, 0, e.shuffle(both, [i // 4 * 4 + (0, 2, 1, 3)[i % 4] for i in range(32)]))
            return [e.at(x, 32), e.at(x2, 32), e.at(to, WIDE)]

        e.loop(e.i64(0), a[3], 1, a[:3], table)
        return c.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


def dot(e: Emit, acc: Any, codes: Any, table: Any, at: int) -> Any:
    """``acc``, <16 x i32>, and the products of unsigned bytes, <64 x i8>, with four columns from byte ``at`` on."""
    return e.dot_wide(acc, codes, *[e.splat_load(table, at + 4 * i, "i32") for i in range(2)])
