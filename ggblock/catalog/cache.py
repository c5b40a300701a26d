"""The cache folder: where it is, who may write to it now, and which of its files are known to be whole."""
from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ggblock.errors import CacheUnusable

CHUNK_BYTES = 1 << 20


def models_folder() -> Path:
    """Where fetched models lie: ``$GGBLOCK_CACHE/models``, or the user's cache folder of this system."""
    root = os.environ.get("GGBLOCK_CACHE")
    if root:
        return Path(root).expanduser() / "models"
    import platformdirs

    return Path(platformdirs.user_cache_dir("ggblock", appauthor=False)) / "models"


@contextlib.contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError of the body into CacheUnusable, which says what to do about it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            reason = f"no space left for the model ({error.strerror})"
        else:
            reason = f"the cache cannot be written ({error.strerror or error})"
        raise CacheUnusable(f"{reason}; GGBLOCK_CACHE may name another folder", file=folder) from error


@contextlib.contextmanager
def exclusive(lock_path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file ``lock_path``; another process that asks for it waits. The system frees it if we die.

    ``on_wait`` is called once if somebody else holds it. Raises CacheUnusable.
    """
    with cache_errors(lock_path.parent):
        file = open(lock_path, "ab")
    with file:
        waited = False
        while not _try_lock(file, lock_path.parent):
            if not waited:
                waited = True
                on_wait()
            time.sleep(0.1)
        yield  # closing the file frees the lock


def _try_lock(file: BinaryIO, folder: Path) -> bool:
    with cache_errors(folder):
        try:
            if sys.platform == "win32":
                import msvcrt

                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                return False
            raise
    return True


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    import hashlib  # slow to import; not needed when the record beside the file is right

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def is_whole(path: Path, n_bytes: int, sha256: str) -> bool:
    """Whether ``path`` is the file of that size and checksum.

    A file is hashed once; a record beside it (size, time of change, checksum) spares the next start the reading.
    """
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.st_size != n_bytes:
        return False
    try:
        if json.loads(_record_path(path).read_bytes()) == _facts(stat, sha256):
            return True
    except (OSError, ValueError):
        pass
    if file_sha256(path) != sha256:
        return False
    record(path, n_bytes, sha256)
    return True


def record(path: Path, n_bytes: int, sha256: str) -> None:
    """Note beside ``path`` that its present bytes have that checksum. A cache that cannot be written stays as it is."""
    stat = path.stat()
    if stat.st_size != n_bytes:
        return
    final = _record_path(path)
    temporary = final.with_name(f"{final.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(_facts(stat, sha256)))
        os.replace(temporary, final)
    except OSError:  # a read-only cache works too; the file is then hashed at each start
        pass


def _record_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.checked")


def _facts(stat: os.stat_result, sha256: str) -> dict[str, int | str]:
    return {"n_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256}


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` last through a power failure, where the system knows how."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
