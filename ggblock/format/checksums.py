"""Checksums that a file carries in its own metadata. ``spec/container.md``, section "Checksums", is the definition.

Two keys, both or none: `TENSORS`, an array with the SHA-256 of each tensor's bytes in file order, and `HEADER`, the
SHA-256 of every byte of the file that belongs to no tensor. Other readers ignore them.
"""
from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

from . import kinds
from .metadata import Typed

TENSORS = "ggblock.tensors.sha256"
HEADER = "ggblock.header.sha256"
KEYS = frozenset({TENSORS, HEADER})
#: What stands for a digest that is not known yet, and for `HEADER`'s own digits while it is computed.
UNKNOWN = "0" * 64

_RECORDS = {
    order: struct.pack(order + "Q", len(HEADER)) + HEADER.encode() + struct.pack(order + "IQ", 8, 64) for order in "<>"
}


def new() -> Any:
    """A SHA-256 that has seen nothing yet."""
    import hashlib  # 10 ms that opening a file need not spend

    return hashlib.sha256()


def room(n_tensors: int) -> dict[str, Typed]:
    """Metadata with room for the checksums of a file with ``n_tensors``; the writer fills in `HEADER`."""
    return {TENSORS: Typed("str[]", [UNKNOWN] * n_tensors), HEADER: Typed("str", UNKNOWN)}


def digits_at(head: bytes) -> int | None:
    """Where the 64 digits of `HEADER` start in the bytes before the data section; None when the key is not there.

    The key is found by its record (length, name, kind, length of the value), which no other key and no text contains
    unless it was made to; only then the keys are walked through. ``head`` is a valid header.
    """
    order = ">" if head[4:6] == b"\0\0" else "<"  # half of the version; a small number has its digits there
    record = _RECORDS[order]
    at = head.find(record)
    if head.find(record, at + 1) >= 0:
        at = next((key for key in _keys(head, order) if head.startswith(record, key)), -1)
    return at + len(record) if at >= 0 and at + len(record) + 64 <= len(head) else None


def _keys(head: bytes, order: str) -> Iterator[int]:
    """Where each key of a valid header starts."""

    def number(letter: str, at: int) -> int:
        return int(struct.unpack_from(order + letter, head, at)[0])

    def behind(kind: kinds.ValueKind, at: int) -> int:
        """The end of the value of ``kind`` at ``at``."""
        if kind is kinds.STRING:
            return at + 8 + number("Q", at)
        if kind is not kinds.ARRAY:
            return at + kind.n_bytes
        of, count, at = kinds.BY_ID[number("I", at)], number("Q", at + 4), at + 12
        if of.n_bytes:
            return at + count * of.n_bytes
        for _ in range(count):
            at = behind(of, at)
        return at

    at = 24
    for _ in range(number("Q", 16)):
        yield at
        at += 8 + number("Q", at)
        at = behind(kinds.BY_ID[number("I", at)], at + 4)


def header_digest(head: bytes, gaps: Iterable[bytes]) -> str:
    """The value of `HEADER`: of ``head``, everything before the data section, and of the bytes between tensors.

    Raises ValueError when ``head`` lacks the key.
    """
    at = digits_at(head)
    if at is None:
        raise ValueError(f"no {HEADER} in the header")
    digest = new()
    digest.update(head[:at] + UNKNOWN.encode() + head[at + 64 :])
    for gap in gaps:
        digest.update(gap)
    return str(digest.hexdigest())


def seal(head: bytes, gaps: Iterable[bytes]) -> bytes:
    """``head`` with its own digest filled in, or as it is when it has no room for one."""
    at = digits_at(head)
    if at is None:
        return head
    return head[:at] + header_digest(head, gaps).encode() + head[at + 64 :]
