"""Kernels by name, as addresses: read from the disk cache, or compiled by Numba and put there.

With all kernels in the cache Numba is never imported. Object code is linked by LLVM in this process, each kernel in an
engine of its own, so that symbols of kernels compiled by different processes cannot meet.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable

import llvmlite.binding as llvm

from ..kernels import registry
from ..simd import cache
from ..simd.host import host
from .compile import compile_apart
from .tidy import tidy, used

Notify = Callable[[str], None]

_lock = threading.Lock()
_addresses: dict[str, int] = {}
_engines: list[object] = []  # linked code lives as long as these do


def _link(symbol: str, code: bytes) -> int:
    target = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(f'target triple = "{llvm.get_process_triple()}"'), target)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address(symbol))


def kernels(names: Iterable[str], notify: Notify | None = None) -> dict[str, int]:
    """The addresses of ``names``. ``notify`` hears one line when something has to be compiled, and one when it is
    done.
    """
    wanted = list(dict.fromkeys(names))
    with _lock:
        missing = []
        for name in wanted:
            if name not in _addresses:
                key = _key(name)
                found = cache.get(key)
                if found is None:
                    missing.append(name)
                else:
                    _addresses[name] = _link(*found)
                    used(key)
        if missing:
            _compile(missing, notify)
        return {name: _addresses[name] for name in wanted}


def not_kept(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are not in the cache on the disk, each once."""
    return [name for name in dict.fromkeys(names) if cache.get(_key(name)) is None]


def _key(name: str) -> str:
    return cache.key_of(name, registry.module_of(name), registry.is_strict(name), host())


def _compile_here(name: str) -> tuple[str, bytes]:
    from ..simd import jit

    return jit.compile_kernel(registry.build(name), strict=registry.is_strict(name))


def default_threads() -> int:
    """As many as this process may run on at once."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # not on macOS and Windows
        return max(1, os.cpu_count() or 1)


def _compile(missing: list[str], notify: Notify | None) -> None:
    start = time.perf_counter()
    if notify:
        notify(
            f"compiling {len(missing)} kernel{'s' if len(missing) > 1 else ''} for this CPU ({host().machine}); "
            "this happens once"
        )
    stored = True
    made = compile_apart(missing, default_threads())
    for name in missing:
        symbol, code = made.get(name) or _compile_here(name)
        stored &= cache.put(_key(name), symbol, code)
        _addresses[name] = _link(symbol, code)
    tidy()
    if notify:
        kept = "" if stored else f"; they could not be kept in {cache.cache_folder()}"
        notify(f"compiled in {time.perf_counter() - start:.1f} s{kept}")
