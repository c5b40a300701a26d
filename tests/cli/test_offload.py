"""``--offload`` from outside: on a machine without a GPU, on the simulated device, and misspelt."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli import tiny_models
from tests.cli.tiny_models import NO_END, is_one_line

# "a GPU's driver is there" must not decide what these tests see
NOWHERE = {"NUMBA_ENABLE_CUDASIM": "0", "CUDA_VISIBLE_DEVICES": ""}


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        tiny_models.command(*arguments), env={**tiny_models.environment(), **environment}, capture_output=True,
        text=True, timeout=600, check=False,
    )  # fmt: skip


def answer(models: Path, *more: object, **environment: str) -> subprocess.CompletedProcess[str]:
    options = ("--raw", "--temp", 0, "-n", 4, "--ctx", 64, *NO_END, *more)
    return run("run", models / "text.gguf", "-p", "the cat", *options, **environment)


@pytest.mark.parametrize("what", ["all", "1", r"blk\.1\.ffn"])
def test_without_a_gpu(models: Path, what: str) -> None:
    done = answer(models, "--offload", what, **NOWHERE)
    assert done.returncode == 1 and done.stdout == "" and is_one_line(done.stderr)
    assert "offload" in done.stderr and ("no NVIDIA driver" in done.stderr or "finds no GPU" in done.stderr)


def test_auto_without_a_gpu_is_the_cpu(models: Path) -> None:
    done, plain = answer(models, "--offload", "auto", **NOWHERE), answer(models)
    assert done.returncode == 0 and done.stdout == plain.stdout and plain.stdout.strip()
    assert is_one_line(done.stderr) and "the CPU computes everything" in done.stderr


@pytest.mark.parametrize("command", ["run", "bench"])
@pytest.mark.parametrize("what", ["-1", "blk.(", "*"])
def test_what_cannot_be_meant(models: Path, command: str, what: str) -> None:
    more = ("-p", "x") if command == "run" else ()
    done = run(command, models / "text.gguf", *more, f"--offload={what}")
    assert done.returncode == 2 and done.stdout == "" and "--offload" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_same_greedy_text(models: Path) -> None:
    """On Numba's simulator, which is said."""
    assert os.environ["NUMBA_ENABLE_CUDASIM"] == "1"
    plain = answer(models)
    for what in ("1", "all"):
        done = answer(models, "--offload", what)
        assert done.returncode == 0, done.stderr
        assert done.stdout == plain.stdout
        assert "layers" in done.stderr and "Numba's simulator" in done.stderr


def test_a_cache_that_the_gpu_does_not_have_is_said(models: Path) -> None:
    done = answer(models, "--offload", "1", "--kv", "q8_0", "-n", 1)
    assert done.returncode == 0, done.stderr
    assert "keys and values as f16" in done.stderr
