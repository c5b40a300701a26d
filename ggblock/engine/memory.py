"""Aligned buffers whose addresses go into plans."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

ALIGNMENT = 64
HUGE = 2 << 20  # bytes of a huge page on x86-64 and most of AArch64


def buffer(n_bytes: int) -> npt.NDArray[np.uint8]:
    """Zeroed bytes at an address that is a multiple of 64. Pages are only taken when they are written.

    Where the system can, a buffer of 2 MB and more lies in huge pages: reading weights and the KV cache through pages
    of 4 KB cost up to half of the memory's bandwidth (KV cache at depth 4,096: 26 against 45 GB/s on Zen 4).
    """
    if n_bytes >= HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        mapped = mmap.mmap(-1, n_bytes + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            mapped.madvise(mmap.MADV_HUGEPAGE)
        except OSError:  # a kernel without huge pages
            pass
        raw, alignment = np.frombuffer(mapped, np.uint8), HUGE
    else:
        raw, alignment = np.zeros(n_bytes + ALIGNMENT, np.uint8), ALIGNMENT
    start = -raw.ctypes.data % alignment
    return raw[start : start + n_bytes]


class Arena:
    """One buffer handed out in pieces, each at a multiple of 64, so that small tensors share huge pages."""

    def __init__(self, n_bytes: int) -> None:
        self._data, self._used = buffer(n_bytes), 0

    def take(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        start = self._used
        self._used = start + aligned(n_bytes)
        assert self._used <= len(self._data)
        return self._data[start : start + n_bytes]


def aligned(n_bytes: int) -> int:
    """``n_bytes`` rounded up to what an ``Arena`` takes for them."""
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def floats(*shape: int) -> npt.NDArray[np.float32]:
    """Zeroed float32 of ``shape``, C order, aligned."""
    return buffer(4 * int(np.prod(shape))).view(np.float32).reshape(shape)


def address(array: npt.NDArray[Any]) -> int:
    return int(array.ctypes.data)
