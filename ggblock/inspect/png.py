"""Pictures: matrices as heat maps, written as PNG with nothing but zlib."""
from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

#: The colour scale, dark to bright, as (share, red, green, blue); brightness rises evenly, so it also prints in grey.
GRADIENT = (
    (0.0, 12, 10, 38), (0.15, 43, 24, 92), (0.3, 93, 32, 122), (0.45, 148, 44, 128), (0.6, 204, 66, 108),
    (0.75, 240, 112, 88), (0.9, 252, 186, 120), (1.0, 253, 246, 206),
)


def encode(pixels: U8) -> bytes:
    """A PNG file of uint8 (height, width, 3) RGB pixels."""
    height, width, _ = pixels.shape
    # Each line is preceded by its filter, 0: none.
    raw = np.zeros((height, 1 + 3 * width), np.uint8)
    raw[:, 1:] = pixels.reshape(height, -1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(raw.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def colours(levels: U8) -> U8:
    """uint8 (h, w) levels as uint8 (h, w, 3) RGB of `GRADIENT`."""
    at = [256 * stop[0] for stop in GRADIENT]
    table = np.stack(
        [np.interp(np.arange(256), at, [stop[i] for stop in GRADIENT]) for i in (1, 2, 3)], axis=1
    )
    return np.asarray(np.rint(table).astype(np.uint8)[levels])


def shrink(values: F32, max_rows: int, max_columns: int) -> F32:
    """A matrix of at most that size: means over cells of equal or nearly equal size."""
    for axis, limit in ((0, max_rows), (1, max_columns)):
        n = values.shape[axis]
        if n > limit:
            starts = np.arange(limit) * n // limit
            sums = np.add.reduceat(values, starts, axis=axis, dtype=np.float32)
            sizes = np.diff(np.append(starts, n)).astype(np.float32)
            values = np.asarray(sums / (sizes[:, None] if axis == 0 else sizes), np.float32)
    return values


def levels(values: F32) -> tuple[U8, float, float]:
    """A matrix as uint8 levels between its 0.5 and 99.5 percentiles; returns (levels, low, high).

    What is not finite counts as the highest level.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return np.full(values.shape, 255, np.uint8), 0.0, 0.0
    low, high = (float(x) for x in np.percentile(finite, (0.5, 99.5)))
    if high <= low:
        low, high = float(finite.min()), float(finite.max())
    span = high - low or 1.0
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.clip((values - low) / span, 0, 1)
    return np.where(np.isfinite(values), np.rint(255 * scaled), 255).astype(np.uint8), low, high


def heat_map(values: F32, max_rows: int = 1024, max_columns: int = 1024, min_size: int = 256) -> bytes:
    """A PNG of a matrix: rows down, columns across; small ones are enlarged to whole multiples."""
    small = shrink(values, max_rows, max_columns)
    pixels = colours(levels(small)[0])
    up = max(1, min_size // pixels.shape[0]), max(1, min_size // pixels.shape[1])
    return encode(np.repeat(np.repeat(pixels, up[0], axis=0), up[1], axis=1))
