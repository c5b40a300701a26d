"""Reading a plan row inside a kernel."""

from __future__ import annotations

from ..simd.jit import inline
from ..simd.vec import load
from . import fields

_FIRST = 8 * fields.A
_STATE = 8 * fields.STATE


@inline
def arg(op, i):
    """Operand ``i`` of the row at ``op``, as int64."""
    return load(op + (_FIRST + 8 * i), "i64")


@inline
def arg_f32(op, i):
    """Operand ``i`` as the float32 whose bits are in the low half of the column."""
    return load(op + (_FIRST + 8 * i), "f32")


@inline
def state(op, i):
    """Word ``i`` of the plan's shared state."""
    return load(load(op + _STATE, "i64") + 8 * i, "i64")


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
