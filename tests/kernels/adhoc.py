"""Small kernels that only the tests have: what ``simd`` offers, called on arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import types
from numba.core.extending import intrinsic

from ggblock.engine import store
from ggblock.simd import jit, vec
from ggblock.simd.emit import Emit, llvm_type


def compiled(function: Callable[..., Any]) -> Callable[..., None]:
    """``function(a, b, n)`` of three int64, as a kernel compiled for this machine; arrays are passed by address."""
    call = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(
        store._link(*jit.compile_kernel(function))
    )

    def run(*args: np.ndarray | int) -> None:
        call(*(int(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in args))

    return run


def by_sixteen(
    operation: Callable[[Any], Any], source: str = "f32x16", step: int = 64
) -> Callable[[np.ndarray], np.ndarray]:
    """A function of one vector applied to a whole float32 array, whose length is a multiple of 16."""
    load, keep = vec.load, vec.store

    def loop(a, b, n):  # type: ignore[no-untyped-def]
        for i in range(n):
            keep(b + i * step, operation(load(a + i * step, source)))

    run = compiled(loop)

    def apply(values: np.ndarray) -> np.ndarray:
        assert values.dtype == np.float32 and values.size % 16 == 0
        out = np.empty(values.size, np.float32)
        run(np.ascontiguousarray(values), out, values.size // 16)
        return out

    return apply


def emitted(n_in: int, emit: Callable[[Emit, Any], Any]) -> Any:
    """An intrinsic of one address: ``emit(e, address)`` gives the vector that it returns, of type i32x16 or f32x16."""

    @intrinsic
    def f(typingctx, address):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            value = emit(Emit(builder, vec.MACHINE), args[0])
            return builder.bitcast(value, llvm_type("i32x16"))

        return vec.Vec("i32", 16)(types.int64), codegen

    keep = vec.store

    def loop(a, b, n):  # type: ignore[no-untyped-def]
        for i in range(n):
            keep(b + i * 64, f(a + i * n_in))

    run = compiled(loop)

    def apply(values: np.ndarray) -> np.ndarray:
        n = values.nbytes // n_in
        out = np.empty((n, 16), np.int32)
        run(np.ascontiguousarray(values), out, n)
        return out

    return apply
