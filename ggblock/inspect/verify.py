"""Whether a file is whole: structure, checksums, values, and metadata that contradict the tensors. Changes nothing."""
from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import errors
from ..format import checksums, header, panels, validate
from ..format.mapped import Mapped
from ..format.metadata import ArrayValue
from ..format.reader import GgufFile, Tensor, open_gguf
from . import manifest, order, words
from .consistency import contradictions
from .overview import FILE_TYPES
from .values import bad_blocks

Progress = Callable[[int, int], None]
_HEX = re.compile(r"[0-9a-f]{64}")
_STEP = 1 << 24


@dataclass(frozen=True)
class Fault:
    """Something wrong. ``code``: for programs. ``where``: tensor, key or part of the file. ``start``, ``end``: its
    bytes in ``path``, ``end`` not included; None where no bytes can be told. A warning is odd but may be meant."""

    code: str
    where: str
    message: str
    path: str
    start: int | None = None
    end: int | None = None
    warning: bool = False


@dataclass(frozen=True)
class Verdict:
    """The result. ``checks``: what was checked, in words; ``faults``: what was found."""

    path: str
    n_bytes: int
    n_tensors: int
    has_checksums: bool
    checks: tuple[str, ...]
    faults: tuple[Fault, ...]

    @property
    def is_whole(self) -> bool:
        """No fault but warnings."""
        return all(fault.warning for fault in self.faults)


def verify(path: str | os.PathLike[str], against: str | os.PathLike[str] | None = None, values: bool = True,
           progress: Progress | None = None) -> Verdict:  # fmt: skip
    """Check a file. ``against``: a ``.sha256`` file or a gguf-hash manifest. ``values``: look at every block too.

    ``progress``: called with (bytes done, bytes). Raises `errors.CannotRead` for a file that is not there, and what
    `manifest.read` raises; every fault of the file itself is in the result.
    """
    name = os.fspath(path)
    expected = None if against is None else manifest.read(os.fspath(against))
    checks: list[str] = []
    faults: list[Fault] = []
    try:
        file = open_gguf(name)
    except errors.CannotRead:
        raise
    except errors.GgblockError as fault:
        at = fault.offset_bytes
        end = None if at is None else at + 1
        where = words.shorten(words.readable(fault.where or "header"), 80)
        found = Fault("structure", where, words.shorten(str(fault), 400), fault.file or name, at, end)
        size = os.path.getsize(name) if os.path.isfile(name) else 0
        return Verdict(name, size, 0, False, ("structure",), (found,))
    with file:
        checks.append("structure")
        done = _Done(file.n_bytes * (1 + (expected is not None)), progress)
        sealed = False
        for part in file.paths:
            tensors = [t for t in file.tensors.values() if t.path == part]
            with Mapped(part) as mapped:
                head = header.parse(mapped)
                base = _base(head, part)
                keys = checksums.KEYS & set(head.values)
                sealed = sealed or bool(keys)
                if keys:
                    faults += _foreign(list(_checksums(mapped, head, base, tensors)), head, base, tensors, part)
                faults += _padding(mapped, base, head.end, tensors, bool(keys))
            for tensor in tensors:
                if values:
                    faults += _values(tensor)
                if tensor.in_panels:
                    faults += _filling(tensor)
                tensor.release()
                done.add(tensor.n_bytes)
        checks += ["checksums"] if sealed else []
        checks += ["values"] if values else []
        checks.append("metadata against tensors")
        faults += [
            Fault("contradiction", c.where, f"{c.message}: {c.expected}, but the key says {c.actual}", name)
            for c in contradictions(file)
        ]
        if expected is not None:
            checks.append(f"against {os.fspath(against or '')}")
            found_faults = _files(file, expected, done) if expected.whole_file else _tensors(file, expected, done)
            faults += found_faults
        return Verdict(name, file.n_bytes, len(file.tensors), sealed, tuple(checks), tuple(faults))


