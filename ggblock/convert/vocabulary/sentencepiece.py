"""Read ``tokenizer.model``, SentencePiece's protocol buffer: pieces with scores and types.

Only the fields that a vocabulary needs are read (field 1 of the model: the pieces; in each 1: text, 2: score,
3: type); everything else is skipped. No protobuf library is needed for that.
"""
from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ... import errors

#: SentencePiece's type numbers are those of GGUF: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
MAX_MODEL_BYTES = 1 << 28


@dataclass(frozen=True)
class Piece:
    """One token: ``text``, ``score`` (a logarithm of its probability, or minus its rank), ``type``."""

    text: bytes
    score: float
    type: int


def read(path: str) -> list[Piece]:
    """All pieces of a model, by id; raises `errors.CannotRead` or `errors.BadCheckpoint`."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_MODEL_BYTES + 1)
    except OSError as fault:
        raise errors.CannotRead(f"cannot be read: {fault.strerror or fault}", file=path) from None
    if len(data) > MAX_MODEL_BYTES:
        raise errors.BadCheckpoint("too large", file=path, expected=f"at most {MAX_MODEL_BYTES} bytes")
    try:
        pieces = [_piece(value) for number, value in _fields(data) if number == 1 and isinstance(value, bytes)]
    except (ValueError, IndexError, struct.error):
        raise errors.BadCheckpoint("no SentencePiece model, or a damaged one", file=path) from None
    if not pieces:
        raise errors.BadCheckpoint("the model holds no pieces", file=path)
    return pieces


def _piece(data: bytes) -> Piece:
    text, score, kind = b"", 0.0, NORMAL
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            text = value
        elif number == 2 and isinstance(value, float):
            score = value
        elif number == 3 and isinstance(value, int):
            kind = value
    if kind not in range(NORMAL, BYTE + 1):
        raise ValueError
    return Piece(text, score, kind)


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int | float]]:
    """(number, value) of every field of a message; 64-bit fields are skipped."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        elif wire == 5:
            yield number, struct.unpack_from("<f", data, at)[0]
            at += 4
        elif wire == 2:
            length, at = _varint(data, at)
            if length > len(data) - at:
                raise ValueError
            yield number, data[at : at + length]
            at += length
        elif wire == 1:
            at += 8
        else:
            raise ValueError


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError
