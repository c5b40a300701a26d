"""Aligned buffers whose addresses go into plans."""
from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

ALIGNMENT = 64


def buffer(n_bytes: int) -> npt.NDArray[np.uint8]:
    """Zeroed bytes at an address that is a multiple of 64. Pages are only taken when they are written."""
    raw = np.zeros(n_bytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start:start + n_bytes]


def floats(*shape: int) -> npt.NDArray[np.float32]:
    """Zeroed float32 of ``shape``, C order, aligned."""
    return buffer(4 * int(np.prod(shape))).view(np.float32).reshape(shape)


def address(array: npt.NDArray[Any]) -> int:
    return int(array.ctypes.data)
