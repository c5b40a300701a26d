"""The microkernel of both products of attention: a few rows of A times panels of 16 columns of B, summed in registers.

``outer`` multiplies floats; ``outer_words`` pairs of whole numbers of 16 bits (``attention_words``), whose sums become
floats at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit
from ..simd.machines import MACHINES
from ..simd.vec import MACHINE

F = "f32x16"


def chains_of(rows: int, panels: int) -> int:
    """Independent sums of one result, so that few rows do not wait for the adder: 8 registers hide its 4 cycles; where
    a vector takes several registers 12, which leaves 4 of 16 for operands (two sums a row of 4 spilled on AVX2: 30 %
    slower)."""
    lanes = MACHINES[MACHINE].lanes
    return max(1, (8 if lanes == 16 else 12) * lanes // (16 * rows * panels))


def _sums(
    e: Emit, a: Any, b: Any, n: Any, *, a_stride: int, step: int, rows: int, panels: int, chains: int, far: int,
    operand: Callable[[Any, int, int], Any], kind: str, multiply: Callable[[Any, Any, Any], Any],
    add: Callable[[Any, Any], Any], start: list[Any],
) -> list[Any]:  # fmt: skip
    """Sums of ``n`` steps (a multiple of 8), by row and panel. ``operand(at, k, j)``: step ``k`` of panel ``j`` of B;
    ``kind``: of an element of A; ``multiply(sum, a, b)``; ``add``: of two chains; ``start``: all chains of each."""
    line = max(1, 64 // step)

    def body(i: Any, v: Any) -> Any:
        pa, pb, sums = v[0], v[1], list(v[2:])
        for k in range(8):
            if far:
                e.order()  # loads in the order of memory, as for weights (``matmul``): a tenth faster
                if k % line == 0:
                    e.prefetch(pb, k * step + far, 2)
            w = [operand(pb, k, j) for j in range(panels)]
            for row in range(rows):
                x = e.splat_load(pa, row * a_stride + 4 * k, kind)
                for j in range(panels):
                    at = (row * panels + j) * chains + k % chains
                    sums[at] = multiply(sums[at], x, w[j])
        return [e.at(pa, 32), e.at(pb, 8 * step), *sums]

    sums = e.loop(e.i64(0), n, 8, [a, b, *start], body)[2:]
    return [reduce(add, sums[i : i + chains]) for i in range(0, len(sums), chains)]


@intrinsic(prefer_literal=True)
def outer(typingctx, a, a_stride, b, b_step, b_apart, panels, kind, n, c, c_stride, rows, add, ahead):
    """``C[rows, 16 * panels] (+)= A[rows, n] @ B[n, 16 * panels]``.

    A and C are float32, rows ``a_stride`` and ``c_stride`` bytes apart. Step ``k`` of B is ``b_step`` bytes after the
    one before; its panels of 16 are ``b_apart`` bytes apart; ``kind`` is "f16" or "f32". ``n`` is a multiple of 8; all
    but ``n`` and the addresses are literals. ``ahead``: bytes ahead of B to prefetch into the second-level cache, or 0.
    """
    sa, sb, apart, p, sc, r = (v.literal_value for v in (a_stride, b_step, b_apart, panels, c_stride, rows))
    what, keep, far = kind.literal_value, add.literal_value, ahead.literal_value
    sig = types.void(
        types.int64,
        a_stride,
        types.int64,
        b_step,
        b_apart,
        panels,
        kind,
        types.int64,
        types.int64,
        c_stride,
        rows,
        add,
        ahead,
    )
    chains = chains_of(r, p)

    def codegen(c_, builder, s, args):
        e = Emit(builder, MACHINE)
        out, start = args[8], []
        for row in range(r):
            for j in range(p):
                first = e.load(out, row * sc + 64 * j, F) if keep else e.zero(F)
                start += [first] + [e.zero(F)] * (chains - 1)

        def operand(pb: Any, k: int, j: int) -> Any:
            at = k * sb + j * apart
            return e.half_load(pb, at) if what == "f16" else e.load(pb, at, F)

        found = _sums(
            e, args[0], args[2], args[7], a_stride=sa, step=sb, rows=r, panels=p, chains=chains, far=far,
            operand=operand, kind="f32", multiply=lambda total, x, w: e.fma(x, w, total),
            add=builder.fadd, start=start,
        )  # fmt: skip
        for i, total in enumerate(found):
            e.store(out, i // p * sc + 64 * (i % p), total)
        return c_.get_dummy_value()

    return sig, codegen


@intrinsic(prefer_literal=True)
def outer_words(
    typingctx, a, a_stride, b, b_step, b_apart, panels, n, c, c_stride, rows, add, factors, factor_stride, steps
):  # fmt: skip
    """The same of pairs of int16, which ``n`` counts; 32 bits hold the sums. Row ``r`` of the result is multiplied by
    the float32 that lies ``r * factor_stride`` bytes after ``factors``, column ``i`` by the ``i``-th at ``steps``."""
    sa, sb, apart, p, sc, r = (v.literal_value for v in (a_stride, b_step, b_apart, panels, c_stride, rows))
    keep, sf = add.literal_value, factor_stride.literal_value
    sig = types.void(
        types.int64,
        a_stride,
        types.int64,
        b_step,
        b_apart,
        panels,
        types.int64,
        types.int64,
        c_stride,
        rows,
        add,
        types.int64,
        factor_stride,
        types.int64,
    )
    chains = chains_of(r, p)

    def codegen(c_, builder, s, args):
        e, out, lanes = Emit(builder, MACHINE), args[7], "i32x16"
        found = _sums(
            e, args[0], args[2], args[6], a_stride=sa, step=sb, rows=r, panels=p, chains=chains, far=0,
            operand=lambda pb, k, j: e.load(pb, k * sb + j * apart, lanes), kind="i32",
            multiply=lambda total, x, w: e.dot_words(total, w, x), add=builder.add,
            start=[e.zero(lanes)] * (r * p * chains),
        )  # fmt: skip
        for i, total in enumerate(found):
            factor = builder.fmul(e.splat_load(args[11], i // p * sf, "f32"), e.load(args[13], 64 * (i % p), F))
            at = i // p * sc + 64 * (i % p)
            total = e.i_to_f32(total)
            e.store(out, at, e.fma(total, factor, e.load(out, at, F)) if keep else builder.fmul(total, factor))
        return c_.get_dummy_value()

    return sig, codegen
