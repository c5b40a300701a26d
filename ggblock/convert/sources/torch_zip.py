"""Read torch checkpoints (``.bin``, ``.pt``, ``.pth``) in the zip format that torch writes since 1.6: weights only.

The archive holds ``data.pkl`` and one uncompressed entry ``data/KEY`` a storage; the entries are used where they lie in
the mapped file. The pickle is read by `unpickle`, which knows tensors and nothing else.
"""
from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

from ... import errors
from ...format.mapped import Mapped
from .stored import PlainTensor, plain_type
from .unpickle import View, load

#: Bytes of ``data.pkl``; real ones have some 100 a tensor.
MAX_PICKLE_BYTES = 1 << 28
#: Keys under which training frameworks put the weights, beside optimizer states and the like.
WRAPPERS = ("state_dict", "model", "module")
MAX_DIMS = 8


def read(mapped: Mapped) -> dict[str, PlainTensor]:
    """All tensors of a torch file by name, in the order of its dictionary.

    Raises `errors.UnsafePickle`, or `errors.BadCheckpoint` for a damaged archive, the format before torch 1.6,
    compressed entries, views outside their storage, or a file without tensors.
    """
    if mapped.data[:2] == b"\x80\x02":
        raise errors.BadCheckpoint(
            "in torch's format from before version 1.6; load it with torch and save it again", file=mapped.path
        )
    try:
        with zipfile.ZipFile(_MappedStream(mapped)) as archive:
            entries = {info.filename: info for info in archive.infolist()}
            pickle_name = next((name for name in entries if name.endswith("/data.pkl") or name == "data.pkl"), None)
            if pickle_name is None:
                raise errors.BadCheckpoint("a zip file without data.pkl is no torch checkpoint", file=mapped.path)
            folder = pickle_name[: -len("data.pkl")]
            if entries[pickle_name].file_size > MAX_PICKLE_BYTES:
                raise errors.BadCheckpoint("data.pkl is too large", file=mapped.path, where=pickle_name,
                                           expected=f"at most {MAX_PICKLE_BYTES}",
                                           actual=entries[pickle_name].file_size)
            program = archive.read(pickle_name)
            order = archive.read(folder + "byteorder") if folder + "byteorder" in entries else b"little"
    except (zipfile.BadZipFile, ValueError, EOFError, struct.error, OverflowError, OSError, RuntimeError,
            NotImplementedError) as fault:
        raise errors.BadCheckpoint(
            f"not a whole torch file: {fault or type(fault).__name__}", file=mapped.path
        ) from None
    if order.strip() != b"little":
        raise errors.BadCheckpoint("a big-endian torch file", file=mapped.path, actual=order[:20])
    found = _weights(load(program, mapped.path))
    if not found:
        raise errors.BadCheckpoint("the file holds no tensors", file=mapped.path)
    return {name: _place(mapped, entries, folder, name, view) for name, view in found.items()}


class _MappedStream(io.RawIOBase):
    """The mapping as a stream, so that zipfile reads the very bytes that are used later."""

    def __init__(self, mapped: Mapped) -> None:
        self._mapped, self._at = mapped, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        at = (0, self._at, self._mapped.size)[whence] + offset
        if at < 0:
            raise ValueError("a position before the start")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        part = self._mapped.data[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def _weights(value: Any) -> dict[str, View]:
    if not isinstance(value, dict):
        return {}
    found = {name: item for name, item in value.items() if isinstance(name, str) and isinstance(item, View)}
    if found:
        return found
    return next((inner for key in WRAPPERS if (inner := _weights(value.get(key)))), {})


def _place(
    mapped: Mapped, entries: dict[str, zipfile.ZipInfo], folder: str, name: str, view: View
) -> PlainTensor:
    def bad(message: str, expected: object = None, actual: object = None) -> errors.BadCheckpoint:
        return errors.BadCheckpoint(message, file=mapped.path, where=name, expected=expected, actual=actual)

    kind = plain_type(view.storage.dtype, file=mapped.path, where=name)
    info = entries.get(f"{folder}data/{view.storage.key}")
    if info is None:
        raise bad("the archive lacks the tensor's storage", f"data/{view.storage.key}", "no such entry")
    if info.compress_type != zipfile.ZIP_STORED:
        raise bad("the storage is compressed, which torch never does")
    head = mapped.data[info.header_offset : info.header_offset + 30]
    if len(head) < 30 or head[:4] != b"PK\x03\x04":
        raise bad("the archive's local header is damaged")
    start = info.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
    if len(view.shape) > MAX_DIMS:
        raise bad("too many dimensions", f"at most {MAX_DIMS}", len(view.shape))
    end = view.offset + sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True)) + 1
    if 0 in view.shape:
        end = view.offset
    available = min(info.file_size, mapped.size - start) // kind.block_bytes
    if end > available:
        raise bad("the tensor reaches beyond its storage", f"at most {available} numbers", end)
    plain, step = [], 1
    for n in reversed(view.shape):
        plain.append(step)
        step *= n
    contiguous = all(s == p or n == 1 for n, s, p in zip(view.shape, view.strides, reversed(plain), strict=True))
    strides = None if contiguous else view.strides
    return PlainTensor(name, view.shape, kind, mapped, start + view.offset * kind.block_bytes, strides)
