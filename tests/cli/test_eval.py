"""``ggblock eval`` from outside."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ggblock
from ggblock.evaluate.divergence import log_softmax
from tests.cli.tiny_models import is_one_line, run, run_here
from tests.inspect import schemas


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("The rain in the inn is on the other side. " * 12, encoding="utf-8")
    return path


def test_perplexity_is_that_of_the_logits(models: Path, text: Path) -> None:
    done = run("eval", models / "text.gguf", text, "--chunk", 64, "--exact", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    schemas.check(found, "eval")
    losses = []
    with ggblock.load(models / "text.gguf", reference=True, context=64) as model:
        ids = model.tokenize(text.read_text(), add_special=False)
        for start in range(0, len(ids) - 63, 64):
            chunk = ids[start : start + 64]
            rows = log_softmax(model.logits(chunk))
            losses += [-rows[i, chunk[i + 1]] for i in range(32, 63)]
    assert found["n_tokens"] == len(losses) > 60
    assert found["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-5)
    assert found["stderr"] > 0


def test_divergence_from_its_own_float32_run(models: Path, text: Path) -> None:
    model = models / "text.gguf"
    done = run("eval", model, text, "--chunk", 64, "--chunks", 2, "--reference", model, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    schemas.check(found, "divergence")
    assert found["n_tokens"] == 64
    assert 0 < found["mean_kl"] < 0.01
    assert found["same_top1"] > 0.9
    exact = run("eval", model, text, "--chunk", 64, "--chunks", 2, "--reference", model, "--exact", "--json")
    assert json.loads(exact.stdout)["mean_kl"] < 1e-9


def test_a_person_gets_lines(models: Path, text: Path) -> None:
    done = run("eval", models / "text.gguf", "-", "--chunk", 32, stdin=text.read_bytes())
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("perplexity  ") and done.stdout.count("\n") == 1


def test_bad_input_is_one_line(models: Path, text: Path, tmp_path: Path) -> None:
    (tmp_path / "bytes.txt").write_bytes(b"abc\xff")
    for arguments in ((text, "--chunk", 4096), (tmp_path / "none.txt",), (tmp_path / "bytes.txt",)):
        done = run_here("eval", models / "text.gguf", *arguments)
        assert done.returncode == 1 and is_one_line(done.stderr) and done.stdout == "", arguments
