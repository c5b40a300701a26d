"""The conformance vectors of `spec/`, as files that tests can open."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.format import craft
from tools import spec_blocks, spec_pages

FILES = spec_pages.SPEC / "files"
INDEX: list[dict[str, Any]] = spec_blocks.tomllib.loads((FILES / "index.toml").read_text("utf-8"))["file"]


@dataclass(frozen=True)
class Vector:
    """Files of one folder by name, the one to open, and what should come of it: ``error``, or ``expect``."""

    name: str
    files: dict[str, bytes]
    hashes: dict[str, str]
    opened: str
    error: str | None
    where: str | None
    offset_bytes: int | None
    expect: dict[str, Any]

    def write(self, folder: Path) -> Path:
        """Write the files; the path to open."""
        for name, raw in self.files.items():
            (folder / name).write_bytes(raw)
        return folder / self.opened


def _vectors() -> list[Vector]:
    out = []
    for stem in ("container", "panels", "splits"):
        found = spec_pages.read_toml(stem)
        for entry in found.get("valid", []) + found["fault"]:
            files = entry.get("files", [entry | {"name": "v.gguf"}])
            out.append(Vector(
                entry["name"], {f["name"]: craft.assemble(f["parts"], f.get("big", False)) for f in files},
                {f["name"]: f["sha256"] for f in files}, entry.get("open", "v.gguf"), entry.get("error"),
                entry.get("where"), entry.get("offset_bytes"), entry.get("expect", {}),
            ))  # fmt: skip
    return out


VECTORS = _vectors()
VALID = [vector for vector in VECTORS if vector.error is None]
FAULTS = [vector for vector in VECTORS if vector.error is not None]
