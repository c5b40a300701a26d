"""Keeps the folder of compiled kernels (``simd.cache``) from growing for ever.

Kernels of older sources, other packages or another CPU are never asked for again, and nothing tells them from those
that are, but that they are not used. So a kernel that is loaded gets today's date, and whoever writes one removes those
of long ago. That is safe beside other processes: one that misses a file compiles it anew. Faults are ignored.

Not a part of ``simd``, whose source every kernel's key depends on.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from ..simd.cache import cache_folder

DAY_S = 86400
#: A kernel that was not used for so long is removed, and the longest unused ones beyond so many bytes.
KEEP_S, KEEP_BYTES = 30 * DAY_S, 512 << 20


def used(key: str) -> None:
    """Dates the kernel of that key today; it is written to once a day at most."""
    path = cache_folder() / f"{key}.o"
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > DAY_S:
            os.utime(path)


def tidy() -> None:
    """Removes what was not used for long, also what a killed process left half-written."""
    found = []
    with suppress(OSError), os.scandir(cache_folder()) as entries:
        for entry in entries:
            if entry.name.endswith(".o") or entry.name.startswith(".new-"):
                with suppress(OSError):
                    found.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
    room, oldest = KEEP_BYTES, time.time() - KEEP_S
    for date, n_bytes, path in sorted(found, reverse=True):
        room -= n_bytes
        if room < 0 or date < oldest:
            with suppress(OSError):
                os.unlink(path)
