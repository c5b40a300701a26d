"""Tensors to compare with, by name, from a GGUF or a safetensors file."""
from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from .. import errors
from ..format.limits import MAX_DIMS
from ..format.mapped import Mapped
from ..format.reader import GgufFile, open_gguf
from .maps import F32

#: A safetensors header is at most this long, by that format's own rule.
_MAX_HEADER = 100_000_000
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class SafeTensor:
    """One tensor of a safetensors file: ``shape``, and `rows` as float32."""

    def __init__(self, mapped: Mapped, name: str, dtype: str, shape: tuple[int, ...], start: int) -> None:
        self._mapped, self.name, self._dtype, self.shape, self._start = mapped, name, dtype, shape, start
        self.n_cols = shape[-1] if shape else 1
        self.n_weights = int(np.prod(shape, dtype=np.int64))

    def rows(self, i0: int, i1: int) -> F32:
        """Rows ``i0`` to ``i1``, all dimensions but the last counted as rows: float32 (i1 - i0, n_cols)."""
        kind = np.dtype(_DTYPES[self._dtype])
        n = (i1 - i0) * self.n_cols
        raw = np.frombuffer(self._mapped.data, kind, n, self._start + i0 * self.n_cols * kind.itemsize)
        if self._dtype == "BF16":
            raw = (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
        values: F32 = raw.astype(np.float32).reshape(i1 - i0, self.n_cols)
        return values


class SafetensorsFile:
    """The tensors of a safetensors file, by name; only floating-point ones can be read. Use it in ``with``."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._mapped = Mapped(path)
        try:
            self.tensors = self._parse()
        except BaseException:
            self._mapped.close()
            raise

    def _bad(self, message: str, **facts: Any) -> errors.FormatError:
        return errors.FormatError(message, file=self._mapped.path, **facts)

    def _parse(self) -> dict[str, SafeTensor]:
        size = self._mapped.size
        if size < 8:
            raise self._bad("not a safetensors file: it has no header")
        n_header = int.from_bytes(self._mapped.data[:8], "little")
        if n_header > min(size - 8, _MAX_HEADER):
            raise self._bad("not a safetensors file: its header is too long", expected=f"at most {size - 8} bytes",
                            actual=n_header)  # fmt: skip
        try:
            header = json.loads(self._mapped.data[8 : 8 + n_header])
        except (ValueError, RecursionError):
            raise self._bad("not a safetensors file: its header is not JSON", offset_bytes=8) from None
        if not isinstance(header, dict):
            raise self._bad("not a safetensors file: its header is no object", offset_bytes=8)
        base = 8 + n_header
        return {
            name: self._tensor(name, entry, base, size) for name, entry in header.items() if name != "__metadata__"
        }

    def _tensor(self, name: str, entry: Any, base: int, size: int) -> SafeTensor:
        try:
            dtype, dims, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            good = isinstance(dtype, str) and all(isinstance(n, int) and n >= 0 for n in (*dims, start, end))
        except (KeyError, TypeError, ValueError):
            good = False
        if not good or not 0 <= start <= end <= size - base or len(dims) > 2 * MAX_DIMS:
            raise self._bad("a tensor's entry in the header is not usable", where=name)
        if dtype in _DTYPES:
            n_bytes = np.dtype(_DTYPES[dtype]).itemsize
            for n in dims:
                n_bytes *= n
            if n_bytes != end - start:
                raise self._bad("a tensor's shape and size disagree", where=name, expected=n_bytes, actual=end - start)
        return SafeTensor(self._mapped, name, dtype, dims, base + start)

    def close(self) -> None:
        """Let go of the file."""
        self._mapped.close()

    def __enter__(self) -> SafetensorsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_any(path: str | os.PathLike[str]) -> GgufFile | SafetensorsFile:
    """Open a GGUF file (by its first bytes), or else a safetensors file. Raises `errors.CannotRead` or FormatError."""
    mapped = Mapped(path)
    magic = mapped.data[:4]
    mapped.close()
    return open_gguf(path) if magic == b"GGUF" else SafetensorsFile(path)


def find(file: GgufFile | SafetensorsFile, name: str, shape: tuple[int, ...]) -> Any:
    """The tensor ``name`` of a reference file; raises `errors.MissingTensor`, `errors.ShapeMismatch` or FormatError."""
    path = file.path if isinstance(file, GgufFile) else file._mapped.path
    if name not in file.tensors:
        raise errors.MissingTensor("the reference has no such tensor", file=path, where=name)
    found = file.tensors[name]
    if found.shape != shape:
        raise errors.ShapeMismatch(
            "the reference has another shape", file=path, where=name, expected=shape, actual=found.shape
        )
    if isinstance(found, SafeTensor) and found._dtype not in _DTYPES:
        raise errors.FormatError(
            "the reference holds no floating-point numbers", file=path, where=name,
            expected=" ".join(_DTYPES), actual=found._dtype,
        )
    return found
