"""spec/examples: readers in other languages, written from the pages; each on machines that have the language."""
from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.spec.vectors import FILES, INDEX, VECTORS
from tools import spec_pages

#: Files with nothing but the types that the examples know.
FEW = ("few.gguf", "few.ggb", "few-ragged.ggb", "aligned.gguf", "aligned.ggb", "empty.ggb")


def run(program: list[str], paths: list[Path]) -> list[dict[str, Any]]:
    done = subprocess.run([*program, *map(str, paths)], capture_output=True, text=True, timeout=120, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(program: list[str], folder: Path) -> None:
    """The whole checklist of spec/reader.md that a reader of few types can tick off."""
    entries = [entry for entry in INDEX if entry["name"] in FEW]
    for found, entry in zip(run(program, [FILES / e["name"] for e in entries]), entries, strict=True):
        assert (found.get("tensors"), found.get("checksums")) == (entry["tensors"], True), entry["name"]
    split = sorted(path for path in FILES.iterdir() if path.name.startswith("split-"))
    wanted = [tensor for entry in INDEX if entry["name"].startswith("split-") for tensor in entry["tensors"]]
    for found in run(program, split):
        assert (found.get("tensors"), found.get("checksums")) == (wanted, True)
    (damaged := folder / "damaged.ggb").write_bytes((FILES / "few.ggb").read_bytes()[:-1] + b"\1")
    assert run(program, [damaged])[0]["checksums"] is False
    paths = []
    for number, vector in enumerate(VECTORS):
        (folder / str(number)).mkdir()
        paths.append(vector.write(folder / str(number)))
    for found, vector in zip(run(program, paths), VECTORS, strict=True):
        if any(raw[4:8] == b"\0\0\0\3" for raw in vector.files.values()):
            assert found["error"] == "UnsupportedVersion"  # they refuse what is big-endian
            continue
        history = {"RemovedType": "UnknownType"}  # which they do not know
        assert found.get("error") == history.get(vector.error or "", vector.error), vector.name
        if vector.where:
            assert found["where"] == vector.where, vector.name


def test_the_reader_knows_the_notation_s_few_types() -> None:
    text = (spec_pages.SPEC / "examples" / "reader.mjs").read_text("utf-8")
    for entry in INDEX:
        if entry["name"] == "few.gguf":
            assert all(f'"{tensor["type"]}"' in text for tensor in entry["tensors"])


if shutil.which("node"):

    def test_the_reader_in_javascript(tmp_path: Path) -> None:
        check(["node", str(spec_pages.SPEC / "examples" / "reader.mjs")], tmp_path)
