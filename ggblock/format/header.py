"""Parse what precedes the tensors' bytes: magic, version, metadata, tensor table. Every length is checked first.

The layout is that of ``spec/container.md``. Nothing here reads a tensor's bytes, and nothing is allocated for
a count before it is known that the file can hold that many things.
"""
from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from .. import errors
from . import kinds, limits, strings
from .kinds import ValueKind
from .mapped import Mapped
from .metadata import ArrayValue, NestedArray, NumberArray, StringArray, Typed, decode_text

#: Layouts of one integer by `struct` letter and big-endianness, made once: a file has thousands of them.
_NUMBERS = {(letter, big): struct.Struct("<>"[big] + letter) for letter in "IQ" for big in (False, True)}


@dataclass(frozen=True)
class TensorRecord:
    """One line of the tensor table, as it is in the file.

    ``ne``: dimensions in ggml's order (columns first). ``type_id``: ggml's number of the block type.
    ``offset``: bytes from the start of the data section. ``at``: where the line starts in the file.
    """

    name: str
    ne: tuple[int, ...]
    type_id: int
    offset: int
    at: int


@dataclass(frozen=True)
class Header:
    """Everything before the tensors' bytes. ``end``: the first byte after the tensor table."""

    version: int
    values: dict[str, Typed]
    records: list[TensorRecord]
    end: int


class Cursor:
    """A position in a mapped file that never passes its end."""

    def __init__(self, mapped: Mapped) -> None:
        self.mapped = mapped
        self.pos = 0
        self.inner_arrays = 0

    @property
    def left(self) -> int:
        """Bytes between here and the end of the file."""
        return self.mapped.size - self.pos

    def number(self, letter: str, what: str, where: str | None = None) -> int:
        """One integer in the file's byte order (a `struct` letter); raises `errors.Truncated`."""
        layout = _NUMBERS[letter, self.mapped.big_endian]
        if layout.size > self.mapped.size - self.pos:
            self.need(layout.size, what, where)
        (value,) = layout.unpack_from(self.mapped.data, self.pos)
        self.pos += layout.size
        return int(value)

    def need(self, n_bytes: int, what: str, where: str | None = None) -> None:
        """Raise `errors.Truncated` unless ``n_bytes`` are left."""
        if n_bytes > self.left:
            raise errors.Truncated(
                f"the file ends inside {what}", file=self.mapped.path, where=where, offset_bytes=self.pos,
                expected=f"{n_bytes} more bytes", actual=self.left,
            )

    def text(self, what: str, limit: int, where: str | None = None) -> str:
        """A length and that many bytes; raises `errors.StringTooLong`."""
        at = self.pos
        length = self.number("Q", f"the length of {what}", where)
        if length > min(limit, self.left):
            raise errors.StringTooLong(
                f"{what} is longer than {'what is left of the file' if length > self.left else 'is allowed'}",
                file=self.mapped.path, where=where, offset_bytes=at,
                expected=f"at most {min(limit, self.left)} bytes", actual=length,
            )
        raw = self.mapped.data[self.pos : self.pos + length]
        self.pos += length
        return decode_text(raw)

    def count(self, what: str, smallest: int, limit: int, where: str | None = None) -> int:
        """A 64-bit count of things of at least ``smallest`` bytes, checked by `check_count`."""
        at = self.pos
        value = self.number("Q", f"the number of {what}", where)
        self.check_count(value, at, what, smallest, limit, where)
        return value

    def check_count(
        self, value: int, at: int, what: str, smallest: int, limit: int, where: str | None = None
    ) -> None:
        """Raise `errors.CountTooLarge` when ``value`` things do not fit into what is left, or are too many."""
        fits = self.left // smallest
        if value > min(fits, limit):
            reason = "the file has room for" if value > fits else "is allowed"
            raise errors.CountTooLarge(
                f"more {what} than {reason}", file=self.mapped.path, where=where, offset_bytes=at,
                expected=f"at most {min(fits, limit)}", actual=value,
            )


def parse(mapped: Mapped) -> Header:
    """Read header, metadata and tensor table of ``mapped``, and set its byte order.

    Raises a subclass of `errors.FormatError` that names the fault.
    """
    cursor = Cursor(mapped)
    version = _version(cursor)
    cursor.need(16, "the header")
    n_tensors = cursor.number("Q", "the header")
    n_keys = cursor.number("Q", "the header")
    cursor.check_count(n_keys, 16, "metadata keys", limits.MIN_KEY_BYTES, limits.MAX_KEYS)
    cursor.check_count(n_tensors, 8, "tensors", limits.MIN_TENSOR_BYTES, limits.MAX_TENSORS)
    values: dict[str, Typed] = {}
    for _ in range(n_keys):
        at = cursor.pos
        key = cursor.text("a metadata key", limits.MAX_KEY_BYTES)
        if key in values:
            raise errors.DuplicateKey("the same key twice", file=mapped.path, where=key, offset_bytes=at)
        values[key] = _value(cursor, key)
    # Again, now that less of the file is left.
    cursor.check_count(n_tensors, 8, "tensors", limits.MIN_TENSOR_BYTES, limits.MAX_TENSORS)
    records: list[TensorRecord] = []
    seen: set[str] = set()
    for index in range(n_tensors):
        record = _record(cursor, index)
        if record.name in seen:
            raise errors.DuplicateTensor(
                "the same tensor twice", file=mapped.path, where=record.name, offset_bytes=record.at
            )
        seen.add(record.name)
        records.append(record)
    return Header(version, values, records, cursor.pos)


