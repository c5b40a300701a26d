"""Reading a plan row inside a kernel."""

from __future__ import annotations

from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit
from ..simd.jit import inline
from ..simd.vec import MACHINE
from . import fields, shapes

_FIRST = 8 * fields.A
_STATE = 8 * fields.STATE


# Intrinsics: as functions of Python they were compiled anew for every ``i``, 0.3 s of a model's kernels.
@intrinsic
def arg(typingctx, op, i):
    """Operand ``i`` of the row at ``op``, as int64."""

    def codegen(c, b, s, a):
        e = Emit(b, MACHINE)
        return e.load(e.at(a[0], a[1], 8), _FIRST, "i64")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def arg_f32(typingctx, op, i):
    """Operand ``i`` as the float32 whose bits are in the low half of the column."""

    def codegen(c, b, s, a):
        e = Emit(b, MACHINE)
        return e.load(e.at(a[0], a[1], 8), _FIRST, "f32")

    return types.float32(types.int64, types.int64), codegen


@intrinsic
def state(typingctx, op, i):
    """Word ``i`` of the plan's shared state."""

    def codegen(c, b, s, a):
        e = Emit(b, MACHINE)
        return e.load(e.at(e.load(a[0], _STATE, "i64"), a[1], 8), 0, "i64")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def state_at(typingctx, op, i):
    """The address of word ``i`` of the plan's shared state."""

    def codegen(c, b, s, a):
        e = Emit(b, MACHINE)
        return e.at(e.load(a[0], _STATE, "i64"), a[1], 8)

    return types.int64(types.int64, types.int64), codegen


@inline
def larger(a, b):
    """The larger of two numbers of one type. Python's ``max`` brings Numba's error handling with it, which must stay
    out.
    """
    return a if a > b else b


@inline
def smaller(a, b):
    """The smaller of two numbers of one type."""
    return a if a < b else b


word_stride = inline(fields.word_stride)
before_pieces = inline(fields.before_pieces)
chunk_of = inline(shapes.chunk)
place = inline(shapes.place)
groups_of = inline(shapes.groups_of)
first_panel, second_panel = inline(shapes.first_panel), inline(shapes.second_panel)
second_plane = inline(shapes.second_plane)
