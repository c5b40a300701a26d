"""A reader driven by the tables of spec/ alone, held against the files of spec/files, the package and gguf."""
from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

import ggblock
from ggblock import blocks
from ggblock.convert import Options, execute, make_plan, open_source
from tests.spec.vectors import FILES, INDEX
from tools import gen_golden_files, spec_blocks, spec_reader

NAMES = [entry["name"] for entry in INDEX]


def test_the_files_have_not_changed() -> None:
    assert {path.name for path in FILES.iterdir()} == {*NAMES, "index.toml"}
    for entry in INDEX:
        raw = (FILES / entry["name"]).read_bytes()
        assert (len(raw), hashlib.sha256(raw).hexdigest()) == (entry["n_bytes"], entry["sha256"]), entry["name"]


def test_the_writer_by_the_specification_alone_makes_the_same_files() -> None:
    for name, each in gen_golden_files.parts().items():
        assert gen_golden_files.container(*each) == (FILES / name).read_bytes(), name


def test_every_type_is_in_the_files_as_rows_and_as_panels() -> None:
    for ending in ("gguf", "ggb"):
        entries = [entry for entry in INDEX if entry["name"] in (f"types.{ending}", f"recent.{ending}")]
        assert {tensor["type"] for entry in entries for tensor in entry["tensors"]} == set(blocks.REGISTRY)
        in_panels = {tensor["type"] for entry in entries for tensor in entry["tensors"] if tensor["order"] == "panels"}
        assert in_panels == (set(spec_reader.PANELS["types"]) if ending == "ggb" else set())


@pytest.mark.parametrize("entry", INDEX, ids=NAMES)
def test_the_reader_by_the_specification_alone(entry: dict[str, Any]) -> None:
    file = spec_reader.read(FILES / entry["name"])
    for want in entry["tensors"]:
        tensor = file.tensors[want["name"]]
        assert (tensor.type, list(tensor.ne), tensor.in_panels) == (want["type"], want["ne"], want["order"] == "panels")
        assert hashlib.sha256(tensor.rows.tobytes()).hexdigest() == want["rows_sha256"]
        assert spec_blocks.float_hash(tensor.weights()) == want["weights_sha256"]
    for part in file.parts:
        stored = [digest.decode() for digest in part.values["ggblock.tensors.sha256"].value]
        assert (stored, part.text("ggblock.header.sha256")) == spec_reader.digests(part)


@pytest.mark.parametrize("entry", INDEX, ids=NAMES)
def test_the_package(entry: dict[str, Any]) -> None:
    with ggblock.open(FILES / entry["name"]) as file:
        for want in entry["tensors"]:
            tensor = file.tensors[want["name"]]
            assert (tensor.type.name, list(tensor.ne)) == (want["type"], want["ne"])
            assert tensor.in_panels == (want["order"] == "panels")
            assert hashlib.sha256(tensor.raw.tobytes()).hexdigest() == want["rows_sha256"]
            assert spec_blocks.float_hash(tensor.dequantize()) == want["weights_sha256"]


@pytest.mark.parametrize("entry", INDEX, ids=NAMES)
def test_the_package_finds_the_checksums_right(entry: dict[str, Any]) -> None:
    from ggblock.inspect.verify import verify

    verdict = verify(FILES / entry["name"], values=False)  # weights of random bytes: some scales are infinite
    assert verdict.has_checksums and verdict.faults == ()


@pytest.mark.parametrize("name", ["types.gguf", "aligned.gguf", "big-endian.gguf"])
def test_gguf_reads_the_same_weights(name: str) -> None:
    """The gguf package, with its own decoders, where it knows the type; it does not turn big-endian blocks around."""
    ours, reader, n_decoded = spec_reader.read(FILES / name), gguf.GGUFReader(FILES / name), 0
    assert [tensor.name for tensor in reader.tensors] == list(ours.tensors)
    for tensor in reader.tensors:
        mine = ours.tensors[tensor.name]
        assert tensor.tensor_type.name.lower() == mine.type and tensor.shape.tolist() == list(mine.ne)
        assert int(tensor.data_offset) == mine.start
        if mine.type == "q8_1":
            continue  # the package has the size of long ago, with float32 scales; ggml's is that of our page
        assert int(tensor.n_bytes) == mine.n_bytes
        if name == "big-endian.gguf":
            continue
        try:
            with np.errstate(all="ignore"):
                weights = gguf.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            continue
        n_decoded += 1
        assert spec_blocks.float_hash(weights) == spec_blocks.float_hash(mine.weights()), tensor.name
    assert n_decoded >= {"types.gguf": 24, "aligned.gguf": 1}.get(name, 0)


@pytest.mark.parametrize("stem", ["types", "few", "recent", "aligned"])
def test_converting_makes_exactly_these_files(stem: str, tmp_path: Path) -> None:
    for source, target in ((f"{stem}.gguf", f"{stem}.ggb"), (f"{stem}.ggb", f"{stem}.gguf")):
        with open_source(FILES / source) as opened:
            execute(make_plan(opened, str(tmp_path / target), Options(allow_nonfinite=True)))
        assert (tmp_path / target).read_bytes() == (FILES / target).read_bytes()


def test_the_programs_by_the_specification_alone_do_not_use_the_package() -> None:
    """In a process of its own: whatever they import, the package is not among it."""
    for tool in ("spec_reader", "gen_golden_files", "spec_blocks"):
        code = f"import sys, tools.{tool}; sys.exit(any(name.split('.')[0] == 'ggblock' for name in sys.modules))"
        assert subprocess.run([sys.executable, "-c", code], cwd=FILES.parents[1], timeout=600).returncode == 0, tool


def test_the_reader_is_a_program(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["spec_reader.py", str(FILES / "types.ggb")])
    assert spec_reader.main() == 0 and "q4_k.weight: q4_k" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["spec_reader.py", str(FILES / "index.toml")])
    assert spec_reader.main() == 1 and "NotGguf" in capsys.readouterr().err
