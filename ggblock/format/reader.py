"""Open a file, or all parts of a split one, as metadata and tensors. Nothing is read before it is asked for."""
from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType, TracebackType

import numpy as np
from numpy.typing import NDArray

from .. import errors
from ..blocks import BlockType, tails
from . import byteorder, header, limits, panels, splits, validate
from .mapped import Mapped
from .metadata import Metadata


class Tensor:
    """One tensor of an open file.

    ``name``. ``type``: its `BlockType`. ``shape``: NumPy's order, rows first, e.g. (n_vocab, n_embd); ``ne`` is the
    same reversed, as in the file. ``n_weights``, ``n_rows``, ``n_cols``: a tensor of more than two dimensions is
    seen as rows of ``n_cols`` weights. ``row_bytes``: of a row of blocks. ``n_bytes``: stored
    size. ``in_panels``: whether 16 rows are interleaved in the file (``spec/panels.md``); every method gives rows.
    ``row``: how a row is cut into blocks; of a tensor in panels the last one may be a tail (`blocks.tails`).
    ``offset_bytes``: of its first byte
    in ``path``, the file (or part) that holds it. All views raise ValueError once the file is closed.
    """

    __slots__ = (
        "_mapped", "in_panels", "n_bytes", "n_rows", "n_weights", "name", "ne", "offset_bytes", "row", "row_bytes",
        "type",
    )  # fmt: skip

    def __init__(self, mapped: Mapped, placed: validate.Placed) -> None:
        self._mapped = mapped
        self.name: str = placed.record.name
        self.type: BlockType = placed.type
        self.ne: tuple[int, ...] = placed.record.ne
        self.n_weights: int = placed.n_weights
        self.n_rows: int = placed.n_rows
        self.row_bytes: int = placed.row_bytes
        self.n_bytes: int = placed.n_bytes
        self.in_panels: bool = placed.in_panels
        self.offset_bytes: int = placed.start
        self.row: tails.Row = tails.row(self.type, self.n_cols, self.in_panels)

    @property
    def path(self) -> str:
        """The file, or the part of a split file, that holds the tensor."""
        return self._mapped.path

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions, rows first."""
        return self.ne[::-1]

    @property
    def n_cols(self) -> int:
        """Weights a row."""
        return self.ne[0] if self.ne else 1

    @property
    def raw(self) -> NDArray[np.uint8]:
        """The blocks as they lie in the file: uint8 (n_rows, row_bytes), a read-only view of the mapping.

        Of a big-endian file, and of a tensor in panels, it is a converted copy: rows of little-endian blocks.
        """
        return self._raw_rows(0, self.n_rows)

    @property
    def panels(self) -> NDArray[np.uint8]:
        """The panels of a tensor that is ``in_panels``: uint8 (n_panels, panel_bytes), a view of the mapping."""
        if not self.in_panels:
            raise ValueError(f"{self.name} is not in panels")
        return self._panels(0, -(-self.n_rows // panels.ROWS))

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The blocks of some rows, in the order asked for: uint8 (len(rows), row_bytes), a copy."""
        if not self.in_panels:
            return self.raw[rows]
        out = np.empty((len(rows), self.row_bytes), np.uint8)
        for i, row in enumerate(rows.tolist()):
            out[i] = self.raw_rows(row, row + 1)[0]
        return out

    def _panels(self, p0: int, p1: int) -> NDArray[np.uint8]:
        size = panels.panel_bytes(self.type.name, self.row_bytes)
        start = self.offset_bytes + p0 * size
        return np.frombuffer(self._mapped.data, np.uint8, (p1 - p0) * size, start).reshape(p1 - p0, size)

    def release(self) -> None:
        """Tell the system that the tensor's pages need not stay in memory; they are read again when touched."""
        self._mapped.release(self.offset_bytes, self.n_bytes)

    def raw_rows(self, i0: int, i1: int) -> NDArray[np.uint8]:
        """Rows ``i0`` to ``i1`` (exclusive) of `raw`: uint8 (i1 - i0, row_bytes); IndexError outside 0..n_rows."""
        if not 0 <= i0 <= i1 <= self.n_rows:
            raise IndexError(f"{self.name}: rows {i0} to {i1} of {self.n_rows}")
        return self._raw_rows(i0, i1)

    def rows(self, i0: int, i1: int) -> NDArray[np.float32]:
        """Rows ``i0`` to ``i1`` (exclusive) as float32 (i1 - i0, n_cols); IndexError outside 0..n_rows."""
        if not 0 <= i0 <= i1 <= self.n_rows:
            raise IndexError(f"{self.name}: rows {i0} to {i1} of {self.n_rows}")
        return self.row.decode(self._raw_rows(i0, i1))

    def dequantize(self) -> NDArray[np.float32]:
        """All weights as a new float32 array of ``shape``."""
        return self.rows(0, self.n_rows).reshape(self.shape)

    def _raw_rows(self, i0: int, i1: int) -> NDArray[np.uint8]:
        n_bytes, start = (i1 - i0) * self.row_bytes, self.offset_bytes + i0 * self.row_bytes
        if n_bytes == 0:
            return np.empty((0, self.row_bytes), np.uint8)
        if self.in_panels:
            p0, p1 = i0 // panels.ROWS, -(-i1 // panels.ROWS)
            rows = panels.from_panels(self._panels(p0, p1), self.type.name, i1 - p0 * panels.ROWS)
            return np.ascontiguousarray(rows[i0 - p0 * panels.ROWS :, : self.row_bytes])
        view = np.frombuffer(self._mapped.data, np.uint8, n_bytes, start).reshape(i1 - i0, self.row_bytes)
        return byteorder.swap(view, self.type) if self._mapped.big_endian else view

    def __repr__(self) -> str:
        return f"<Tensor {self.name}: {self.type.label} {self.shape}>"


