"""Metadata and tensor table to bytes: the inverse of `header`, little-endian, version 3."""
from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import errors
from . import kinds, limits
from .header import TensorRecord
from .kinds import ValueKind
from .metadata import ArrayValue, StringArray, Typed, check_scalar, encode_text, infer


def header(values: Mapping[str, object], records: Sequence[TensorRecord]) -> bytes:
    """Everything before the data section, without its padding.

    ``values``: plain or `Typed` metadata. Raises `errors.WrongKeyKind`, `errors.CountTooLarge`,
    `errors.NestingTooDeep` or `errors.BadTensorName`.
    """
    for what, count, limit in (
        ("metadata keys", len(values), limits.MAX_KEYS),
        ("tensors", len(records), limits.MAX_TENSORS),
    ):
        if count > limit:
            raise errors.CountTooLarge(f"more {what} than is allowed", expected=f"at most {limit}", actual=count)
    chunks = [limits.MAGIC, struct.pack("<IQQ", limits.WRITE_VERSION, len(records), len(values))]
    for key, value in values.items():
        chunks.append(_key(key))
        _value(chunks, key, infer(key, value))
    for record in records:
        chunks.append(_name(record.name))
        chunks.append(struct.pack("<I", len(record.ne)))
        chunks.append(struct.pack(f"<{len(record.ne)}QIQ", *record.ne, record.type_id, record.offset))
    return b"".join(chunks)


def _text(raw: bytes) -> bytes:
    return struct.pack("<Q", len(raw)) + raw


def _key(key: str) -> bytes:
    try:
        raw = key.encode("utf-8")
    except UnicodeEncodeError:
        raise errors.WrongKeyKind("a key must be valid UTF-8 to be read by others", where=ascii(key)) from None
    if not 0 < len(raw) <= limits.MAX_KEY_BYTES:
        raise errors.WrongKeyKind(
            "a key is empty or too long", where=key[:60], expected=f"1 to {limits.MAX_KEY_BYTES} bytes", actual=len(raw)
        )
    return _text(raw)


def _name(name: str) -> bytes:
    try:
        raw = name.encode("utf-8")
    except UnicodeEncodeError:
        raise errors.BadTensorName("a name must be valid UTF-8 to be read by others", where=ascii(name)) from None
    if not 0 < len(raw) <= limits.MAX_WRITTEN_TENSOR_NAME_BYTES:
        raise errors.BadTensorName(
            "a tensor's name is empty or too long", where=name[:80],
            expected=f"1 to {limits.MAX_WRITTEN_TENSOR_NAME_BYTES} bytes", actual=len(raw),
        )
    return _text(raw)


def _value(chunks: list[bytes], key: str, typed: Typed) -> None:
    if typed.kind.endswith("[]"):
        chunks.append(struct.pack("<I", kinds.ARRAY.id))
        _array(chunks, key, typed, 1)
        return
    kind = _kind(key, typed.kind)
    value = check_scalar(key, kind, typed.value)
    chunks.append(struct.pack("<I", kind.id))
    chunks.append(_text(encode_text(value)) if isinstance(value, str) else np.array(value, kind.letter).tobytes())


def _kind(key: str, name: str) -> ValueKind:
    kind = kinds.BY_NAME.get(name)
    if kind is None or kind is kinds.ARRAY:
        raise errors.WrongKeyKind(
            "unknown kind of metadata value", where=key,
            expected=" ".join(name for name in kinds.BY_NAME if name != "array") + ", or one of them with []",
            actual=name,
        )
    return kind


def _array(chunks: list[bytes], key: str, typed: Typed, depth: int) -> None:
    """Element kind, length and elements, without the array's own kind."""
    if depth > limits.MAX_ARRAY_DEPTH:
        raise errors.NestingTooDeep(
            "arrays within arrays are nested too deep", where=key, expected=f"at most {limits.MAX_ARRAY_DEPTH} levels"
        )
    name, value = typed.kind[:-2], typed.value
    if not isinstance(value, (list, tuple, ArrayValue, np.ndarray)):
        raise errors.WrongKeyKind("not an array", where=key, expected=typed.kind, actual=type(value).__name__)
    if name == kinds.ARRAY.name:
        _check_length(key, len(value), limits.MAX_INNER_ARRAYS)
        chunks.append(struct.pack("<IQ", kinds.ARRAY.id, len(value)))
        for item in value:
            inner = infer(key, item)
            if not inner.kind.endswith("[]"):
                raise errors.WrongKeyKind("an array of arrays holds something else", where=key, actual=inner.kind)
            _array(chunks, key, inner, depth + 1)
        return
    kind = _kind(key, name)
    limit = limits.MAX_ARRAY_STRINGS if kind is kinds.STRING else limits.MAX_ARRAY_NUMBERS
    _check_length(key, len(value), limit)
    chunks.append(struct.pack("<IQ", kind.id, len(value)))
    if kind is kinds.STRING:
        _strings(chunks, key, value)
    elif len(value):
        chunks.append(_numbers(key, kind, value))


def _check_length(key: str, length: int, limit: int) -> None:
    if length > limit:
        raise errors.CountTooLarge(
            "a longer array than is allowed", where=key, expected=f"at most {limit}", actual=length
        )


def _strings(chunks: list[bytes], key: str, value: Iterable[object]) -> None:
    if isinstance(value, StringArray):
        stored = value.stored()
        if stored is not None:
            chunks.append(stored)
            return
    pack = struct.Struct("<Q").pack
    for item in value:
        if not isinstance(item, str):
            raise errors.WrongKeyKind("an array of strings holds something else", where=key, actual=repr(item)[:60])
        raw = encode_text(item)
        chunks.append(pack(len(raw)))
        chunks.append(raw)


def _numbers(key: str, kind: ValueKind, value: Sequence[Any] | np.ndarray[Any, Any]) -> bytes:
    if isinstance(value, ArrayValue):
        numbers = value.numpy()
    elif kind.name == "u64" and all(type(item) is int and 0 <= item <= kind.high for item in value):
        numbers = np.array(value, np.uint64)  # asarray makes float64 of [0, 2**63]
    else:
        numbers = np.asarray(value)
    target = np.dtype(kind.letter).newbyteorder("<")
    wanted = "b" if kind is kinds.BOOL else "iu" if kind.high else "fiu"
    fits = numbers.ndim == 1 and numbers.dtype.kind in wanted
    if fits and kind.high:
        fits = kind.low <= int(numbers.min()) and int(numbers.max()) <= kind.high
    if fits:
        try:
            with np.errstate(over="raise"):
                return numbers.astype(target).tobytes()
        except FloatingPointError:
            pass
    raise errors.WrongKeyKind(
        "the elements do not fit their kind", where=key, expected=kind.name, actual=repr(value)[:60]
    )
