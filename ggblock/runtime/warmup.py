"""Compiling ahead: everything that a file needs, so that its first run starts as quickly as any later one."""
from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from ggblock.errors import CacheUnusable


@dataclass(frozen=True)
class Warmup:
    """What was done for one file: how many kernels it needs, and how many of them were compiled."""

    path: str
    n_kernels: int
    n_compiled: int
    elapsed_s: float


def warm_up(
    source: str | os.PathLike[str],
    *,
    kv: str | None = None,
    activations: str | None = None,
    reference: bool = False,
    notify: Callable[[str], None] | None = None,
) -> Warmup:
    """Compile every kernel that running ``source`` takes and that is not in the cache yet.

    Arguments are those of `load`; a model loaded with the same ones compiles nothing. Kernels serve every context
    length, number of threads, prompt and answer.

    Raises:
        CacheUnusable: the kernels cannot be kept. Otherwise what `load` raises for the file and the settings.
    """
    start = time.perf_counter()
    from ggblock import catalog, models
    from ggblock.engine import store
    from ggblock.format import open_gguf
    from ggblock.simd.cache import cache_folder

    path = catalog.resolve(source, notify=notify)
    with open_gguf(path) as file:
        names = models.kernels_of(file, kv_type=kv, activations=activations, reference=reference)
    missing = store.not_kept(names)
    if missing:
        store.kernels(missing, notify)
        if store.not_kept(missing):
            raise CacheUnusable("compiled kernels cannot be kept; GGBLOCK_CACHE may name another folder",
                                file=cache_folder())  # fmt: skip
    return Warmup(os.fspath(path), len(names), len(missing), time.perf_counter() - start)
