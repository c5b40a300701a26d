"""Compiling for the device. The only module here that calls Numba's CUDA decorators.

Under ``NUMBA_ENABLE_CUDASIM=1`` the same functions run in Numba's simulator, as Python threads on the host.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import cuda

SIMULATED = bool(numba.config.ENABLE_CUDASIM)

if not SIMULATED:
    # A token's norm is one block of threads and is meant to be: Numba would warn of every such launch.
    numba.cuda.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0


if SIMULATED:
    from . import simulator

    simulator.repair()

SIMULATED_THREADS, SIMULATED_WORKERS = 4, 1


def threads(n: int) -> int:
    """``n`` threads of a block, for kernels that run with any number of them (a power of two).

    The simulator makes each of them a Python thread and waits for all at every barrier: a few are enough there.
    """
    return min(n, SIMULATED_THREADS) if SIMULATED else n


#: Letters of a signature: one-dimensional arrays, and two kinds of numbers.
ARRAYS = {"b": np.uint8, "s": np.uint16, "u": np.uint32, "j": np.int32, "h": np.float16, "f": np.float32}
INTEGER, FLOAT = "i", "e"


class Kernel:
    """A function for the device and its ``signature``: a letter for each argument (``ARRAYS``, "i" int64, "e" float32).

    Launch it as ``kernel[grid, block, stream](*arguments)``; it is compiled when that is first done.
    """

    def __init__(self, name: str, signature: str, function: Callable[..., Any]) -> None:
        self.name, self.signature, self.function = name, signature, function
        self._compiled: Any = None

    def types(self) -> Any:
        """The signature in Numba's terms."""
        from numba.cuda import types

        plain = {INTEGER: types.int64, FLOAT: types.float32}
        names = {letter: getattr(types, np.dtype(dtype).name) for letter, dtype in ARRAYS.items()}
        return types.void(*(plain.get(c) or types.Array(names[c], 1, "C") for c in self.signature))

    def __getitem__(self, launch: Any) -> Any:
        if self._compiled is None:
            self._compiled = cuda.jit(self.function) if SIMULATED else cuda.jit(self.types())(self.function)
        return self._compiled[launch]


def kernel(name: str, signature: str) -> Callable[[Callable[..., Any]], Kernel]:
    """A decorator that makes a `Kernel`."""
    return lambda function: Kernel(name, signature, function)


def device(function: Callable[..., Any]) -> Any:
    """A helper that kernels call; it is inlined into them."""
    return cuda.jit(function, device=True)


def from_source(name: str, source: str, names: dict[str, Any]) -> Callable[..., Any]:
    """The function ``kernel`` that generated ``source`` defines, with ``names`` as its globals.

    The text is kept where tracebacks and Numba's messages look for it, as ``<ggblock NAME>``.
    """
    path = f"<ggblock {name}>"
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    scope = dict(names)
    exec(compile(source, path, "exec"), scope)  # our own text, made from the families' descriptions
    function: Callable[..., Any] = scope["kernel"]
    function.__name__ = "".join(c if c.isalnum() else "_" for c in name)
    return function
