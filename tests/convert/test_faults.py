"""The command itself, in a process of its own, stopped on the way: one line, and nothing left behind."""
from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from . import checkpoints as ck

ROOT = Path(__file__).parents[2]


def started(*arguments: object, limit: int | None = None) -> subprocess.Popen[str]:
    """``ggblock convert ...``; ``limit``: no file may have more bytes, which is how a full disk looks to a program."""
    def prepare() -> None:
        import resource

        signal.signal(signal.SIGINT, signal.default_int_handler)
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-m", "ggblock", "convert", *map(str, arguments)], cwd=ROOT, text=True, preexec_fn=prepare,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("options", [(), ("--split-size", "60K")])
def test_a_full_disk(tmp_path: Path, out: Path, options: tuple[str, ...]) -> None:
    ck.make(tmp_path / "m", ck.llama_config())
    run = started(tmp_path / "m", out / "m.gguf", "--type", "f32", *options, limit=40_000)
    _, told = run.communicate(timeout=300)
    assert run.returncode == 1 and told.strip().count("\n") == 0
    assert "no room" in told and "m" in told and list(out.iterdir()) == []


def test_a_full_disk_leaves_the_older_file(tmp_path: Path, out: Path) -> None:
    ck.make(tmp_path / "m", ck.llama_config())
    (out / "m.gguf").write_bytes(b"older")
    run = started(tmp_path / "m", out / "m.gguf", "--type", "f32", limit=40_000)
    run.communicate(timeout=300)
    assert run.returncode == 1 and [p.read_bytes() for p in out.iterdir()] == [b"older"]


def test_ctrl_c_leaves_nothing(tmp_path: Path, out: Path) -> None:
    config = ck.llama_config(hidden_size=1024, intermediate_size=4096, num_hidden_layers=1)
    ck.make(tmp_path / "m", config)
    run = started(tmp_path / "m", out / "m.gguf", "--type", "q2_k", "--threads", 1)
    end = time.monotonic() + 240
    while not any(out.iterdir()) and run.poll() is None and time.monotonic() < end:
        time.sleep(0.001)
    begun = [path.name for path in out.iterdir()]
    run.send_signal(signal.SIGINT)
    _, told = run.communicate(timeout=60)
    assert [name.endswith(".tmp") for name in begun] == [True]
    assert run.returncode == 130 and "Traceback" not in told and list(out.iterdir()) == []


def test_a_nan_is_named_in_one_line(tmp_path: Path, out: Path) -> None:
    ck.make(tmp_path / "m", ck.llama_config())
    arrays = ck.weights(ck.llama_config())
    arrays["model.layers.1.mlp.up_proj.weight"][5, 6] = np.nan
    ck.write_safetensors(tmp_path / "m" / "model.safetensors", arrays)
    run = started(tmp_path / "m", out / "m.gguf", "--type", "f16")
    _, told = run.communicate(timeout=300)
    assert run.returncode == 1 and told.strip().count("\n") == 0 and list(out.iterdir()) == []
    assert "blk.1.ffn_up.weight, row 5, column 6" in told and "--allow-nonfinite" in told
    run = started(tmp_path / "m", out / "m.gguf", "--type", "f16", "--allow-nonfinite")
    run.communicate(timeout=300)
    assert run.returncode == 0 and [path.name for path in out.iterdir()] == ["m.gguf"]


def test_a_target_that_is_a_folder(tmp_path: Path, out: Path) -> None:
    ck.make(tmp_path / "m", ck.llama_config())
    (out / "m.gguf").mkdir()
    run = started(tmp_path / "m", out / "m.gguf", "--type", "f16")
    _, told = run.communicate(timeout=300)
    assert run.returncode == 1 and "directory" in told and told.strip().count("\n") == 0