class _Done:
    """Counts bytes towards a progress callback."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._n = max(1, total), progress, 0

    def add(self, n_bytes: int) -> None:
        self._n = min(self._total, self._n + n_bytes)
        if self._progress is not None:
            self._progress(self._n, self._total)


def _filling(tensor: Tensor) -> Iterator[Fault]:
    """Bytes of a tensor in panels that belong to no row or no column, and are not zero."""
    name, stored = tensor.type.name, tensor.panels
    size = panels.panel_bytes(name, tensor.row_bytes)
    # Only the last panel lacks rows; where rows are filled up, every panel has such bytes.
    step = max(1, _STEP // size)
    first = 0 if panels.row_bytes(name, tensor.row_bytes) != tensor.row_bytes else len(stored) - 1
    for i in range(first, len(stored), step):
        part = stored[i : i + step]
        rows = panels.from_panels(part, name, len(part) * panels.ROWS)
        own = tensor.n_rows - i * panels.ROWS
        rows[:own, : tensor.row_bytes] = 0
        odd = rows.any(axis=1)
        if odd.any():
            panel = i + int(np.argmax(odd)) // panels.ROWS
            start = tensor.offset_bytes + panel * size
            message = f"{tensor.type.label}: bytes that fill panel {panel} are not zero"
            yield Fault("padding", tensor.name, message, tensor.path, start, start + size)
            return


def _base(head: header.Header, path: str) -> int:
    align = validate.alignment(head.values, path)
    return -(-head.end // align) * align


def _checksums(mapped: Mapped, head: header.Header, base: int, tensors: list[Tensor]) -> Iterator[Fault]:
    """The keys of `checksums` and what they promise."""
    path = mapped.path
    missing = checksums.KEYS - set(head.values)
    for key in missing:
        yield Fault("checksum", "header", f"{key} is missing although the file has checksums", path, 0, base)
    stored = head.values.get(checksums.TENSORS)
    if stored is not None:
        yield from _tensor_digests(mapped, stored.value, base, tensors)
    wanted = head.values.get(checksums.HEADER)
    if wanted is not None:
        data: Any = mapped.data
        at = checksums.digits_at(data[:base])
        if at is None or not isinstance(wanted.value, str) or not _HEX.fullmatch(wanted.value):
            yield Fault("checksum", checksums.HEADER, "is not a SHA-256 in hexadecimal digits", path, 0, base)
            return
        gaps = (data[start:end] for start, end in _gaps(base, mapped.size, tensors))
        digest = checksums.header_digest(data[:base], gaps)
        if digest != wanted.value:
            yield Fault(
                "checksum", "header", f"header, metadata, tensor table or padding were changed: SHA-256 {digest}, "
                f"stored {wanted.value}", path, 0, base,
            )  # fmt: skip


def _foreign(
    faults: list[Fault], head: header.Header, base: int, tensors: list[Tensor], path: str
) -> list[Fault]:
    """``faults`` of the checksums, or one in their place where they cannot be of this file.

    Programs that do not know the keys copy them into what they make of a file: llama.cpp's quantizer does. Damage
    seldom reaches the header and most tensors at once. Where the recipe that was noted contradicts the file's type,
    another program has chosen types since, and that is no damage at all.
    """
    names = {fault.where for fault in faults}
    changed = sum(tensor.name in names for tensor in tensors)
    counted = checksums.TENSORS not in names
    if "header" not in names or (counted and 2 * changed <= len(tensors)):
        return faults
    noted, kind = head.values.get("ggblock.recipe"), head.values.get("general.file_type")
    name = str(noted.value).upper() if noted is not None else ""
    found = kind.value if kind is not None else None
    again = name in FILE_TYPES.values() and isinstance(found, int) and FILE_TYPES.get(found) != name
    what = f"header and {changed} of {len(tensors)} tensors differ" if counted else "the number of tensors differs"
    return [Fault(
        "checksum", "header", f"the checksums are of another file ({what}): a program that does not know them "
        "has made this file and copied them; they say nothing about it", path, 0, base, warning=again,
    )]  # fmt: skip


def _tensor_digests(mapped: Mapped, stored: object, base: int, tensors: list[Tensor]) -> Iterator[Fault]:
    path = mapped.path
    good = isinstance(stored, ArrayValue) and stored.kind == "str[]" and len(stored) == len(tensors)
    if not good or not isinstance(stored, ArrayValue):
        yield Fault("checksum", checksums.TENSORS, f"is not one text for each of {len(tensors)} tensors", path, 0, base)
        return
    view = memoryview(mapped.data)
    try:
        for tensor, wanted in zip(tensors, stored, strict=True):
            start, end = tensor.offset_bytes, tensor.offset_bytes + tensor.n_bytes
            digest = hashlib.sha256()
            for at in range(start, end, _STEP):
                digest.update(view[at : min(end, at + _STEP)])
            if digest.hexdigest() != wanted:
                shown = words.readable(wanted) if isinstance(wanted, str) else repr(wanted)
                message = f"SHA-256 {digest.hexdigest()}, stored {shown}"
                yield Fault("checksum", tensor.name, message, path, start, end)
    finally:
        view.release()


def _gaps(base: int, size: int, tensors: list[Tensor]) -> Iterator[tuple[int, int]]:
    """Spans of the file behind ``base`` that belong to no tensor, in order."""
    end = base
    for tensor in tensors:
        if tensor.offset_bytes > end:
            yield end, tensor.offset_bytes
        end = tensor.offset_bytes + tensor.n_bytes
    if size > end:
        yield end, size


def _padding(mapped: Mapped, base: int, head_end: int, tensors: list[Tensor], sealed: bool) -> Iterator[Fault]:
    """Padding that is not zero: damage where a checksum covers it, else odd."""
    for start, end in [(head_end, base), *_gaps(base, mapped.size, tensors)]:
        for at in range(start, min(end, mapped.size), _STEP):
            piece = np.frombuffer(mapped.data, np.uint8, min(_STEP, min(end, mapped.size) - at), at)
            odd = np.flatnonzero(piece)
            if len(odd):
                first, last = at + int(odd[0]), at + int(odd[-1]) + 1
                yield Fault("padding", "padding", "bytes between the tensors are not zero", mapped.path, first, last,
                            warning=not sealed)  # fmt: skip
                break


def _values(tensor: Tensor) -> Iterator[Fault]:
    for bad in bad_blocks(tensor):
        place = order.place(tensor, None, bad.first)
        which = f"row {place.row} block {place.block}, interleaved with others" if tensor.in_panels else \
            f"block {bad.first}"
        message = f"{tensor.type.label}: {bad.message} ({words.plural(bad.count, 'block')}; the first is {which})"
        yield Fault(bad.code, tensor.name, message, tensor.path, *place.span)


def _files(file: GgufFile, expected: manifest.Manifest, done: _Done) -> Iterator[Fault]:
    """``sha256sum``: each part as a file."""
    for part in file.paths:
        wanted = expected.file_digest(part)
        if wanted is None:
            yield Fault("against", os.path.basename(part), f"{expected.path} has no hash for it", part)
            continue
        digest = hashlib.sha256()
        with open(part, "rb") as stream:
            while piece := stream.read(_STEP):
                digest.update(piece)
                done.add(len(piece))
        if digest.hexdigest() != wanted:
            yield Fault("against", os.path.basename(part),
                        f"SHA-256 {digest.hexdigest()}, expected {wanted}", part, 0, os.path.getsize(part))  # fmt: skip


def _tensors(file: GgufFile, expected: manifest.Manifest, done: _Done) -> Iterator[Fault]:
    """gguf-hash: each tensor's bytes, and all of them one after another."""
    by_tensor: dict[str, manifest.Entry] = {}
    whole: list[manifest.Entry] = []
    for entry in manifest.strongest(expected.entries):
        name = manifest.split_target(entry.target, list(file.tensors))
        if name is not None:
            by_tensor[name] = entry
        elif ":" in entry.target and not entry.target.endswith(os.path.basename(file.path)):
            missing = entry.target.rpartition(":")[2]
            yield Fault("against", missing, f"{expected.path} lists a tensor that the file lacks", file.path)
        else:
            whole.append(entry)
    if not by_tensor and not whole:
        return
    together = [(entry, manifest.new(entry.algorithm)) for entry in whole]
    for tensor in file.tensors.values():
        entry_or_none = by_tensor.get(tensor.name)
        if by_tensor and entry_or_none is None:
            yield Fault("against", tensor.name, f"{expected.path} has no hash for it", tensor.path,
                        tensor.offset_bytes, tensor.offset_bytes + tensor.n_bytes)  # fmt: skip
        hashes = [digest for _, digest in together]
        own = None if entry_or_none is None else manifest.new(entry_or_none.algorithm)
        rows = max(1, _STEP // tensor.row_bytes)
        rows = rows // panels.ROWS * panels.ROWS or rows
        for i in range(0, tensor.n_rows, rows):
            data = np.ascontiguousarray(tensor.raw_rows(i, min(tensor.n_rows, i + rows))).reshape(-1)
            for digest in [*hashes, *([own] if own is not None else [])]:
                digest.update(data)
        done.add(tensor.n_bytes)
        if own is not None and entry_or_none is not None and own.hexdigest() != entry_or_none.digest:
            yield Fault("against", tensor.name, f"{entry_or_none.algorithm} {own.hexdigest()}, expected "
                        f"{entry_or_none.digest}", tensor.path, tensor.offset_bytes,
                        tensor.offset_bytes + tensor.n_bytes)  # fmt: skip
    for entry, digest in together:
        if digest.hexdigest() != entry.digest:
            yield Fault("against", "all tensors", f"{entry.algorithm} {digest.hexdigest()}, expected {entry.digest}",
                        file.path)  # fmt: skip


def verdict_document(verdict: Verdict) -> dict[str, Any]:
    """The verdict as JSON: ``spec/json/verify.schema.json``."""
    return {
        "schema": "ggblock/verify/1", "path": words.json_text(verdict.path), "n_bytes": verdict.n_bytes,
        "n_tensors": verdict.n_tensors, "whole": verdict.is_whole, "has_checksums": verdict.has_checksums,
        "checks": [words.json_text(each) for each in verdict.checks],
        "faults": [
            {"code": f.code, "where": words.json_text(f.where), "message": words.json_text(f.message),
             "path": words.json_text(f.path), "start": f.start, "end": f.end, "warning": f.warning}
            for f in verdict.faults
        ],
    }  # fmt: skip
