"""Transposition of 16 by 16 elements, by interleaving vectors: four rounds turn 16 rows into 16 columns.

Importing this module imports Numba: only kernels do.
"""
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic

from .emit import I64, Emit
from .vec import MACHINE

_LOW = [v for i in range(8) for v in (i, 16 + i)]
_HIGH = [v for i in range(8, 16) for v in (i, 16 + i)]


def _interleave(b: Any, x: Any, y: Any, order: list[int]) -> Any:
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), 16), order))


def emit_transpose(b: Any, rows: list[Any]) -> list[Any]:
    """16 vectors of 16 lanes to 16 vectors: lane ``j`` of result ``i`` is lane ``i`` of row ``j``.

    A round sends row ``i`` and row ``i + 8`` to rows ``2 i`` and ``2 i + 1``: seen as an 8-bit number (row, lane), the
    index is rotated by one bit, and four rotations exchange its halves.
    """
    for _ in range(4):
        rows = [_interleave(b, rows[i], rows[i + 8], order) for i in range(8) for order in (_LOW, _HIGH)]
    return rows


@intrinsic(prefer_literal=True)
def gather_columns(typingctx, table, offset, to, name):
    """Transposes 16 rows of 16 elements: row ``i`` lies at ``load(table + 8 i) + offset``; writes 16 vectors at ``to``.

    ``name`` is the vector type of a row, such as ``"f32x16"``; "f16x16" and "bf16x16" become float32 on the way.
    """
    kind = name.literal_value

    def codegen(c, b, s, a):
        e = Emit(b, MACHINE)
        at = [b.add(b.load(b.inttoptr(e.at(a[0], 8 * i), I64.as_pointer())), a[1]) for i in range(16)]
        if kind == "f16x16":
            rows = [e.half_load(row, 0) for row in at]
        elif kind == "bf16x16":
            rows = [e.bf16_load(row, 0) for row in at]
        else:
            rows = [e.load(row, 0, kind) for row in at]
        size = 1 if kind == "i8x16" else 4
        for i, row in enumerate(emit_transpose(b, rows)):
            e.store(a[2], 16 * size * i, row)
        return c.get_dummy_value()
    return types.void(types.int64, types.int64, types.int64, name), codegen


@intrinsic
def transpose_bytes(typingctx, source, to, stride):
    """Transposes 16 by 16 bytes: 16 vectors of 16 bytes at ``source`` to 16 rows, ``stride`` bytes apart, at ``to``."""
    def codegen(c, b, s, a):
        e = Emit(b, MACHINE)
        rows = [e.load(a[0], 16 * i, "i8x16") for i in range(16)]
        for i, row in enumerate(emit_transpose(b, rows)):
            e.store(b.add(a[1], b.mul(a[2], e.i64(i))), 0, row)
        return c.get_dummy_value()
    return types.void(types.int64, types.int64, types.int64), codegen
