"""Reading a plan row inside a kernel."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.jit import inline
from . import fields

_FIRST = 8 * fields.A
_STATE = 8 * fields.STATE


# Intrinsics: as functions of Python they were compiled anew for every ``i``, 0.3 s of a model's kernels.
def _loaded(b: Any, address: Any, offset: int, i: Any, kind: Any) -> Any:
    """The word of LLVM's type ``kind`` at ``address + offset + 8 * i``."""
    word = ir.IntType(64)
    at = b.add(b.add(address, ir.Constant(word, offset)), b.mul(i, ir.Constant(word, 8)))
    return b.load(b.inttoptr(at, kind.as_pointer()))


@intrinsic
def arg(typingctx, op, i):
    """Operand ``i`` of the row at ``op``, as int64."""

    def codegen(c, b, s, a):
        return _loaded(b, a[0], _FIRST, a[1], ir.IntType(64))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def arg_f32(typingctx, op, i):
    """Operand ``i`` as the float32 whose bits are in the low half of the column."""

    def codegen(c, b, s, a):
        return _loaded(b, a[0], _FIRST, a[1], ir.FloatType())

    return types.float32(types.int64, types.int64), codegen


@intrinsic
def state(typingctx, op, i):
    """Word ``i`` of the plan's shared state."""

    def codegen(c, b, s, a):
        word = ir.IntType(64)
        shared = _loaded(b, a[0], _STATE, ir.Constant(word, 0), word)
        return _loaded(b, shared, 0, a[1], word)

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
