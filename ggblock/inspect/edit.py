"""Change a file's metadata and tensor names, and leave every tensor's bytes as they are.

The result appears under its name whole or not at all: it is made beside it and then renamed. Where the file system can
share blocks between files (Btrfs, XFS), nothing but the header is written; one that grows or shrinks is filled up, so
that the data move by whole blocks. Elsewhere the system copies the data without passing it through this process.
"""
from __future__ import annotations

import errno
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from .. import errors
from ..format import checksums, encode, ggb, header, kinds, validate
from ..format.mapped import Mapped
from ..format.metadata import Typed, infer
from . import files
from .files import PADDING

#: Linux's ioctl that makes a range of one file share the blocks of another's.
_FICLONERANGE = 0x4020940D
#: Ranges are shared in multiples of this: the block size of Btrfs and XFS on most machines.
_BLOCK = 4096
_STEP = 1 << 24


@dataclass(frozen=True)
class Changes:
    """What to change. ``values``: key to new value. ``remove``: keys. ``rename``: tensor's old name to new name.

    ``seal``: add checksums (`checksums`), which reads every tensor once.
    """

    values: Mapping[str, Typed]
    remove: Sequence[str] = ()
    rename: Mapping[str, str] | None = None
    seal: bool = False


@dataclass(frozen=True)
class Edited:
    """What was done. ``how``: ``reflink`` (data shared with the input) or ``copy``. ``header_bytes`` were written
    anew, ``tensor_bytes`` carried over."""

    path: str
    n_bytes: int
    how: str
    header_bytes: int
    tensor_bytes: int


