"""Find where each string of a string array starts, checking every length, without a Python step a string.

A string is a 64-bit length and that many bytes, so string ``i + 1`` can only be found by way of string ``i``. Yet
nearly all strings of a vocabulary are shorter than 256 bytes, and a length below 256 shows as seven zero bytes,
which hardly occur elsewhere. So a window of the file is searched for such places at once, and then every place is
proved: it must lie exactly where its predecessor's length says. What is not proved is never used; after a long, an
empty or an odd string a plain loop goes on, and later the search resumes. Hostile input costs at most about twice
the plain loop.

Measured on a 262,144-token vocabulary (4.4 MB) on one busy core: this search 10 ms, the plain loop 70-130 ms.
"""
from __future__ import annotations

import mmap
import struct

import numpy as np
from numpy.typing import NDArray

from .. import errors
from . import limits

#: Bytes searched at a time: the temporaries (a mask and eight comparisons) stay in a core's L2 cache.
WINDOW_BYTES = 1 << 18
#: Strings found by the plain loop after a window that proved few; it pays for the failed search.
PLAIN_RUN = 4096
_FEW = 1024


def scan(
    data: mmap.mmap | bytes, start: int, size: int, count: int, *, big_endian: bool, file: str, key: str
) -> NDArray[np.int64]:
    """Offsets of the length fields of ``count`` strings that start at ``start``, and the end of the last one.

    ``size``: bytes of ``data``. The caller has checked that ``count`` strings can fit (8 bytes each).
    Returns int64 (count + 1,). Raises `errors.Truncated` or `errors.StringTooLong`.
    """
    starts = np.empty(count + 1, np.int64)
    done, pos = 0, start
    while done < count:
        found = 0
        if count - done >= 64:
            found, pos = _search(data, pos, size, starts[done:count], big_endian)
            done += found
        if found < _FEW:
            stop = min(count, done + PLAIN_RUN)
            pos = _walk(data, pos, size, starts[done:stop], big_endian, file, key)
            done = stop
    starts[count] = pos
    return starts


def _walk(
    data: mmap.mmap | bytes, pos: int, size: int, out: NDArray[np.int64], big_endian: bool, file: str, key: str
) -> int:
    """One string after the other, ``len(out)`` of them; returns the end of the last."""
    length_at = struct.Struct(">Q" if big_endian else "<Q").unpack_from
    found = []
    for _ in range(len(out)):
        if pos > size - 8:
            raise errors.Truncated(
                "the file ends inside a string array", file=file, where=key, offset_bytes=pos,
                expected="8 more bytes", actual=max(0, size - pos),
            )
        found.append(pos)
        (length,) = length_at(data, pos)
        check_length(length, pos, size, file, key)
        pos += 8 + length
    out[:] = found
    return pos


def check_length(length: int, pos: int, size: int, file: str, key: str) -> None:
    """Raise `errors.StringTooLong` unless a string whose length field is at ``pos`` ends inside the file."""
    if length > min(size - pos - 8, limits.MAX_STRING_BYTES):
        raise errors.StringTooLong(
            "a string is longer than what is left of the file", file=file, where=key, offset_bytes=pos,
            expected=f"at most {min(size - pos - 8, limits.MAX_STRING_BYTES)} bytes", actual=length,
        )


def _search(
    data: mmap.mmap | bytes, pos: int, size: int, out: NDArray[np.int64], big_endian: bool
) -> tuple[int, int]:
    """As many proved strings from ``pos`` on as one window shows, at most ``len(out)``; (how many, where they end).

    Every one of them ends inside the file.
    """
    n_bytes = min(WINDOW_BYTES, size - pos)
    if n_bytes < 16:
        return 0, pos
    window = np.frombuffer(data, np.uint8, n_bytes, pos)
    short = np.zeros(n_bytes, np.bool_)
    word = np.dtype(">u8" if big_endian else "<u8")
    for phase in range(8):
        words = np.frombuffer(data, word, (n_bytes - phase) // 8, pos + phase)
        np.less(words, 256, out=short[phase : phase + 8 * len(words) : 8])
    places = np.flatnonzero(short)[: len(out) + 1]  # what follows the array may be full of zeros
    if not len(places) or places[0] != 0:
        return 0, pos
    ends = places + 8 + window[places + (7 if big_endian else 0)]
    # The first place is the array's own; each later one is proved by its predecessor's end.
    wrong = np.flatnonzero(ends[:-1] != places[1:])
    proved = int(wrong[0]) + 1 if len(wrong) else len(places)
    proved = min(proved, len(out))
    if pos + int(ends[proved - 1]) > size:  # only the last can reach beyond the window
        proved -= 1
    if proved == 0:
        return 0, pos
    out[:proved] = places[:proved] + pos
    return proved, pos + int(ends[proved - 1])
