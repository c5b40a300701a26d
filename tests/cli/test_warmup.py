"""``ggblock warmup`` from outside."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.tiny_models import NO_END, is_one_line, run
from tests.inspect import schemas


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for the commands of one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GGBLOCK_CACHE", str(folder))
    return folder


def test_a_run_after_it_compiles_nothing(models: Path, cache: Path) -> None:
    first = run("warmup", models / "text.gguf", "--json")
    assert first.returncode == 0, first.stderr
    assert "compiling" in first.stderr and "compiled in" in first.stderr
    document = json.loads(first.stdout)
    schemas.check(document, "warmup")
    (found,) = document["models"]
    assert found["path"] == str(models / "text.gguf") and found["elapsed_s"] > 0
    kept = set((cache / "kernels").iterdir())
    assert found["n_compiled"] == found["n_kernels"] == len(kept) > 5
    for options in ((), ("--ctx", 300, "-t", 3)):
        done = run("run", models / "text.gguf", "-p", "the rain in the inn " * 9, "--raw", "-n", 6, *NO_END, *options)
        assert done.returncode == 0 and "compil" not in done.stderr, done.stderr
    assert set((cache / "kernels").iterdir()) == kept
    again = run("warmup", models / "text.gguf")
    assert again.returncode == 0 and again.stderr == ""
    assert again.stdout == f"{models / 'text.gguf'}: {len(kept)} kernels, all ready\n"
    more = json.loads(run("warmup", models / "text.gguf", "--kv", "f32", "--json").stdout)["models"][0]
    assert 1 <= more["n_compiled"] <= 3 and more["n_kernels"] == len(kept), "rope and attention have the cache's type"


def test_without_a_model_and_with_an_empty_cache_it_says_so(cache: Path) -> None:
    done = run("warmup")
    assert done.returncode == 0 and done.stdout == ""
    assert is_one_line(done.stderr) and "smollm2-135m-instruct" in done.stderr and str(cache / "models") in done.stderr
    assert json.loads(run("warmup", "--json").stdout) == {"models": []}


def test_without_a_model_it_takes_those_in_the_cache(smollm2_path: Path) -> None:
    done = run("warmup", "--json")
    assert done.returncode == 0, done.stderr
    found = {model["path"]: model for model in json.loads(done.stdout)["models"]}
    assert found[str(smollm2_path)]["n_kernels"] > 8


def test_a_cache_that_cannot_be_written_is_a_failure(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GGBLOCK_CACHE", str(tmp_path / "file"))
    done = run("warmup", models / "no_vocabulary.gguf")
    assert done.returncode == 1 and done.stdout == "" and "cannot be kept" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["truncated.gguf", "unknown_architecture.gguf", "text.txt"])
def test_a_bad_file_is_one_line(models: Path, name: str) -> None:
    done = run("warmup", models / name)
    assert done.returncode == 1 and is_one_line(done.stderr) and done.stdout == ""


def test_wrong_usage() -> None:
    assert run("warmup", "a", "b").returncode == 2
    assert run("warmup", "--kv", "f17").returncode == 2