class GgufFile:
    """An open file: ``metadata``, ``tensors``, and the facts of its container. Close it, or use it in ``with``.

    ``path``: as given to `open_gguf`; ``paths``: every part, in order (one for a file that is not split).
    ``version``: 2 or 3. ``byte_order``: ``"little"`` or ``"big"``. ``alignment``: of the first part, bytes.
    ``metadata``: `Metadata`, that of the first part, without ``split.*`` when there are several. ``tensors``: name
    to `Tensor`, read-only, in file order.
    ``n_bytes``: size of all parts together.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        with ExitStack() as on_error:
            first, head = self._open_part(path, on_error)
            self.path = first.path
            count = splits.part_count(head.values, first.path)
            parts = [(first, head)]
            if count > 1:
                paths = splits.part_paths(first.path, count)
                given = paths.index(first.path)
                parts = [(first, head) if i == given else self._open_part(p, on_error) for i, p in enumerate(paths)]
            self._parts = [mapped for mapped, _ in parts]
            self.paths = tuple(mapped.path for mapped in self._parts)
            mapped, head = parts[0]
            self.version = head.version
            self.byte_order = "big" if mapped.big_endian else "little"
            self.alignment = validate.alignment(head.values, mapped.path)
            # What is read as one file does not claim to be a part.
            values = {k: v for k, v in head.values.items() if count == 1 or k not in splits.KEYS}
            self.metadata = Metadata(values, self.paths)
            self.tensors: Mapping[str, Tensor] = MappingProxyType(_gather(parts))
            self.n_bytes = sum(each.size for each in self._parts)
            on_error.pop_all()

    @staticmethod
    def _open_part(path: str | os.PathLike[str], on_error: ExitStack) -> tuple[Mapped, header.Header]:
        mapped = Mapped(path)
        on_error.callback(mapped.close)
        return mapped, header.parse(mapped)

    def close(self) -> None:
        """Let go of the file; views of tensors that are still alive stay valid."""
        for mapped in self._parts:
            mapped.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._parts[0].closed

    def __enter__(self) -> GgufFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<GgufFile {self.path}: {len(self.metadata)} keys, {len(self.tensors)} tensors>"


def _gather(parts: list[tuple[Mapped, header.Header]]) -> dict[str, Tensor]:
    """The tensors of all parts in order, after every check of the parts against each other."""
    tensors: dict[str, Tensor] = {}
    first, first_head = parts[0]
    if len(parts) > 1:
        for number, (mapped, head) in enumerate(parts):
            splits.check_part(head.values, mapped.path, number, len(parts))
            splits.check_profile(head.values, mapped.path, first_head.values)
        n_tensors = sum(len(head.records) for _, head in parts)
        splits.check_total(first_head.values, first.path, n_tensors)
        if n_tensors > limits.MAX_TENSORS:
            raise errors.CountTooLarge(
                "more tensors in all parts than is allowed", file=first.path,
                expected=f"at most {limits.MAX_TENSORS}", actual=n_tensors,
            )
    for mapped, head in parts:
        for placed in validate.place(head, mapped, validate.alignment(head.values, mapped.path)):
            name = placed.record.name
            if name in tensors:
                raise errors.DuplicateTensor(
                    f"the same tensor is in {tensors[name].path}", file=mapped.path, where=name,
                    offset_bytes=placed.record.at,
                )
            tensors[name] = Tensor(mapped, placed)
    return tensors


def open_gguf(path: str | os.PathLike[str]) -> GgufFile:
    """Open a GGUF file (version 2 or 3, either byte order), or a split file by the path of any of its parts.

    The whole header is validated before anything is allocated; no tensor byte is read. Raises `errors.CannotRead`,
    a subclass of `errors.FormatError` that names the fault, or `errors.UnknownType` (`errors.RemovedType`).
    """
    return GgufFile(path)
