"""The command: table, JSON, dry run, exit codes, one line for each fault."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ggblock.cli.main import main
from tests.convert import checkpoints as ck
from tests.inspect import schemas


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ck.make(tmp_path / "m", ck.llama_config())
    return tmp_path / "m"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


def test_a_table_and_a_line_with_the_result(folder: Path, tmp_path: Path) -> None:
    done = run(folder, tmp_path / "m.gguf", "--type", "q4_k_m")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["type", "tensors", "weights", "bytes", "bits/weight"]
    assert any(line.split()[:2] == ["total", "20"] for line in lines)
    size = (tmp_path / "m.gguf").stat().st_size
    assert lines[-1].startswith(f"wrote {tmp_path / 'm.gguf'}: {size:,} bytes in ")
    assert "Q4_K became Q5_0 (64 columns)" in done.stderr
    assert "largest relative error" in done.stdout


def test_json_is_one_document(folder: Path, tmp_path: Path) -> None:
    done = run(folder, tmp_path / "m.gguf", "-t", "q8_0", "--json")
    document = json.loads(done.stdout)
    schemas.check(document, "convert")
    assert document["n_bytes"] == (tmp_path / "m.gguf").stat().st_size
    assert document["written"] is True and document["recipe"] == "q8_0"
    assert {row["type"] for row in document["types"]} == {"Q8_0", "F32"}
    assert document["worst"][0]["relative_error"] < 0.01


def test_dry_run_writes_nothing_and_knows_the_size(folder: Path, tmp_path: Path) -> None:
    planned = json.loads(run(folder, tmp_path / "m.gguf", "-t", "q4_0", "--dry-run", "--json").stdout)
    schemas.check(planned, "convert")
    assert not (tmp_path / "m.gguf").exists() and planned["written"] is False
    assert run(folder, tmp_path / "m.gguf", "-t", "q4_0").exit_code == 0
    assert (tmp_path / "m.gguf").stat().st_size == planned["n_bytes"]
    shown = run(folder, tmp_path / "n.gguf", "-t", "q4_0", "--dry-run")
    assert "would write" in shown.stdout and not (tmp_path / "n.gguf").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-t", "q9_k"], "unknown type or recipe 'q9_k'"),
        (["-t", "q4_k_m", "--no-fallback"], "do not fit the type"),
        (["-t", "q8_0", "--tensor-type", "nose=q4_0"], "fits no tensor"),
        (["-t", "q8_0", "--only", "("], "not a regular expression"),
        (["-t", "q8_0", "--keep-split"], "not split"),
        (["-t", "q8_0", "--importance", "missing.gguf"], "no such file"),
        (["--recipe", "missing.toml"], "cannot be read"),
    ],
)
def test_a_fault_is_one_line(folder: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run(folder, tmp_path / "m.gguf", *arguments)
    assert done.exit_code == 1
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == "" and not (tmp_path / "m.gguf").exists()


def test_sources_that_are_none(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "missing", __file__):
        done = run(source, tmp_path / "m.gguf", "-t", "f16")
        assert done.exit_code == 1 and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["--split-size", "2X"], ["-t", "q8_0", "--threads", "0"]])
def test_wrong_usage(folder: Path, tmp_path: Path, arguments: list[str]) -> None:
    assert run(folder, tmp_path / "m.gguf", *arguments).exit_code == 2


def test_sizes_with_letters(folder: Path, tmp_path: Path) -> None:
    done = run(folder, tmp_path / "m.gguf", "-t", "f16", "--split-size", "0.06M", "--json")
    paths = json.loads(done.stdout)["paths"]
    assert len(paths) > 2 and all(Path(path).exists() for path in paths)
