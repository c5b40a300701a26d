"""Helpers that kernels link and nobody calls: Numba neither optimizes them alone nor makes machine code of them.

Numba finishes every function that it compiles, as if it were called from Python. A helper ends up inside kernels, which
are optimized as a whole, so all that is thrown away: two fifths of the time of attention's kernel, with some thirty
helpers in four levels, a tenth to a quarter of others'. Numba has no setting for it. So three methods of its classes
look whether a library belongs to a helper of ours; all others, of programs that use Numba beside us too, are as they
were. These methods may change with any version: in those that this was not tried with, helpers are compiled as all
functions are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import _dynfunc, version_info
from numba.core.codegen import CPUCodeLibrary
from numba.core.cpu import CPUContext

TRIED = ((0, 68),)  # versions of Numba

_helpers: set[tuple[str, str]] = set()


def only(function: Callable[..., Any]) -> None:
    """Says that ``function``, which is compiled later, is linked into kernels and never called from Python."""
    _helpers.add((function.__module__, function.__qualname__))


def _is_helper(library: Any) -> bool:
    return getattr(library, "_ggblock_helper", False)


def _executable(of_others: Callable[..., Any]) -> Callable[..., Any]:
    def get_executable(self: Any, library: Any, fndesc: Any, env: Any) -> Any:
        if (fndesc.modname, fndesc.qualname) not in _helpers:
            return of_others(self, library, fndesc, env)
        library._ggblock_helper = True
        # an object that Numba's tables take; it has no address, and Python no way to call it
        return _dynfunc.make_function(fndesc.lookup_module(), fndesc.qualname, "", 0, env, (library,))

    return get_executable


def _optimize(of_others: Callable[..., Any]) -> Callable[..., Any]:
    def optimize(self: Any) -> None:
        if not _is_helper(self):
            of_others(self)

    return optimize


def _finalize(of_others: Callable[..., Any]) -> Callable[..., Any]:
    def finalize(self: Any) -> None:
        if not _is_helper(self):
            return of_others(self)
        self._finalized = True

    return finalize


if version_info.short in TRIED:
    CPUContext.get_executable = _executable(CPUContext.get_executable)
    CPUCodeLibrary._optimize_final_module = _optimize(CPUCodeLibrary._optimize_final_module)
    CPUCodeLibrary._finalize_final_module = _finalize(CPUCodeLibrary._finalize_final_module)
