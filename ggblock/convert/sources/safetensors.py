"""Read safetensors files: a JSON header, then the tensors' bytes.

Own code instead of the ``safetensors`` package, for three reasons: the package gives NumPy no bfloat16 (its ``numpy``
side refuses the type that most checkpoints have), it does not tell where a tensor's bytes are (which is needed to
read rows of a mapped file, and to let go of them), and its messages name neither file nor tensor. The format is one
page; everything in the header is checked here before it is used.
"""
from __future__ import annotations

import json
import math
from typing import Any

from ... import errors
from ...format.mapped import Mapped
from .stored import PlainTensor, plain_type

#: Bytes of a header; the format's own limit.
MAX_HEADER_BYTES = 100_000_000
#: Dimensions of a tensor, far more than any checkpoint has.
MAX_DIMS = 8


def read(mapped: Mapped) -> dict[str, PlainTensor]:
    """All tensors of a safetensors file by name, sorted by name (as other readers list them).

    Raises `errors.BadCheckpoint` for anything that breaks the format: sizes, JSON, dtypes, offsets outside the file,
    overlaps, gaps, or a shape that needs other bytes than its range.
    """
    head = _header(mapped)
    base = 8 + int.from_bytes(mapped.data[:8], "little")
    ranges: list[tuple[int, int, str]] = []
    tensors: dict[str, PlainTensor] = {}
    for name in sorted(head):
        if name == "__metadata__":
            continue
        tensor, start, end = _tensor(mapped, name, head[name], base)
        ranges.append((start, end, name))
        tensors[name] = tensor
    position, before = 0, "the start of the data"
    for start, end, name in sorted(ranges):
        if start != position:
            raise errors.BadCheckpoint(
                f"the tensor does not begin where {before} ends", file=mapped.path, where=name,
                expected=f"offset {position}", actual=start,
            )
        position, before = end, name
    if base + position != mapped.size:
        what = "the file is cut short" if base + position > mapped.size else "bytes after the last tensor"
        raise errors.BadCheckpoint(
            what, file=mapped.path, where=before if tensors else None, expected=f"{base + position} bytes",
            actual=mapped.size,
        )
    return tensors


def _header(mapped: Mapped) -> dict[str, Any]:
    if mapped.size < 8:
        raise errors.BadCheckpoint("too short for safetensors", file=mapped.path, actual=f"{mapped.size} bytes")
    n_bytes = int.from_bytes(mapped.data[:8], "little")
    if n_bytes > min(MAX_HEADER_BYTES, mapped.size - 8):
        raise errors.BadCheckpoint(
            "the header does not fit the file, which is cut short or no safetensors file", file=mapped.path,
            offset_bytes=0, expected=f"at most {min(MAX_HEADER_BYTES, mapped.size - 8)}", actual=n_bytes,
        )
    try:
        head = json.loads(mapped.data[8 : 8 + n_bytes].decode("utf-8"), object_pairs_hook=_unique)
    except (UnicodeDecodeError, ValueError, RecursionError) as fault:
        raise errors.BadCheckpoint(f"the header is no valid JSON: {fault}", file=mapped.path, offset_bytes=8) from None
    if not isinstance(head, dict):
        raise errors.BadCheckpoint("the header is no JSON object", file=mapped.path, offset_bytes=8)
    return head


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("the same name twice")
    return found


def _tensor(mapped: Mapped, name: str, entry: Any, base: int) -> tuple[PlainTensor, int, int]:
    def bad(message: str, expected: str, actual: object) -> errors.BadCheckpoint:
        return errors.BadCheckpoint(message, file=mapped.path, where=name, expected=expected, actual=actual)

    if not isinstance(entry, dict):
        raise bad("the header's entry is no object", "an object", type(entry).__name__)
    shape: Any = entry.get("shape")
    span: Any = entry.get("data_offsets")
    dtype: Any = entry.get("dtype")
    if not _naturals(shape) or len(shape) > MAX_DIMS:
        raise bad("a bad shape", f"up to {MAX_DIMS} whole numbers", shape)
    if not _naturals(span) or len(span) != 2 or span[0] > span[1]:
        raise bad("bad offsets", "two whole numbers in order", span)
    if not isinstance(dtype, str):
        raise bad("no dtype", "a string", dtype)
    kind = plain_type(dtype, file=mapped.path, where=name)
    n_bytes = math.prod(shape) * kind.block_bytes
    if n_bytes != span[1] - span[0]:
        raise bad(f"the shape {tuple(shape)} does not fit the bytes", f"{n_bytes} bytes", span[1] - span[0])
    if base + span[1] > mapped.size:
        raise errors.BadCheckpoint(
            "the tensor's bytes lie outside the file, which may be cut short", file=mapped.path, where=name,
            expected=f"a file of at least {base + span[1]} bytes", actual=mapped.size,
        )
    return PlainTensor(name, tuple(shape), kind, mapped, base + span[0]), span[0], span[1]


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value)