def edit(path: str | os.PathLike[str], out: str | os.PathLike[str] | None, changes: Changes) -> Edited:
    """Write ``path`` with ``changes`` to ``out``; None replaces ``path`` itself, only where the header's size allows.

    Of a split file, ``path`` is the part to change. Raises `errors.CannotRead` or a FormatError for the input,
    `errors.MissingKey`, `errors.MissingTensor`, `errors.DuplicateTensor`, `errors.WrongKeyKind`,
    `errors.BadTensorName`, `errors.BadAlignment`, `errors.SettingError` for changes that cannot be made,
    `errors.WouldOverwriteInput`, `errors.CannotWrite` or `errors.DiskFull`.
    """
    source = os.fspath(path)
    with Mapped(source) as mapped:
        head = header.parse(mapped)
        placed = validate.place(head, mapped, validate.alignment(head.values, source))
        if mapped.big_endian:
            raise errors.UnsupportedVersion("a big-endian file cannot be edited; convert it", file=source)
        old_align = validate.alignment(head.values, source)
        old_base = -(-head.end // old_align) * old_align
        spans = [(p.start, p.start + p.n_bytes) for p in placed]
        values = _values(head, changes, source)
        _keep_profile(head.values, values, any(p.in_panels for p in placed), source)
        if changes.seal:
            values.update(checksums.room(len(spans)))
            values[checksums.TENSORS] = Typed("str[]", [_digest(mapped, *span) for span in spans])
        elif checksums.HEADER in values:
            values[checksums.HEADER] = Typed("str", checksums.UNKNOWN)
        records = _records(head, changes, source)
        align = _alignment(values, records, source)
        target = source if out is None else os.fspath(out)
        # By whole blocks only where those are whole alignments too; a larger alignment moves by them anyway.
        whole = out is not None and not (_BLOCK % align or old_base % align)
        block = _BLOCK if whole and _can_share(mapped, target) else 1
        new = _sized(values, records, align, old_base, keep=out is None, path=source, block=block)
        gaps = (mapped.data[start:end] for start, end in _gaps(old_base, mapped.size, spans))
        if checksums.HEADER in values:
            new = checksums.seal(new, gaps)
        if out is not None:
            files.refuse_inputs(target, [source])
        return _write(mapped, target, new, old_base, sum(end - start for start, end in spans))


def parse_setting(text: str, file_values: Mapping[str, Typed]) -> tuple[str, Typed]:
    """``KEY=VALUE`` or ``KEY:KIND=VALUE``: the kind is that of the key in the file, or the usual one of the value.

    ``VALUE`` is text for ``str``, else JSON (``true``, ``12``, ``[1, 2]``); ``@PATH`` takes a text from a file.
    Raises `errors.SettingError`, `errors.WrongKeyKind` or `errors.CannotRead`.
    """
    left, sign, raw = text.partition("=")
    key, colon, kind = left.rpartition(":")
    names = {*kinds.BY_NAME, *(f"{name}[]" for name in kinds.BY_NAME)} - {"array", "array[]"}
    if not colon or kind not in names:
        key, kind = left, file_values[left].kind if left in file_values else ""
    if not sign or not key:
        raise errors.SettingError("not KEY=VALUE", where="--set", actual=text[:60])
    if raw.startswith("@") and kind in ("", "str"):
        try:
            with open(raw[1:], encoding="utf-8", errors="surrogateescape") as stream:
                return key, Typed("str", stream.read())
        except OSError as fault:
            raise errors.CannotRead(f"cannot be read: {fault.strerror}", file=raw[1:]) from None
    if kind == "str":
        return key, Typed("str", raw)
    try:
        value = json.loads(raw)
    except ValueError:
        if kind:
            raise errors.WrongKeyKind("not a value of that kind", where=key, expected=kind, actual=raw[:60]) from None
        return key, Typed("str", raw)
    if not kind:
        plain = isinstance(value, (bool, int, float, list))
        return key, infer(key, value) if plain else Typed("str", raw)
    return key, Typed(kind, value)


def _values(head: header.Header, changes: Changes, path: str) -> dict[str, Typed]:
    values = dict(head.values)
    for key in changes.remove:
        if key not in values:
            raise errors.MissingKey("no such key to remove", file=path, where=key)
        if key in checksums.KEYS:  # one without the other would look like damage
            for each in checksums.KEYS:
                values.pop(each, None)
        values.pop(key, None)
    for key, typed in changes.values.items():
        if key in checksums.KEYS or key == PADDING:
            raise errors.SettingError("this key is computed", file=path, where=key)
        if key in changes.remove:
            raise errors.SettingError("set and removed at once", file=path, where=key)
        values[key] = typed
    return values


def _keep_profile(old: Mapping[str, Typed], new: Mapping[str, Typed], in_panels: bool, path: str) -> None:
    """Refuse changes after which a GGB file would be neither GGB nor GGUF."""
    if ggb.VERSION not in old and not in_panels:
        added = next((key for key in new if key.startswith(ggb.PREFIX) and key not in old), None)
        if added is not None:
            raise errors.SettingError("only a conversion makes a GGB file", file=path, where=added)
        return
    kept = [ggb.VERSION, ggb.OLD_ALIGNMENT, "general.alignment", *(key for key in checksums.KEYS if key not in new)]
    for key in kept:
        if old.get(key) != new.get(key):
            raise errors.SettingError("the GGB profile needs this key as it is; convert the file to GGUF first",
                                      file=path, where=key)  # fmt: skip


def _records(head: header.Header, changes: Changes, path: str) -> list[header.TensorRecord]:
    rename = changes.rename or {}
    known = {record.name for record in head.records}
    for name in rename:
        if name not in known:
            raise errors.MissingTensor("no such tensor to rename", file=path, where=name)
    records = [replace(record, name=rename.get(record.name, record.name)) for record in head.records]
    seen: set[str] = set()
    for record in records:
        if record.name in seen:
            raise errors.DuplicateTensor("two tensors would have this name", file=path, where=record.name)
        seen.add(record.name)
    return records


def _alignment(values: dict[str, Typed], records: list[header.TensorRecord], path: str) -> int:
    align = validate.alignment(values, path)
    for record in records:
        if record.offset % align:
            raise errors.BadAlignment(
                "the tensor's place does not respect the new alignment, and tensors are not moved", file=path,
                where=record.name, expected=f"a multiple of {align}", actual=record.offset,
            )
    return align


def _sized(values: dict[str, Typed], records: list[header.TensorRecord], align: int, old_base: int, *, keep: bool,
           path: str, block: int = 1) -> bytes:  # fmt: skip
    """The new header with its padding, and a filler key where that is needed.

    ``keep``: of exactly ``old_base`` bytes. Else ``old_base`` more or less a multiple of ``block``.
    """
    had_filler = values.pop(PADDING, None) is not None
    plain = encode.header(values, records)
    base = -(-len(plain) // align) * align
    if base == old_base or (not (keep or had_filler) and (base - old_base) % block == 0):
        return plain.ljust(base, b"\0")
    # The filler's own record: length, name, kind, element kind, count, and its zeros.
    least = len(plain) + 8 + len(PADDING) + 4 + 4 + 8
    room = old_base - least
    if not keep and block > 1:
        room = room % block
        filled = encode.header({**values, PADDING: Typed("u8[]", [0] * room)}, records)
        return filled
    if base < old_base and room >= 0:
        filled = encode.header({**values, PADDING: Typed("u8[]", [0] * room)}, records)
        return filled.ljust(-(-len(filled) // align) * align, b"\0")
    if not keep:
        return plain.ljust(base, b"\0")
    raise errors.SettingError(
        "the new header does not fit in its place; write another file instead", file=path,
        expected=f"at most {old_base} bytes", actual=len(plain),
    )


def _digest(mapped: Mapped, start: int, end: int) -> str:
    digest = checksums.new()
    view = memoryview(mapped.data)
    try:
        for at in range(start, end, _STEP):
            digest.update(view[at : min(end, at + _STEP)])
    finally:
        view.release()
    return str(digest.hexdigest())


def _gaps(base: int, size: int, spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    end = base
    for start, stop in spans:
        yield end, start
        end = stop
    yield end, size


def _write(mapped: Mapped, target: str, new: bytes, old_base: int, tensor_bytes: int) -> Edited:
    n_bytes = len(new) + max(0, mapped.size - old_base)
    temporary = files.temporary_name(target)
    try:
        if os.path.isdir(target):
            raise errors.CannotWrite("is a directory", file=target)
        with open(mapped.path, "rb") as source, open(temporary, "xb") as stream:
            stream.write(new)
            # Up to where a block begins in both files, the data are copied; the rest is shared where it can be.
            shared = min(mapped.size, -(-old_base // _BLOCK) * _BLOCK)
            stream.write(mapped.data[old_base:shared])
            stream.flush()
            how = "reflink"
            if not _share(source.fileno(), stream.fileno(), shared, stream.tell()):
                how = "copy"
                _copy(source.fileno(), stream.fileno(), shared, mapped.size - shared)
            stream.flush()
            os.fsync(stream.fileno())
        shutil.copymode(mapped.path, temporary)
        os.replace(temporary, os.path.realpath(target))
    except OSError as fault:
        raise files.named(fault, target) from None
    finally:
        with suppress(OSError):
            os.unlink(temporary)
    return Edited(target, n_bytes, how, len(new), tensor_bytes)


def _can_share(mapped: Mapped, target: str) -> bool:
    """Whether a file beside ``target`` can share blocks with the mapped one: tried with one block."""
    if mapped.size < _BLOCK:
        return False
    try:
        with open(mapped.path, "rb") as source, tempfile.TemporaryFile(dir=os.path.dirname(target) or ".") as probe:
            return _share(source.fileno(), probe.fileno(), 0, 0, _BLOCK)
    except OSError:
        return False


def _share(source: int, target: int, offset: int, to: int, n_bytes: int = 0) -> bool:
    """Make ``target``, from ``to`` on, share the blocks of ``source`` from ``offset`` on, to its end for 0 ``n_bytes``.

    False where the file system cannot, or where the two places are no whole blocks apart.
    """
    try:
        import fcntl

        fcntl.ioctl(target, _FICLONERANGE, struct.pack("=qQQQ", source, offset, n_bytes, to))
    except (ImportError, OSError):
        return False
    return True


def _copy(source: int, target: int, offset: int, n_bytes: int) -> None:
    """Append bytes of ``source`` to ``target``, inside the kernel where it can."""
    os.lseek(source, offset, os.SEEK_SET)
    in_kernel: Any = getattr(os, "copy_file_range", None)
    while n_bytes > 0:
        if in_kernel is not None:
            try:
                done = in_kernel(source, target, min(n_bytes, 1 << 30))
            except OSError as fault:
                if fault.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
                    raise
                in_kernel = None
                continue
        else:
            piece = os.read(source, min(n_bytes, _STEP))
            done = len(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(target, view) :]
        if done == 0:
            raise OSError(errno.EIO, "the input became shorter")
        n_bytes -= done
