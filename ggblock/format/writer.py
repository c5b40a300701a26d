"""Write a GGUF file: streaming, so that a model larger than memory can pass through, and atomic.

The bytes go to a temporary file beside the target, which takes the target's name only when it is complete and on the
disk. Whatever stops the writer before that (an exception, Ctrl-C, a full disk) removes the temporary file and leaves
an older target as it was; only a killed process or a power cut can leave a ``.NAME.*.tmp`` behind. Ctrl-C may come
between any two steps, even before ``with`` has begun: then the file goes with the writer, at the latest at exit.
"""
from __future__ import annotations

import errno
import os
import shutil
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .. import blocks, errors
from . import checksums as sums
from . import encode, ggb, limits, panels, validate
from .header import TensorRecord
from .metadata import ArrayValue, Metadata, Typed, infer

#: Bytes after which the system is asked to begin writing them to the disk, so that `finish` has little to wait for:
#: copying 2.1 GB took 5.2 s without it and 4.3 s with it.
WRITE_BEHIND = 1 << 25
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_ALIGNMENT = "general.alignment"


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written: ``name``, block ``type`` (or its name), ``shape`` in NumPy's order, rows first.

    ``in_panels``: store panels of 16 rows, which only ggblock reads; the writer adds the marks of the GGB profile
    (`ggb.marked`). Then rows may be ragged, a multiple of the sub-block. Data are given as rows in any case.
    """

    name: str
    type: blocks.BlockType | str
    shape: tuple[int, ...]
    in_panels: bool = False


@dataclass(frozen=True)
class _Plan:
    """Where one tensor goes. ``start``: offset in the file."""

    name: str
    type: blocks.BlockType
    shape: tuple[int, ...]
    n_rows: int
    row_bytes: int
    start: int
    in_panels: bool

    @property
    def n_bytes(self) -> int:
        return validate.stored_bytes(self.type, self.n_rows, self.row_bytes, self.in_panels)

    @property
    def n_cols(self) -> int:
        return self.shape[-1] if self.shape else 1


class GgufWriter:
    """Writes one GGUF v3 file (little-endian). Use it in ``with``; the file appears when the block ends well::

        with GgufWriter(path, {"general.architecture": "llama"}, [TensorSpec("w", "q8_0", (8, 64))]) as writer:
            writer.write("w", weights)  # float32 (8, 64), or uint8 blocks

    ``metadata``: any mapping; plain values get their usual kind (`metadata.infer`), `Typed` ones theirs, and a
    `Metadata` of an open file keeps every kind. ``tensors``: in the order of the file. ``alignment``: a power of
    two, multiple of 8; None takes ``general.alignment`` from the metadata, or 32. ``inputs``: files being read, which
    must not be overwritten; those that ``metadata`` comes from are added. ``checksums``: store the checksums of
    `checksums` (a file whose metadata have room for the header's gets that one in any case, and a GGB file always gets
    all: a reader refuses one without).

    ``n_bytes``: size of the finished file. Faults in the arguments raise before anything is created:
    `errors.WrongKeyKind`, `errors.BadTensorName`, `errors.DuplicateTensor`, `errors.BadShape`, `errors.BadAlignment`,
    `errors.UnknownType`, `errors.CountTooLarge`, `errors.WouldOverwriteInput`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: Mapping[str, object],
        tensors: Sequence[TensorSpec],
        alignment: int | None = None,
        *,
        inputs: Iterable[str | os.PathLike[str]] = (),
        checksums: bool = False,
    ) -> None:
        self.path = os.fsdecode(path)
        # A symbolic link stays a link: what it points to is replaced.
        self._target = os.path.realpath(self.path)
        self._refuse_inputs(metadata, inputs)
        values = dict(metadata.typed_items() if isinstance(metadata, Metadata) else metadata)
        if any(spec.in_panels for spec in tensors):
            values = ggb.marked(values)
        is_sealed = checksums or ggb.VERSION in values
        if is_sealed:
            values.update(sums.room(len(tensors)))
        self._digests: list[str] | None = [] if is_sealed else None
        self._digest: Any = None  # of the tensor that is being written
        self.alignment = _choose_alignment(values, alignment)
        self._plan, records = self._place(tensors)
        head = encode.header(values, records)
        base = _padded(len(head), self.alignment)
        self._values, self._records = values, records
        self._revised = False
        self._head = head.ljust(base, b"\0")
        self._base = base
        last = self._plan[-1] if self._plan else None
        self.n_bytes = base + (_padded(last.start + last.n_bytes, self.alignment) if last else 0)
        self._index = 0  # of the tensor that is being written
        self._rows_done = 0
        self._begun = 0  # bytes that the system has been asked to write
        self._stream: BinaryIO | None = None
        self._temporary = ""

    def _refuse_inputs(self, metadata: Mapping[str, object], inputs: Iterable[str | os.PathLike[str]]) -> None:
        paths = {os.path.realpath(os.fsdecode(each)) for each in inputs}
        if isinstance(metadata, Metadata):
            paths.update(os.path.realpath(each) for each in metadata.paths)
        for value in metadata.values():
            inner = value.value if isinstance(value, Typed) else value
            if isinstance(inner, ArrayValue):
                paths.add(os.path.realpath(inner.source_path))
        for each in paths:
            with suppress(OSError):
                if each == self._target or os.path.samefile(each, self._target):
                    raise errors.WouldOverwriteInput("the file to be written is also being read", file=self.path)

    def _place(self, tensors: Sequence[TensorSpec]) -> tuple[list[_Plan], list[TensorRecord]]:
        plan: list[_Plan] = []
        records: list[TensorRecord] = []
        names: set[str] = set()
        offset = 0
        for spec in tensors:
            block = blocks.by_name(spec.type) if isinstance(spec.type, str) else spec.type
            if spec.name in names:
                raise errors.DuplicateTensor("the same tensor twice", file=self.path, where=spec.name)
            names.add(spec.name)
            # A single weight is written with one dimension: gguf-py cannot read a tensor that has none.
            ne = tuple(int(n) for n in reversed(spec.shape)) or (1,)
            if len(ne) > limits.MAX_DIMS or min(ne) < 0:
                raise errors.BadShape(
                    "a tensor has 1 to 4 dimensions", file=self.path, where=spec.name, actual=tuple(spec.shape)
                )
            if spec.in_panels and block.name not in panels.UNITS:
                raise errors.UnknownType(f"{block.label} has no panels", file=self.path, where=spec.name)
            number = panels.type_id(block.ggml_id) if spec.in_panels else block.ggml_id
            record = TensorRecord(spec.name, ne, number, offset, 0)
            _, n_rows, row_bytes = validate.sizes(record, block, None, spec.in_panels)
            plan.append(_Plan(spec.name, block, tuple(spec.shape), n_rows, row_bytes, offset, spec.in_panels))
            records.append(record)
            offset = _padded(offset + plan[-1].n_bytes, self.alignment)
        return plan, records

    def __enter__(self) -> GgufWriter:
        if self._stream is not None or self._temporary:
            raise ValueError("a writer is used once")
        folder, name = os.path.split(self._target)
        try:
            if os.path.isdir(self._target):
                raise errors.CannotWrite("is a directory", file=self.path)
            if shutil.disk_usage(folder).free < self.n_bytes:
                raise errors.DiskFull(
                    "no room on the disk", file=self.path, expected=f"{self.n_bytes} bytes free",
                    actual=shutil.disk_usage(folder).free,
                )
            # Not tempfile: its files are private to the user, ours get the usual permissions.
            self._temporary = os.path.join(folder, f".{name[:40]}.{os.urandom(6).hex()}.tmp")
            self._last_resort = weakref.finalize(self, _remove, self._temporary)
            self._stream = open(self._temporary, "xb")
        except OSError as fault:
            raise self._named(fault) from None
        try:
            self._put(self._head)
        except BaseException:
            self._abandon()
            raise
        return self

    def write(self, name: str, data: NDArray[Any]) -> None:
        """Write the next tensor, whole.

        ``data``: its blocks as uint8 (any shape, C order, exactly its bytes), or numbers of its shape, which are
        encoded with the NumPy reference encoder; integers for an integer type are stored as they are.
        Raises `errors.ShapeMismatch` when ``name`` is not the next tensor or ``data`` is not all of it, what
        `blocks.quantize` raises, and `errors.DiskFull` or `errors.CannotWrite`.
        """
        plan = self._expect(name, at_start=True)
        self._rows(plan, data, plan.n_rows)

    def write_rows(self, name: str, data: NDArray[Any]) -> None:
        """Write the next rows of the tensor that is due; it is complete when all its rows are there.

        ``data``: uint8 (n, row_bytes), or numbers (n, n_cols). Raises as `write` does.
        """
        plan = self._expect(name, at_start=False)
        if data.ndim != 2:
            raise errors.ShapeMismatch("rows have two dimensions", file=self.path, where=name, actual=data.shape)
        self._rows(plan, data, len(data))

    def revise(self, values: Mapping[str, object]) -> None:
        """Replace metadata values that are known only after the tensors, such as checksums.

        Each must take as many bytes as the one it replaces. Raises `errors.WrongKeyKind` when it does not, or when
        there is no such key.
        """
        for key in values:
            if key not in self._values:
                raise errors.WrongKeyKind("only a key that was announced can be revised", file=self.path, where=key)
        revised = {**self._values, **values}
        head = encode.header(revised, self._records).ljust(self._base, b"\0")
        if len(head) != len(self._head) or any(
            len(encode.header({key: values[key]}, [])) != len(encode.header({key: self._values[key]}, []))
            for key in values
        ):
            raise errors.WrongKeyKind("a revised value takes another number of bytes", file=self.path)
        self._values, self._head, self._revised = revised, head, True

    def _expect(self, name: str, *, at_start: bool) -> _Plan:
        if self._stream is None:
            raise ValueError("the writer is not open; use it in a with statement")
        due = self._plan[self._index] if self._index < len(self._plan) else None
        if due is None or due.name != name or (at_start and self._rows_done):
            what = "nothing more" if due is None else due.name
            raise errors.ShapeMismatch(
                "tensors are written in their announced order", file=self.path,
                expected=f"{what}, row {self._rows_done}" if self._rows_done else what, actual=name,
            )
        return due

    def _rows(self, plan: _Plan, data: NDArray[Any], n_rows: int) -> None:
        if self._rows_done + n_rows > plan.n_rows:
            raise errors.ShapeMismatch(
                "more rows than the tensor has", file=self.path, where=plan.name, expected=plan.n_rows,
                actual=self._rows_done + n_rows,
            )
        raw = self._encoded(plan, np.asarray(data), n_rows)
        if plan.in_panels:
            if self._rows_done % panels.ROWS:
                raise errors.ShapeMismatch(
                    f"rows in panels are written {panels.ROWS} at a time", file=self.path, where=plan.name,
                    expected=f"a multiple of {panels.ROWS}", actual=self._rows_done,
                )
            rows = panels.fill(raw.reshape(n_rows, plan.row_bytes), plan.type.name)
            raw = panels.to_panels(rows, plan.type.name).reshape(-1)
        if self._rows_done == 0:
            self._pad(self._base + plan.start)
            self._digest = sums.new() if self._digests is not None else None
        self._put(raw)
        if self._digests is not None:
            self._digest.update(raw)
            if self._rows_done + n_rows == plan.n_rows:
                self._digests.append(self._digest.hexdigest())
        self._rows_done += n_rows
        if self._rows_done == plan.n_rows:
            self._index, self._rows_done = self._index + 1, 0

    def _encoded(self, plan: _Plan, data: NDArray[Any], n_rows: int) -> NDArray[np.uint8]:
        n_bytes = n_rows * plan.row_bytes
        if data.dtype == np.uint8:
            if data.size != n_bytes:
                raise errors.ShapeMismatch(
                    f"wrong number of bytes for {plan.type.label} blocks", file=self.path, where=plan.name,
                    expected=n_bytes, actual=data.size,
                )
            return np.ascontiguousarray(data).reshape(-1)
        good: set[tuple[int, ...]] = {(n_rows, plan.n_cols)}
        if n_rows == plan.n_rows:
            good.add(plan.shape)
        if data.shape not in good:
            raise errors.ShapeMismatch(
                "the numbers have another shape than the tensor", file=self.path, where=plan.name,
                expected=(n_rows, plan.n_cols) if plan.shape not in good else plan.shape, actual=data.shape,
            )
        if plan.type.name in ("i8", "i16", "i32", "i64") and data.dtype.kind == "i":
            if data.dtype.itemsize != plan.type.block_bytes:
                raise errors.ShapeMismatch(
                    "integers of another width", file=self.path, where=plan.name, expected=plan.type.name,
                    actual=data.dtype,
                )
            return data.astype(data.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
        try:
            return blocks.quantize(data.reshape(n_rows, plan.n_cols), plan.type, ragged=plan.in_panels).reshape(-1)
        except errors.GgblockError as fault:
            fault.file, fault.where = self.path, ": ".join(part for part in (plan.name, fault.where) if part)
            raise

    def _pad(self, position: int) -> None:
        assert self._stream is not None
        self._put(bytes(position - self._stream.tell()))

    def _put(self, data: bytes | NDArray[np.uint8]) -> None:
        assert self._stream is not None
        try:
            self._stream.write(data.data if isinstance(data, np.ndarray) else data)
        except OSError as fault:
            raise self._named(fault) from None
        position = self._stream.tell()
        if position - self._begun >= WRITE_BEHIND and hasattr(os, "posix_fadvise"):
            with suppress(OSError):  # a hint: on Linux it starts the writing and does not wait for it
                os.posix_fadvise(self._stream.fileno(), self._begun, position - self._begun, os.POSIX_FADV_DONTNEED)
            self._begun = position

    def _named(self, fault: OSError) -> errors.CannotWrite:
        reason = fault.strerror or str(fault)
        if fault.errno in _FULL:
            return errors.DiskFull(f"no room for the file: {reason}", file=self.path, expected=f"{self.n_bytes} bytes")
        return errors.CannotWrite(f"cannot be written: {reason}", file=self.path)

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if fault is None and self._stream is not None:
                self.finish()
        finally:
            self._abandon()

    def finish(self) -> None:
        """Make the file appear before the block ends (which does it otherwise); nothing can be written afterwards."""
        if self._index < len(self._plan):
            missing = self._plan[self._index]
            raise errors.MissingTensor(
                f"{len(self._plan) - self._index} announced tensors were not written", file=self.path,
                where=missing.name, expected=f"{missing.n_rows} rows", actual=self._rows_done,
            )
        self._pad(self.n_bytes)
        assert self._stream is not None
        if self._digests is not None:
            self.revise({sums.TENSORS: Typed("str[]", self._digests)})
        if sums.HEADER in self._values:
            ends = [self._base + plan.start + plan.n_bytes for plan in self._plan]
            starts = [self._base + plan.start for plan in self._plan[1:]] + [self.n_bytes]
            gaps = [bytes(start - end) for end, start in zip(ends, starts, strict=False)]
            self._head, self._revised = sums.seal(self._head, gaps), True
        try:
            if self._revised:
                self._stream.seek(0)
                self._stream.write(self._head)
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            os.replace(self._temporary, self._target)
        except OSError as fault:
            raise self._named(fault) from None
        self._stream = None
        self._last_resort.detach()
        _sync_folder(os.path.dirname(self._target))

    def _abandon(self) -> None:
        """Remove the temporary file unless it has become the target."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(OSError):
                stream.close()  # flushes, which fails again on a full disk
            _remove(self._temporary)
            self._last_resort.detach()


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _padded(n_bytes: int, alignment: int) -> int:
    return -(-n_bytes // alignment) * alignment


def _choose_alignment(values: dict[str, object], alignment: int | None) -> int:
    """The alignment to write with; ``values`` is changed to say so where it is not the default."""
    if alignment is not None:
        if alignment != limits.DEFAULT_ALIGNMENT or _ALIGNMENT in values:
            values[_ALIGNMENT] = Typed("u32", alignment)
    elif _ALIGNMENT in values:
        alignment = validate.alignment({_ALIGNMENT: infer(_ALIGNMENT, values[_ALIGNMENT])}, "")
    else:
        alignment = limits.DEFAULT_ALIGNMENT
    if alignment % 8 or alignment & (alignment - 1) or not 0 < alignment <= limits.MAX_ALIGNMENT:
        raise errors.BadAlignment(
            "the alignment is not usable", where=_ALIGNMENT, expected="a power of two, 8 or more", actual=alignment
        )
    return alignment


def _sync_folder(folder: str) -> None:
    """Make the rename itself durable, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
