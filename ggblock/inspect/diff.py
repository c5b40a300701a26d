"""What differs between two files: metadata and tensors, with the error after decoding where types differ."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..format import checksums, ggb
from ..format.metadata import ArrayValue, StringArray, Typed
from ..format.reader import GgufFile, Tensor
from . import words
from .files import PADDING
from .maps import row_chunks
from .overview import metadata_value

Progress = Callable[[int, int], None]
#: Changes of tensors that are no difference in content.
SAME = frozenset({"moved", "order"})
#: Keys that a conversion between the profiles changes.
_STORAGE = checksums.KEYS | {PADDING, ggb.VERSION, ggb.OLD_ALIGNMENT, "general.alignment"}


@dataclass(frozen=True)
class KeyChange:
    """A metadata key: ``change`` is ``added``, ``removed`` or ``changed``. Values are None where there is none.

    ``first_difference``: index of the first element that differs, for two arrays of one kind. ``is_storage``: it says
    how the file is stored (filler, or what a profile requires where the two have different ones); no difference in
    content.
    """

    key: str
    change: str
    before: Typed | None
    after: Typed | None
    first_difference: int | None = None
    is_storage: bool = False


@dataclass(frozen=True)
class TensorChange:
    """A tensor. ``change``: ``added``, ``removed``, ``shape``, ``type`` (other bytes of the same numbers or nearly),
    ``data`` (same type, other bytes), ``moved`` (same bytes elsewhere; no difference in content) or ``order`` (same
    blocks, rows in the one and panels in the other; no difference in content either).

    ``nmse``: squared error of the second over the squares of the first, where both could be decoded. ``largest``:
    largest difference of a weight. ``n_blocks``: blocks with other bytes (same type); ``first_block``: the first.
    """

    name: str
    change: str
    before: Tensor | None
    after: Tensor | None
    nmse: float | None = None
    largest: float | None = None
    n_blocks: int | None = None
    first_block: int | None = None


@dataclass(frozen=True)
class Difference:
    """Everything that differs. ``order``: whether the common tensors stand in another order."""

    keys: tuple[KeyChange, ...]
    tensors: tuple[TensorChange, ...]
    n_same: int
    order: bool

    @property
    def is_none(self) -> bool:
        """The files hold the same metadata and the same tensors; places in the file do not count."""
        return all(each.is_storage for each in self.keys) and all(each.change in SAME for each in self.tensors)


def diff(first: GgufFile, second: GgufFile, progress: Progress | None = None) -> Difference:
    """Compare two open files. ``progress``: called with (bytes done, bytes of the first file's tensors)."""
    tensors, n_same, done = [], 0, 0
    total = max(1, sum(t.n_bytes for t in first.tensors.values()))
    for name in [*first.tensors, *(name for name in second.tensors if name not in first.tensors)]:
        before, after = first.tensors.get(name), second.tensors.get(name)
        change = _tensor(name, before, after)
        n_same += change is None or change.change in SAME
        if change is not None:
            tensors.append(change)
        if before is not None:
            done += before.n_bytes
            if progress is not None:
                progress(done, total)
    common = [name for name in first.tensors if name in second.tensors]
    order = common != [name for name in second.tensors if name in first.tensors]
    return Difference(tuple(_keys(first, second)), tuple(tensors), n_same, order)


def _keys(first: GgufFile, second: GgufFile) -> list[KeyChange]:
    found = _changed_keys(first, second)
    storage = _STORAGE if (ggb.VERSION in first.metadata) != (ggb.VERSION in second.metadata) else frozenset({PADDING})
    return [replace(each, is_storage=each.key in storage) for each in found]


def _changed_keys(first: GgufFile, second: GgufFile) -> list[KeyChange]:
    out = []
    for key in [*first.metadata, *(key for key in second.metadata if key not in first.metadata)]:
        before = first.metadata.typed(key) if key in first.metadata else None
        after = second.metadata.typed(key) if key in second.metadata else None
        if before is None or after is None:
            out.append(KeyChange(key, "added" if before is None else "removed", before, after))
        elif before.kind != after.kind:
            out.append(KeyChange(key, "changed", before, after))
        else:
            at = _first_difference(before.value, after.value)
            if at is not None:
                out.append(KeyChange(key, "changed", before, after, at if before.kind.endswith("[]") else None))
    return out


def _first_difference(a: object, b: object) -> int | None:
    """None when equal, bit by bit for numbers; else the index of the first element that differs (0 for scalars)."""
    if isinstance(a, ArrayValue) and isinstance(b, ArrayValue):
        if isinstance(a, StringArray) and isinstance(b, StringArray):
            left: Any = a.raw_list()
            right: Any = b.raw_list()
            if left == right:
                return None
        elif a.element_type != "array":
            x, y = a.numpy(), b.numpy()
            if len(x) == len(y) and x.tobytes() == y.tobytes():
                return None
            left, right = [v.tobytes() for v in x], [v.tobytes() for v in y]
        else:
            left, right = list(a), list(b)
            for i, (p, q) in enumerate(zip(left, right, strict=False)):
                if p.kind != q.kind or _first_difference(p, q) is not None:
                    return i
            return None if len(left) == len(right) else min(len(left), len(right))
        for i, (p, q) in enumerate(zip(left, right, strict=False)):
            if p != q:
                return i
        return min(len(left), len(right))
    if isinstance(a, float) and isinstance(b, float):
        return None if np.float64(a).tobytes() == np.float64(b).tobytes() else 0
    return None if a == b else 0


def _tensor(name: str, before: Tensor | None, after: Tensor | None) -> TensorChange | None:
    if before is None or after is None:
        return TensorChange(name, "added" if before is None else "removed", before, after)
    if before.shape != after.shape:
        return TensorChange(name, "shape", before, after)
    if before.type is not after.type:
        nmse, largest = _error(before, after)
        return TensorChange(name, "type", before, after, nmse, largest)
    n_blocks, first_block = _blocks(before, after)
    if n_blocks:
        nmse, largest = _error(before, after)
        return TensorChange(name, "data", before, after, nmse, largest, n_blocks, first_block)
    if before.in_panels != after.in_panels:
        return TensorChange(name, "order", before, after)
    if before.offset_bytes != after.offset_bytes:
        return TensorChange(name, "moved", before, after)
    return None


def _blocks(before: Tensor, after: Tensor) -> tuple[int, int | None]:
    """How many blocks have other bytes, and the first of them."""
    count, first, row = 0, None, before.row
    for i0, i1 in row_chunks(before):
        a, b = before.raw_rows(i0, i1), after.raw_rows(i0, i1)
        if np.array_equal(a, b):
            continue
        parts = [
            (x != y).reshape(i1 - i0, -1, kind.block_bytes).any(axis=2)
            for (kind, x), (_, y) in zip(row.parts(a), row.parts(b), strict=True)
        ]
        wrong = np.concatenate(parts, axis=1).reshape(-1)
        if first is None:
            first = i0 * row.n_blocks + int(np.argmax(wrong))
        count += int(wrong.sum())
    return count, first


def _error(before: Tensor, after: Tensor) -> tuple[float, float]:
    """Squared error over the squares of the first, and the largest difference; infinite where it is not finite."""
    error = signal = largest = 0.0
    for i0, i1 in row_chunks(before):
        with np.errstate(all="ignore"):
            a, b = before.rows(i0, i1).astype(np.float64), after.rows(i0, i1)
            difference = np.abs(a - b)
            difference[(a == b) | (np.isnan(a) & np.isnan(b))] = 0
            difference[~np.isfinite(difference)] = np.inf
            error += float(np.square(difference).sum())
            signal += float(np.square(a[np.isfinite(a)]).sum())
            largest = max(largest, float(difference.max()))
    return (error / signal if signal else (0.0 if error == 0 else np.inf)), largest


def difference_document(first: GgufFile, second: GgufFile, found: Difference) -> dict[str, Any]:
    """The difference as JSON: ``spec/json/diff.schema.json``."""
    return {
        "schema": "ggblock/diff/1", "first": words.json_text(first.path), "second": words.json_text(second.path),
        "same": found.is_none, "n_same_tensors": found.n_same, "order_differs": found.order,
        "metadata": [
            {
                "key": words.json_text(each.key), "change": each.change, "before": _value(each.before),
                "after": _value(each.after), "first_difference": each.first_difference,
                "storage": each.is_storage,
            }
            for each in found.keys
        ],
        "tensors": [
            {
                "name": words.json_text(each.name), "change": each.change, "before": _facts(each.before),
                "after": _facts(each.after),
                "nmse": None if each.nmse is None else words.json_number(each.nmse),
                "largest": None if each.largest is None else words.json_number(each.largest),
                "n_blocks": each.n_blocks, "first_block": each.first_block,
            }
            for each in found.tensors
        ],
    }


def _value(typed: Typed | None) -> dict[str, Any] | None:
    if typed is None:
        return None
    document = {"kind": typed.kind, "value": metadata_value(typed.value)}
    if isinstance(typed.value, ArrayValue):
        document["length"] = len(typed.value)
    return document


def _facts(tensor: Tensor | None) -> dict[str, Any] | None:
    if tensor is None:
        return None
    return {"type": tensor.type.name, "shape": list(tensor.shape), "n_bytes": tensor.n_bytes,
            "order": "panels" if tensor.in_panels else "rows"}  # fmt: skip
