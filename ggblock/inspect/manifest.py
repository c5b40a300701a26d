"""Hashes from outside a file: ``sha256sum``'s output, and the manifests of llama.cpp's gguf-hash."""
from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import errors
from .xxh3 import Xxh3
from .xxh64 import Xxh64

#: Algorithms of gguf-hash and the digits of their hashes, the strongest first; of equal ones the faster here.
ALGORITHMS = {"sha256": 64, "sha1": 40, "uuid": 36, "xxh3": 16, "xxh64": 16}
#: llama.cpp's namespace: uuid5(NAMESPACE_URL, "en.wikipedia.org/wiki/Llama.cpp").
_NAMESPACE = uuid.UUID("ef001206-dadc-5f6d-a15f-3359e577d4e5")
_MAX_BYTES = 1 << 28

_SUM = re.compile(r"([0-9A-Fa-f]{64})(?:[ \t]+\*?(.+))?")
_BSD = re.compile(r"SHA256 \((.+)\) = ([0-9A-Fa-f]{64})")
#: What gguf-hash --check says before and after the hashes.
_TALK = re.compile(r"manifest  .*|Verification results for .* - .*")
_ENTRY = re.compile(rf"({'|'.join(ALGORITHMS)})\s+([0-9A-Fa-f-]+)\s+(\S.*)")


@dataclass(frozen=True)
class Entry:
    """One expected hash. ``target``: a file's name, or ``FILE:TENSOR`` (gguf-hash)."""

    algorithm: str
    digest: str
    target: str


@dataclass(frozen=True)
class Manifest:
    """``whole_file``: hashes of files, byte for byte. Otherwise of tensors' bytes, as gguf-hash counts them."""

    path: str
    whole_file: bool
    entries: tuple[Entry, ...]

    def file_digest(self, path: str) -> str | None:
        """The SHA-256 that is expected of a file, by its name; a lone line without a name is meant for any."""
        name = os.path.basename(path)
        for entry in self.entries:
            if os.path.basename(entry.target) == name or (not entry.target and len(self.entries) == 1):
                return entry.digest
        return None


def read(path: str) -> Manifest:
    """Parse a manifest. Raises `errors.CannotRead`, or `errors.FormatError` for a line that it does not understand."""
    try:
        if os.path.getsize(path) > _MAX_BYTES:
            raise errors.FormatError("too long for a list of hashes", file=path)
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            lines = [line.rstrip("\r\n") for line in stream]
    except OSError as fault:
        raise errors.CannotRead(f"cannot be read: {fault.strerror}", file=path) from None
    sums, tensors = [], []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#") or _TALK.fullmatch(text):
            continue
        if match := _ENTRY.fullmatch(text):
            algorithm, digest, target = match.groups()
            # gguf-hash --check appends its own verdict; the hashes are those of the file it looked at.
            target = re.sub(r"  -  (Ok|Mismatch|Not Found)$", "", target)
            if len(digest) == ALGORITHMS[algorithm]:
                tensors.append(Entry(algorithm, digest.lower(), target))
                continue
        elif match := _BSD.fullmatch(text):
            sums.append(Entry("sha256", match[2].lower(), match[1]))
            continue
        elif match := _SUM.fullmatch(text):
            sums.append(Entry("sha256", match[1].lower(), match[2] or ""))
            continue
        raise errors.FormatError(
            "not a line of sha256sum or gguf-hash", file=path, where=f"line {number}", actual=text[:60]
        )
    if not sums and not tensors:
        raise errors.FormatError("holds no hashes", file=path)
    if sums and tensors:
        raise errors.FormatError("mixes hashes of files and of tensors", file=path)
    return Manifest(path, bool(sums), tuple(sums or tensors))


def new(algorithm: str) -> Any:
    """A hash object of that algorithm with ``update`` and ``hexdigest``."""
    if algorithm == "xxh64":
        return Xxh64()
    if algorithm == "xxh3":
        return Xxh3()
    if algorithm == "uuid":
        return _Uuid()
    return hashlib.new(algorithm)


class _Uuid:
    """gguf-hash's UUID version 5: the first 16 bytes of a SHA-1 over namespace and data, with the version's bits."""

    def __init__(self) -> None:
        self._sha1 = hashlib.sha1(_NAMESPACE.bytes)

    def update(self, data: Any) -> None:
        self._sha1.update(data)

    def hexdigest(self) -> str:
        return str(uuid.UUID(bytes=self._sha1.digest()[:16], version=5))


def strongest(entries: Iterable[Entry]) -> list[Entry]:
    """Of several entries for one target only the one with the strongest algorithm."""
    best: dict[str, Entry] = {}
    order = list(ALGORITHMS)
    for entry in entries:
        known = best.get(entry.target)
        if known is None or order.index(entry.algorithm) < order.index(known.algorithm):
            best[entry.target] = entry
    return list(best.values())


def split_target(target: str, tensors: Sequence[str]) -> str | None:
    """The tensor that ``FILE:TENSOR`` means, or None for a whole file. A file's name may contain colons itself."""
    return next((name for name in (target[i + 1 :] for i, c in enumerate(target) if c == ":") if name in tensors), None)
