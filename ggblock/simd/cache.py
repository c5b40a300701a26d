"""Compiled kernels on disk: one file a kernel, named by the hash of everything that it depends on.

Numba's own cache looks only at the date of the file that holds a function, and two processes that start at once can
mix up its index. Here there is no index: a file's name is a SHA-256 over the kernel's name and parameters, the source
text of ``simd/`` and ``kernels/``, the versions of Numba and llvmlite, and the CPU with its features. Files are written
beside their place and renamed. A file starts with the SHA-256 of what follows, so a damaged one is compiled anew.
A folder that cannot be written only costs the time to compile.

Needs llvmlite, not Numba: with every kernel in the cache, Numba is never imported.
"""
from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from importlib import metadata
from pathlib import Path

import platformdirs

from .host import Host

_MAGIC = b"ggblock-kernel-1\n"


def cache_folder() -> Path:
    """``GGBLOCK_CACHE``/kernels where that is set, else the user's cache folder."""
    root = os.environ.get("GGBLOCK_CACHE")
    return (Path(root) if root else Path(platformdirs.user_cache_dir("ggblock", appauthor=False))) / "kernels"


@functools.cache
def _sources() -> bytes:
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for room in ("simd", "kernels"):
        for path in sorted((root / room).glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for package in ("numba", "llvmlite"):
        digest.update(metadata.version(package).encode() + b"\0")
    return digest.digest()


def key_of(kernel: str, host: Host) -> str:
    digest = hashlib.sha256(_sources())
    for part in (kernel, host.cpu, host.features, host.machine):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def get(key: str) -> tuple[str, bytes] | None:
    """(symbol, object code) of a cached kernel, or None."""
    try:
        data = (cache_folder() / f"{key}.o").read_bytes()
    except OSError:
        return None
    head = len(_MAGIC)
    body = data[head + 32:]
    if data[:head] != _MAGIC or hashlib.sha256(body).digest() != data[head:head + 32]:
        return None
    symbol, _, code = body.partition(b"\0")
    return symbol.decode(), code


def put(key: str, symbol: str, code: bytes) -> bool:
    """Stores a kernel; False where the folder cannot be written."""
    body = symbol.encode() + b"\0" + code
    folder = cache_folder()
    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".new-")
        with os.fdopen(handle, "wb") as f:
            f.write(_MAGIC + hashlib.sha256(body).digest() + body)
        os.replace(temporary, folder / f"{key}.o")
    except OSError:
        if temporary:
            try:
                os.unlink(temporary)
            except OSError:
                pass
        return False
    return True
