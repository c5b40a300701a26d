"""Metadata values: lazy arrays over the mapped file, kinds, and `Typed` values for writing.

**Text.** Strings are UTF-8 by the format's rules, but files with other bytes exist and are not refused: such bytes
are kept as lone surrogates (Python's ``surrogateescape``), so ``value.encode("utf-8", "surrogateescape")`` gives the
file's bytes back, and the writer does exactly that.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .. import errors
from . import kinds
from .mapped import Mapped

_CHUNK = 4096


def decode_text(raw: bytes) -> str:
    """UTF-8 with every other byte kept as a lone surrogate."""
    return raw.decode("utf-8", "surrogateescape")


def encode_text(text: str) -> bytes:
    """The inverse of `decode_text`.

    Raises `errors.WrongKeyKind` for a lone surrogate that stands for no byte.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise errors.WrongKeyKind("text with a lone surrogate has no UTF-8 form", actual=ascii(text[:40])) from None


@dataclass(frozen=True)
class Typed:
    """A value with the kind it is to be written as: ``Typed("u32", 7)``, ``Typed("f32[]", scores)``.

    ``kind``: a name in `kinds.BY_NAME`, or an element kind followed by ``[]``.
    """

    kind: str
    value: object


class ArrayValue(Sequence[Any]):
    """An array in a file's metadata, read when it is asked for.

    It is a sequence: ``len``, ``[i]``, slices (lists), iteration; it equals a list, tuple or `ArrayValue` with
    the same elements. ``element_type`` is the kind of its elements (``"str"``, ``"f32"``, ``"array"``, ...).
    It can be used as long as its file is open; after that every access raises ValueError.
    """

    element_type: str

    def __init__(self, element_type: str, length: int, mapped: Mapped, key: str) -> None:
        self.element_type = element_type
        self._length = length
        self._mapped = mapped
        self._key = key

    def _part(self, start: int, stop: int) -> list[Any]:
        """Elements ``start`` to ``stop``; 0 <= start <= stop <= len(self)."""
        raise TypeError("an ArrayValue is one of NumberArray, StringArray and NestedArray")

    @property
    def kind(self) -> str:
        """The kind of the whole array: ``str[]``, ``f32[]``, ``array[]``."""
        return self.element_type + "[]"

    @property
    def source_path(self) -> str:
        """The file that holds the array."""
        return self._mapped.path

    def tolist(self) -> list[Any]:
        """All elements at once as a list: the fastest way to read a whole vocabulary."""
        return self._part(0, self._length)

    def numpy(self) -> NDArray[Any]:
        """A new aligned array (len,) in this machine's byte order.

        Raises `errors.WrongKeyKind` for strings and for arrays of arrays.
        """
        raise errors.WrongKeyKind(
            "not an array of numbers", file=self._mapped.path, where=self._key, actual=self.kind
        )

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._length)
            if step == 1:
                return self._part(start, max(start, stop))
            return [self._part(i, i + 1)[0] for i in range(start, stop, step)]
        at = index + self._length if index < 0 else index
        if not 0 <= at < self._length:
            raise IndexError(f"{self._key}[{index}]: the array has {self._length} elements")
        return self._part(at, at + 1)[0]

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, self._length, _CHUNK):
            yield from self._part(start, min(self._length, start + _CHUNK))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (list, tuple, ArrayValue)):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(repr(value) for value in self[:4])
        return f"<{self._length} x {self.element_type}: [{shown}{', ...' if self._length > 4 else ''}]>"


class NumberArray(ArrayValue):
    """Numbers or booleans, left in the mapped file."""

    def __init__(self, kind: kinds.ValueKind, length: int, mapped: Mapped, key: str, offset: int) -> None:
        super().__init__(kind.name, length, mapped, key)
        self._dtype = np.dtype(kind.letter).newbyteorder(">" if mapped.big_endian else "<")
        self._offset = offset

    def _view(self, start: int, stop: int) -> NDArray[Any]:
        size = self._dtype.itemsize
        return np.frombuffer(self._mapped.data, self._dtype, stop - start, self._offset + start * size)

    def _part(self, start: int, stop: int) -> list[Any]:
        if start == stop:
            return []
        values: list[Any] = self._view(start, stop).tolist()
        return values

    def numpy(self) -> NDArray[Any]:
        if not self._length:
            return np.empty(0, self._dtype.newbyteorder("="))
        return self._view(0, self._length).astype(self._dtype.newbyteorder("="))


class StringArray(ArrayValue):
    """Strings, left in the mapped file; only their offsets are kept (8 bytes a string)."""

    def __init__(self, mapped: Mapped, key: str, starts: NDArray[np.int64]) -> None:
        super().__init__(kinds.STRING.name, len(starts) - 1, mapped, key)
        self._starts = starts

    def raw(self, index: int) -> bytes:
        """The bytes of string ``index`` as they are in the file."""
        if not 0 <= index < self._length:
            raise IndexError(f"{self._key}[{index}]: the array has {self._length} elements")
        return self._raw_part(index, index + 1)[0]

    def raw_list(self) -> list[bytes]:
        """The bytes of every string."""
        return self._raw_part(0, self._length)

    def stored(self) -> bytes | None:
        """The elements with their lengths as the file stores them, or None for a big-endian file."""
        if self._mapped.big_endian:
            return None
        return self._mapped.data[int(self._starts[0]) : int(self._starts[-1])]

    def _raw_part(self, start: int, stop: int) -> list[bytes]:
        data = self._mapped.data
        bounds = self._starts[start : stop + 1].tolist()
        first = bounds[0]
        blob = data[first : bounds[-1]]
        return [blob[a - first + 8 : b - first] for a, b in itertools.pairwise(bounds)]

    def _part(self, start: int, stop: int) -> list[Any]:
        return [raw.decode("utf-8", "surrogateescape") for raw in self._raw_part(start, stop)]


