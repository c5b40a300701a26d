"""``ggblock verify`` from outside."""
from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ggblock.cli.main import main
from tests.inspect import crafted, schemas


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return crafted.write(tmp_path / "m.gguf", checksums=True)


def verify(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, arguments)], catch_exceptions=False)


def test_a_whole_file(path: Path) -> None:
    result = verify(path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{path}: whole; checked structure, checksums, values, metadata against tensors\n"
    document = json.loads(verify(path, "--json").stdout)
    schemas.check(document, "verify")
    assert document["whole"] and document["faults"] == []


def test_damage_is_named_and_exits_with_1(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-40] ^= 4
    path.write_bytes(data)
    result = verify(path)
    assert result.exit_code == 1 and "checksum: output_norm.weight: SHA-256" in result.stdout
    assert f"(bytes {len(data) - 1024} to {len(data)})" in result.stdout and "DAMAGED" in result.stdout
    document = json.loads(verify(path, "--json").stdout)
    schemas.check(document, "verify")
    assert not document["whole"] and document["faults"][0]["where"] == "output_norm.weight"


def test_a_file_without_checksums_says_so(tmp_path: Path) -> None:
    path = crafted.write(tmp_path / "m.gguf")
    assert "carries no checksums" in verify(path).stdout
    sums = tmp_path / "m.gguf.sha256"
    sums.write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  m.gguf\n")
    result = verify(path, "--against", sums, "--quick")
    assert result.exit_code == 0 and f"against {sums}" in result.stdout and "values" not in result.stdout


def test_a_broken_file_is_damage_and_not_a_crash(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])
    result = verify(path, "--json")
    assert result.exit_code == 1
    schemas.check(json.loads(result.stdout), "verify")
    assert verify("/nonexistent.gguf").exit_code == 1


def test_nothing_here_changes_a_file(path: Path) -> None:
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    verify(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert verify(path, "--fix-up").exit_code == 2


def test_the_real_files_are_whole(smollm2_path: Path) -> None:
    assert verify(smollm2_path).exit_code == 0
