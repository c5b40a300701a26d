"""Turns a kernel into object code with Numba. The only module of ggblock that calls Numba's decorators.

A kernel is an ordinary Python function of three int64: the address of its plan row, the thread's number, and how
many threads there are. Float arithmetic is strict except that a multiplication and an addition may be contracted;
nothing is assumed about NaN or infinity. A kernel and helpers that are compiled *strictly* allow not even that: every
operation is rounded on its own, so the result is the same to the bit on every machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm

from ..errors import SettingError
from .host import host


def _prepare() -> None:
    """Numba fixes its target when it first makes code: tell it ours before."""
    target = host()
    os.environ["NUMBA_CPU_NAME"] = target.cpu
    os.environ["NUMBA_CPU_FEATURES"] = target.features


_prepare()

import numba  # noqa: E402
from numba.core import config, types  # noqa: E402
from numba.core.registry import cpu_target  # noqa: E402

from . import linked  # noqa: E402

config.reload_config()  # where Numba was imported before this module, it read the environment then

KERNEL = types.void(types.int64, types.int64, types.int64)
FASTMATH = {"contract"}
PLAIN_C = frozenset({"memcpy", "memmove", "memset", "fmaf", "rintf", "floorf", "expf"})  # in every process


def makes_ours() -> bool:
    """Whether this process's Numba makes code for ``host()``. It does not where somebody used it before this module was
    imported, if ``GGBLOCK_MACHINE`` is set or Numba leaves out what the CPU has (AVX on the first that had it)."""
    made_for = cpu_target.target_context.codegen()._tm_features
    return set(made_for.split(",")) == set(host().features.split(","))


def compile_kernel(function: Callable[..., Any], signature: Any = KERNEL, strict: bool = False) -> tuple[str, bytes]:
    """Compiles ``function`` for this CPU; returns (symbol, object code). Raises Numba's errors: ours to fix.

    A kernel must stand alone: it is linked in processes that never import Numba. One that could raise (a ``range``
    with a step that may be zero, say) calls Numba's helpers, which are not there; that is refused here. So is code for
    another machine (``makes_ours``), with ``SettingError``.
    """
    if not makes_ours():
        raise SettingError(
            "this process used Numba for another machine before", where="GGBLOCK_MACHINE", expected=host().machine
        )
    fastmath = False if strict else FASTMATH
    compiled = numba.cfunc(
        signature, nopython=True, boundscheck=False, fastmath=fastmath, error_model="numpy", forceinline=True
    )(function)
    library = compiled._library
    outside = [f.name for f in library._final_module.functions if f.is_declaration and not f.name.startswith("llvm.")]
    foreign = [name for name in outside if name not in PLAIN_C]
    if foreign:
        raise TypeError(f"{function.__qualname__} does not stand alone: it calls {', '.join(foreign)}")
    code = _reencoded(library) if host().stands_in else library.serialize_using_object_code()[2][0]
    return compiled._wrapper_name, code


def _reencoded(library: Any) -> bytes:
    """For AVX-VNNI where AVX-512 stands in for it: the assembler takes the other encoding of the same instructions."""
    llvm.initialize_native_asmparser()
    ours = cpu_target.target_context.codegen()._tm
    lines = ours.emit_assembly(library._final_module).replace("{vex}", "{evex}").splitlines()
    escaped = (re.sub(r'["\\]', lambda found: f"\\{ord(found[0]):02x}", line) for line in lines)
    module = llvm.parse_assembly("".join(f'module asm "{line}"\n' for line in escaped))
    module.triple = ours.triple
    both = llvm.Target.from_triple(ours.triple).create_target_machine(features="+avx512vl,+avx512vnni")
    code: bytes = both.emit_object(module)
    return code


def _helper(function: Callable[..., Any], fastmath: Any) -> Any:
    linked.only(function)
    # without the functions through which Python and C would call it: a fifth of what compiling took
    return numba.njit(
        function,
        nogil=True,
        boundscheck=False,
        fastmath=fastmath,
        error_model="numpy",
        forceinline=True,
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
    )


def inline(function: Callable[..., Any]) -> Any:
    """A helper that kernels call; LLVM inlines it into them."""
    return _helper(function, FASTMATH)


def inline_strict(function: Callable[..., Any]) -> Any:
    """As ``inline``, for kernels that are compiled strictly: nothing is contracted."""
    return _helper(function, False)
