"""Tiny random models made on the spot: torch, llama.cpp and the engine must agree on what a file means."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ggblock
from ggblock import models
from ggblock.evaluate.divergence import nmse
from tests.models import golden_files
from tests.oracle import emulate, peer, tiny, torch_models

pytestmark = pytest.mark.oracle

# As in tests/models/test_logits.py: what rounding to int8 may cost, at most, relative to one such rounding by torch.
FAST = 5.0
PROMPT = [(i * i * 31 + 7 * i + 5) % 37 for i in range(48)]

# More than the golden files hold: other seeds, and the scale of queries that only a depth of 62 layers brings.
FRESH = [replace(spec, seed=spec.seed + 100) for spec in tiny.SPECS] + [
    tiny.Spec("gemma3_27b", "gemma3", layers=62, hidden=32, heads=2, kv_heads=1, head_dim=32, ffn=32, vocab=45,
              tied=True, window=8, default_type="Q8_0", eps=1e-6, seed=200),
    tiny.Spec("llama_yarn_defaults", "llama", layers=2, hidden=64, heads=2, kv_heads=1, ffn=32, vocab=45, seed=201,
              rope={"scaling.type": "yarn", "scaling.factor": 4.0, "scaling.original_context_length": 32}),
]


@pytest.fixture(params=FRESH, ids=[spec.name for spec in FRESH])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[tiny.Spec, Path]:
    path = tmp_path / f"{request.param.name}.gguf"
    tiny.write(request.param, path)
    return request.param, path


def engine(path: Path, ids: list[int], *, reference: bool) -> np.ndarray:
    with ggblock.open(path) as file:
        model = models.build(file, threads=2, reference=reference, kv_type="f32" if reference else "f16")
        try:
            return model.forward(ids, 0, all_logits=True).copy()
        finally:
            model.close()


def test_the_engine_agrees_with_torch(made: tuple[tiny.Spec, Path]) -> None:
    _, path = made
    model = torch_models.load(str(path))
    exact = torch_models.logits(model, PROMPT)
    assert nmse(engine(path, PROMPT, reference=True), exact) <= 1e-6
    with emulate.coarse(model):
        rough = nmse(torch_models.logits(model, PROMPT), exact)
    assert nmse(engine(path, PROMPT, reference=False), exact) <= FAST * rough


def test_llama_cpp_agrees_with_torch(made: tuple[tiny.Spec, Path], tmp_path: Path) -> None:
    spec, path = made
    model = torch_models.load(str(path))
    exact = torch_models.logits(model, PROMPT)
    # This llama.cpp does not read the file's beta_fast and beta_slow for `llama`; told of them, it agrees.
    betas = [str(value) for key, value in spec.rope.items() if "yarn_beta" in key]  # fast, then slow
    found = peer.logits(path, PROMPT, tmp_path, *(["--yarn-beta", *betas] if betas else []))
    if set(spec.types.values()) | {spec.default_type} == {"F32"}:
        assert nmse(found, exact) <= 1e-9
    else:
        with emulate.coarse(model):
            rough = nmse(torch_models.logits(model, PROMPT), exact)
        assert nmse(found, exact) <= FAST * rough


@pytest.mark.parametrize("spec", tiny.SPECS, ids=[spec.name for spec in tiny.SPECS])
def test_the_golden_files_come_from_their_generator(spec: tiny.Spec, tmp_path: Path) -> None:
    golden = golden_files.load(spec.name)
    path = tmp_path / "again.gguf"
    tiny.write(spec, path)
    assert path.read_bytes() == golden.path.read_bytes()
    exact = torch_models.logits(torch_models.load(str(path)), golden.ids)
    # Another version of torch or another CPU may order its float32 sums differently.
    assert nmse(golden.logits, exact[golden.positions]) <= 1e-10


def test_the_error_measure_sees_an_error() -> None:
    exact = np.random.default_rng(0).normal(size=(4, 50)) + 1000.0
    assert nmse(exact, exact) == 0.0
    assert nmse(exact + 0.1, exact) > 5e-3
    assert nmse(exact[:, ::-1], exact) > 1.0
    assert emulate.nmse(exact[:, ::-1], exact) == nmse(exact[:, ::-1], exact)
