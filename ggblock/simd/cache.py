"""Compiled kernels on disk: one file a kernel, named by the hash of everything that it depends on.

Numba's own cache looks only at the date of the file that holds a function, and two processes that start at once can
mix up its index. Here there is no index: a file's name is a SHA-256 over the kernel's name and parameters, the source
text of ``simd/`` and of the modules of ``kernels/`` that it is made with, the versions of Numba and llvmlite, and the
CPU with its features. Files are written
beside their place and renamed. A file starts with the SHA-256 of what follows, so a damaged one is compiled anew.
A folder that cannot be written only costs the time to compile.

Needs llvmlite, not Numba: with every kernel in the cache, Numba is never imported.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
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


_IMPORT = re.compile(r"^from \.(\w*) import (.+)$", re.MULTILINE)


@functools.cache
def _room(name: str) -> dict[str, bytes]:
    """Module name -> source of every module of a room."""
    root = Path(__file__).resolve().parent.parent / name
    return {path.stem: path.read_bytes() for path in sorted(root.glob("*.py"))}


@functools.cache
def _siblings(module: str) -> frozenset[str]:
    """Modules of ``kernels/`` that a module's import lines name."""
    named: set[str] = set()
    for source, names in _IMPORT.findall(_room("kernels")[module].decode()):
        named.update([source] if source else re.split(r"[^\w]+", names))
    return frozenset(named & set(_room("kernels")))


@functools.cache
def _base() -> bytes:
    """All of ``simd/``, which every kernel is made with, and the versions of the compilers."""
    digest = hashlib.sha256()
    for name, source in _room("simd").items():
        digest.update(name.encode() + b"\0" + source)
    for package in ("numba", "llvmlite"):
        digest.update(metadata.version(package).encode() + b"\0")
    return digest.digest()


@functools.cache
def _sources(modules: frozenset[str]) -> bytes:
    """The hash of some modules of ``kernels/`` and of all that they import there."""
    reached: set[str] = set()
    waiting = set(modules)
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= _siblings(module) - reached
    digest = hashlib.sha256(_base())
    for module in sorted(reached):
        digest.update(module.encode() + b"\0" + _room("kernels")[module])
    return digest.digest()


def key_of(kernel: str, module: str, strict: bool, host: Host) -> str:
    """The name of a kernel's file. ``module`` of ``kernels/`` makes it; parts of ``kernel`` that are modules count
    too.
    """
    parts = frozenset({module} | (set(kernel.split("/")[1:]) & set(_room("kernels"))))
    digest = hashlib.sha256(_sources(parts))
    for part in (kernel, "strict" if strict else "", host.cpu, host.features, host.machine):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def get(key: str) -> tuple[str, bytes] | None:
    """(symbol, object code) of a cached kernel, or None."""
    try:
        data = (cache_folder() / f"{key}.o").read_bytes()
    except OSError:
        return None
    head = len(_MAGIC)
    body = data[head + 32 :]
    if data[:head] != _MAGIC or hashlib.sha256(body).digest() != data[head : head + 32]:
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
