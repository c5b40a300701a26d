"""Damaged files, given to each command that looks into files: one line and exit code 1, never a traceback.

A damaged file that is still a file (a flipped bit in a weight) may be shown; then the output is whole.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ggblock.cli.main import main
from tests.inspect import crafted, test_panel_files

N = 16  # damaged files of each kind; with 40 nothing else was found
TENSORS = [("token_embd.weight", "q8_0", (16, 64)), ("norm.weight", "f32", (63,)), ("a.weight", "q4_k", (3, 256))]
METADATA = {
    "general.architecture": "llama", "general.name": "small", "llama.embedding_length": 64, "flag": True,
    "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": [f"token {i}" for i in range(64)],
    "tokenizer.ggml.scores": [0.5] * 64,
}


@pytest.fixture(scope="module", params=["gguf", "ggb"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / f"m.{request.param}"
    if request.param == "ggb":
        return test_panel_files.write(path)
    return crafted.write(path, METADATA, TENSORS, checksums=True)


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(0, len(data)))]


def garbage(data: bytes, rng: np.random.Generator) -> bytes:
    start = [b"", b"GGUF", b"GGUF\3\0\0\0", data[:24]][int(rng.integers(4))]
    return start + rng.bytes(int(rng.integers(0, 3000)))


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bits of the header, where a bit does most harm."""
    out = bytearray(data)
    for bit in rng.integers(0, 8 * 1500, int(rng.integers(1, 5))).tolist():
        out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def shifted(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes put in, taken away or doubled somewhere in the header."""
    at, n = int(rng.integers(0, 1500)), int(rng.integers(1, 40))
    return [data[:at] + rng.bytes(n) + data[at:], data[:at] + data[at + n :], data[: at + n] + data[at:]][
        int(rng.integers(3))
    ]


def numbers(data: bytes, rng: np.random.Generator) -> bytes:
    """Huge and odd numbers where lengths, counts and offsets may be."""
    out, at = bytearray(data), int(rng.integers(0, 1500))
    value = int(rng.choice([0, 1, 255, 2**31, 2**32 - 1, 2**62]))
    out[at : at + 8] = value.to_bytes(8, "little")
    return bytes(out)


def commands(path: Path, whole: Path, out: Path, number: int) -> Iterator[list[str]]:
    bad, good = str(path), str(whole)
    yield ["dump", bad]
    yield ["dump", bad, "--json", "--full"]
    yield ["dump", bad, "--tensor", "a.weight"]
    yield ["dump", bad, "--tensor", "a.weight", "--block", "0", "--json"]
    yield ["dump", good, "--tensor", "a.weight", "--reference", bad, "--json"]
    if number % 8 == 0:  # a page of a file that can still be read takes long
        yield ["dump", bad, "--html", str(out)]
    yield ["diff", bad, good]
    yield ["diff", good, bad, "--json"]
    yield ["verify", bad]
    yield ["verify", bad, "--json"]
    yield ["verify", good, "--against", bad]
    yield ["edit", bad, "--set", "a.b=1", "-o", str(out)]
    yield ["edit", bad, "--remove", "flag", "--checksum", "-o", str(out)]


def check(result: Result, arguments: list[str], kind: str) -> None:
    assert result.exception is None or isinstance(result.exception, SystemExit), (kind, arguments, result.exception)
    assert result.exit_code in (0, 1) and "Traceback" not in result.output, (kind, arguments, result.output)
    silent = result.exit_code == 1 and arguments[0] not in ("verify", "diff")
    if result.exit_code == 1 and not result.stdout:
        silent = True
    if silent:
        assert result.stdout == "" and result.stderr.startswith("ggblock: "), (kind, arguments, result.stderr)
        assert result.stderr.count("\n") == 1 and len(result.stderr) < 1000, (kind, arguments, result.stderr)
    else:
        assert arguments[0] in ("dump", "edit") or result.stderr == "", (kind, arguments, result.stderr)
        if "--json" in arguments:
            json.loads(result.stdout)


@pytest.mark.parametrize("damage", [truncated, garbage, flipped, shifted, numbers])
def test_bad_files_are_one_line(
    damage: Callable[[bytes, np.random.Generator], bytes], whole: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng([len(damage.__name__), *damage.__name__.encode()])
    data, runner, path, out = whole.read_bytes(), CliRunner(), tmp_path / "bad", tmp_path / "out"
    refused = 0
    for number in range(N):
        bad = damage(data, rng)
        path.unlink(missing_ok=True)
        path.write_bytes(bad)
        for arguments in commands(path, whole, out, number):
            result = runner.invoke(main, arguments)
            check(result, arguments, damage.__name__)
            refused += result.exit_code
            assert path.read_bytes() == bad, "nothing changes its input"
            if out.exists():
                assert result.exit_code == 0
                out.unlink()
    assert refused > N, "hardly any of these files is refused; the test damages nothing"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bad"], "nothing is left behind"
