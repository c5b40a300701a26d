"""The random models that speeds are measured on: they are whole, depend on the seed alone, and give sane logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ggblock
from tests.oracle import tiny
from tools.bench.random_model import B1, Shape, make, write

SMALL = Shape(width=256, ffn=512, layers=2, heads=4, kv_heads=2, context=64)


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    path = tmp_path / "text.gguf"
    tiny.write(tiny.by_name("llama_text"), path)
    return path


def test_the_large_shape_has_the_weights_of_the_table() -> None:
    assert sum(int(np.prod(s)) for s in B1.tensors(49152).values()) == 1_073_809_408
    assert B1.head_width == 64


def test_the_seed_decides_the_bytes(tmp_path: Path, vocabulary: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write(tmp_path / f"{name}.gguf", vocabulary, SMALL, seed)
    a, b, c = ((tmp_path / f"{name}.gguf").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize("tied", [True, False])
def test_every_type_is_made_and_gives_logits_of_unit_variance(tmp_path: Path, vocabulary: Path, tied: bool) -> None:
    shape = Shape(width=256, ffn=512, layers=2, heads=4, kv_heads=2, context=64, tied=tied)
    paths = make(tmp_path / "made", ["f16", "q4_k_m"], vocabulary, name="small", shape=shape)
    stamps = {path: path.stat().st_mtime_ns for path in paths.values()}
    assert make(tmp_path / "made", ["f16", "q4_k_m"], vocabulary, name="small", shape=shape) == paths
    assert {path: path.stat().st_mtime_ns for path in paths.values()} == stamps, "what is there stays"
    ids = [3, 4, 5, 6, 7, 8]
    logits = {}
    for name, path in paths.items():
        with ggblock.load(path) as model:
            logits[name] = model.logits(ids)
    assert 0.7 < logits["f16"].std() < 1.4
    assert np.var(logits["q4_k_m"] - logits["f16"]) < 0.1 * np.var(logits["f16"])