class NestedArray(ArrayValue):
    """Arrays, each with an element kind of its own."""

    def __init__(self, mapped: Mapped, key: str, items: list[ArrayValue]) -> None:
        super().__init__(kinds.ARRAY.name, len(items), mapped, key)
        self._items = items

    def _part(self, start: int, stop: int) -> list[Any]:
        return self._items[start:stop]


class Metadata(Mapping[str, object]):
    """The keys of a file in file order: Python scalars, ``str``, and `ArrayValue` for every array."""

    def __init__(self, values: dict[str, Typed], paths: tuple[str, ...]) -> None:
        self._values = values
        self.paths = paths

    def __getitem__(self, key: str) -> object:
        return self._values[key].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def kind(self, key: str) -> str:
        """The kind of a key's value as it is in the file: ``u32``, ``str``, ``f32[]``; KeyError if missing."""
        return self._values[key].kind

    def typed(self, key: str) -> Typed:
        """Value and kind together, ready for the writer; KeyError if missing."""
        return self._values[key]

    def typed_items(self) -> dict[str, Typed]:
        """A new dict of every key with value and kind: the start of metadata for a derived file."""
        return dict(self._values)

    def __repr__(self) -> str:
        return f"<Metadata of {self.paths[0]}: {len(self)} keys>"


def infer(key: str, value: object) -> Typed:
    """The usual kind of a plain value: str, bool, f32, i32 (u32, i64, u64 when it takes that), arrays likewise.

    `Typed` values stay as they are, `ArrayValue` keeps its kind, a NumPy array or scalar has the kind of its dtype.
    Raises `errors.WrongKeyKind` for anything else, and for a list of different kinds.
    """
    if isinstance(value, Typed):
        return value
    if isinstance(value, ArrayValue):
        return Typed(value.kind, value)
    if isinstance(value, (np.ndarray, np.generic)):
        return Typed(_numpy_kind(key, value) + ("[]" if isinstance(value, np.ndarray) else ""), value)
    if isinstance(value, bool):
        return Typed("bool", value)
    if isinstance(value, str):
        return Typed("str", value)
    if isinstance(value, int):
        return Typed(_integer_kind(key, value, value), value)
    if isinstance(value, float):
        return Typed("f32", value)
    if isinstance(value, (list, tuple)):
        return Typed(_list_kind(key, value), value)
    raise errors.WrongKeyKind("cannot be stored as metadata", where=key, actual=type(value).__name__)


def _integer_kind(key: str, low: int, high: int) -> str:
    # u32 first: it is what llama.cpp asks for in nearly every key.
    for name in ("u32", "i32", "u64", "i64"):
        kind = kinds.BY_NAME[name]
        if kind.low <= low and high <= kind.high:
            return name
    raise errors.WrongKeyKind("an integer beyond 64 bits", where=key, actual=high if high > 0 else low)


def _numpy_kind(key: str, value: np.ndarray[Any, Any] | np.generic) -> str:
    name = {"b": "bool", "i": "i", "u": "u", "f": "f"}.get(value.dtype.kind, "?")
    name = name if name == "bool" else f"{name}{8 * value.dtype.itemsize}"
    if name not in kinds.BY_NAME or getattr(value, "ndim", 0) > 1:
        raise errors.WrongKeyKind("cannot be stored as metadata", where=key, actual=f"{value.dtype} {value.shape}")
    return name


def _list_kind(key: str, value: Sequence[object]) -> str:
    if all(isinstance(item, str) for item in value) and value:
        return "str[]"
    if all(isinstance(item, bool) for item in value) and value:
        return "bool[]"
    if not any(isinstance(item, bool) for item in value):
        integers = [item for item in value if isinstance(item, int)]
        floats = [item for item in value if isinstance(item, float)]
        if len(integers) == len(value):
            # i32 first for arrays: token types, merges and the like are read as i32.
            low, high = min(integers, default=0), max(integers, default=0)
            return "i32[]" if -(1 << 31) <= low and high < 1 << 31 else _integer_kind(key, low, high) + "[]"
        if len(integers) + len(floats) == len(value):
            return "f32[]"
        if all(isinstance(item, (list, tuple, ArrayValue, np.ndarray, Typed)) for item in value):
            return "array[]"
    raise errors.WrongKeyKind("a list of different kinds of values", where=key)


def check_scalar(key: str, kind: kinds.ValueKind, value: object) -> bool | int | float | str:
    """``value`` as the Python type of ``kind``; raises `errors.WrongKeyKind` when it does not fit."""
    if isinstance(value, np.generic):
        value = value.item()
    if kind.name == "str" and isinstance(value, str):
        return value
    if kind.name == "bool" and isinstance(value, bool):
        return value
    if kind.high and isinstance(value, int) and not isinstance(value, bool) and kind.low <= value <= kind.high:
        return value
    if kind.letter.startswith("f") and isinstance(value, (int, float)) and not isinstance(value, bool):
        if kind.name == "f64" or not math.isfinite(value) or abs(value) < 3.4028236e38:
            return float(value)
    raise errors.WrongKeyKind("the value does not fit its kind", where=key, expected=kind.name, actual=repr(value)[:60])
