"""XXH64, the default hash of llama.cpp's gguf-hash, at some 20 MB/s without any other package.

The algorithm is that of the xxHash specification (github.com/Cyan4973/xxHash, doc/xxhash_spec.md). Its four lanes each
depend on their own past alone; the multiplication of the input is done by NumPy beforehand.
"""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: The five primes of both hashes.
P1, P2, P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P4, P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
MASK = (1 << 64) - 1
_CHUNK = 1 << 20


def rotate(x: int, n: int) -> int:
    """A 64-bit number with its bits moved left in a circle."""
    return (x << n | x >> (64 - n)) & MASK


def avalanche(x: int) -> int:
    """The last step: spread every bit over all 64."""
    x = (x ^ x >> 33) * P2 & MASK
    x = (x ^ x >> 29) * P3 & MASK
    return x ^ x >> 32


class Xxh64:
    """Like the objects of hashlib: `update` with bytes, `hexdigest`."""

    def __init__(self) -> None:
        self._lanes = [(P1 + P2) & MASK, P2, 0, -P1 & MASK]
        self._tail = b""
        self._n_bytes = 0

    def update(self, data: bytes | NDArray[np.uint8] | memoryview) -> None:
        """Take in more bytes."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]  # numpy's arrays are buffers
        self._n_bytes += len(view)
        if self._tail:
            take = min(32 - len(self._tail), len(view))
            self._tail += bytes(view[:take])
            view = view[take:]
            if len(self._tail) < 32:
                return
            self._stripes(self._tail)
            self._tail = b""
        whole = len(view) // 32 * 32
        for start in range(0, whole, _CHUNK):
            self._stripes(view[start : min(whole, start + _CHUNK)])
        self._tail = bytes(view[whole:])

    def _stripes(self, view: bytes | memoryview) -> None:
        words = np.frombuffer(view, "<u8").reshape(-1, 4)
        with np.errstate(over="ignore"):
            products = words * np.uint64(P2)
        for lane in range(4):
            state = self._lanes[lane]
            for product in products[:, lane].tolist():
                state = state + product & MASK
                state = (state << 31 | state >> 33) * P1 & MASK
            self._lanes[lane] = state

    def intdigest(self) -> int:
        """The hash of what was taken in so far, as a number."""
        if self._n_bytes >= 32:
            h = sum(rotate(v, n) for v, n in zip(self._lanes, (1, 7, 12, 18), strict=True)) & MASK
            for v in self._lanes:
                h = (h ^ rotate(v * P2 & MASK, 31) * P1 & MASK) * P1 + P4 & MASK
        else:
            h = P5
        h = h + self._n_bytes & MASK
        tail = self._tail
        while len(tail) >= 8:
            k = rotate(int.from_bytes(tail[:8], "little") * P2 & MASK, 31) * P1 & MASK
            h, tail = rotate(h ^ k, 27) * P1 + P4 & MASK, tail[8:]
        if len(tail) >= 4:
            h ^= int.from_bytes(tail[:4], "little") * P1 & MASK
            h, tail = rotate(h, 23) * P2 + P3 & MASK, tail[4:]
        for byte in tail:
            h = rotate(h ^ byte * P5 & MASK, 11) * P1 & MASK
        return avalanche(h)

    def hexdigest(self) -> str:
        """The hash as 16 hexadecimal digits."""
        return f"{self.intdigest():016x}"