def _version(cursor: Cursor) -> int:
    mapped = cursor.mapped
    magic = mapped.data[:4]
    if magic != limits.MAGIC:
        raise errors.NotGguf(
            "not a GGUF file", file=mapped.path, offset_bytes=0, expected=limits.MAGIC, actual=magic
        )
    cursor.pos = 4
    version = cursor.number("I", "the header")
    if version & 0xFFFF == 0 and version:
        # No small number in this byte order, so it is one in the other.
        mapped.big_endian = True
        version = int.from_bytes(version.to_bytes(4, "little"), "big")
    # Big-endian files came with version 3.
    allowed = (3,) if mapped.big_endian else limits.VERSIONS
    if version not in allowed:
        raise errors.UnsupportedVersion(
            f"GGUF version {version}{' in big-endian order' if mapped.big_endian else ''} cannot be read",
            file=mapped.path, offset_bytes=4, expected=" or ".join(map(str, allowed)), actual=version,
        )
    return version


def _kind(cursor: Cursor, key: str) -> ValueKind:
    at = cursor.pos
    kind_id = cursor.number("I", "the kind of a value", key)
    kind = kinds.BY_ID.get(kind_id)
    if kind is None:
        raise errors.UnknownValueType(
            "unknown kind of metadata value", file=cursor.mapped.path, where=key, offset_bytes=at,
            expected=f"0 to {max(kinds.BY_ID)}", actual=kind_id,
        )
    return kind


def _value(cursor: Cursor, key: str) -> Typed:
    kind = _kind(cursor, key)
    if kind is kinds.ARRAY:
        array = _array(cursor, key, 1)
        return Typed(array.kind, array)
    if kind is kinds.STRING:
        return Typed(kind.name, cursor.text("a string", limits.MAX_STRING_BYTES, key))
    at = cursor.pos
    cursor.need(kind.n_bytes, "a value", key)
    if kind is kinds.BOOL:
        _check_booleans(cursor, key, at, 1)
    cursor.pos += kind.n_bytes
    return Typed(kind.name, NumberArray(kind, 1, cursor.mapped, key, at)[0])


def _array(cursor: Cursor, key: str, depth: int) -> ArrayValue:
    mapped, at = cursor.mapped, cursor.pos
    if depth > limits.MAX_ARRAY_DEPTH:
        raise errors.NestingTooDeep(
            "arrays within arrays are nested too deep", file=mapped.path, where=key, offset_bytes=at,
            expected=f"at most {limits.MAX_ARRAY_DEPTH} levels", actual=f"more than {limits.MAX_ARRAY_DEPTH}",
        )
    kind = _kind(cursor, key)
    if kind is kinds.STRING:
        n_strings = cursor.count("strings", 8, limits.MAX_ARRAY_STRINGS, key)
        starts = strings.scan(
            mapped.data, cursor.pos, mapped.size, n_strings, big_endian=mapped.big_endian, file=mapped.path, key=key
        )
        cursor.pos = int(starts[-1])
        return StringArray(mapped, key, starts)
    if kind is kinds.ARRAY:
        counted_at = cursor.pos
        n_arrays = cursor.count("arrays", 12, limits.MAX_INNER_ARRAYS, key)
        cursor.inner_arrays += n_arrays
        if cursor.inner_arrays > limits.MAX_INNER_ARRAYS:
            raise errors.CountTooLarge(
                "more arrays within arrays than is allowed", file=mapped.path, where=key, offset_bytes=counted_at,
                expected=f"at most {limits.MAX_INNER_ARRAYS}", actual=cursor.inner_arrays,
            )
        return NestedArray(mapped, key, [_array(cursor, key, depth + 1) for _ in range(n_arrays)])
    length = cursor.count("numbers", kind.n_bytes, limits.MAX_ARRAY_NUMBERS, key)
    start = cursor.pos
    if kind is kinds.BOOL:
        _check_booleans(cursor, key, start, length)
    cursor.pos += length * kind.n_bytes
    return NumberArray(kind, length, mapped, key, start)


def _check_booleans(cursor: Cursor, key: str, start: int, length: int) -> None:
    """Raise `errors.BadBoolean` for a byte other than 0 and 1, one mebibyte at a time."""
    for first in range(start, start + length, 1 << 20):
        some = np.frombuffer(cursor.mapped.data, np.uint8, min(1 << 20, start + length - first), first)
        if some.max() > 1:
            where = int(np.argmax(some > 1))
            raise errors.BadBoolean(
                "a boolean is neither 0 nor 1", file=cursor.mapped.path, where=key, offset_bytes=first + where,
                expected="0 or 1", actual=int(some[where]),
            )


def _record(cursor: Cursor, index: int) -> TensorRecord:
    path, at = cursor.mapped.path, cursor.pos
    what = f"tensor {index}"
    length = cursor.number("Q", "the tensor table", what)
    cursor.pos = at
    if not 0 < length <= limits.MAX_TENSOR_NAME_BYTES:
        raise errors.BadTensorName(
            "a tensor's name is empty or too long", file=path, where=what, offset_bytes=at,
            expected=f"1 to {limits.MAX_TENSOR_NAME_BYTES} bytes", actual=length,
        )
    name = cursor.text("a tensor's name", limits.MAX_TENSOR_NAME_BYTES, what)
    dims_at = cursor.pos
    n_dims = cursor.number("I", "the tensor table", name)
    if n_dims > limits.MAX_DIMS:
        raise errors.BadShape(
            "too many dimensions", file=path, where=name, offset_bytes=dims_at,
            expected=f"at most {limits.MAX_DIMS}", actual=n_dims,
        )
    ne = tuple(cursor.number("Q", "the tensor table", name) for _ in range(n_dims))
    type_id = cursor.number("I", "the tensor table", name)
    offset = cursor.number("Q", "the tensor table", name)
    return TensorRecord(name, ne, type_id, offset, at)
