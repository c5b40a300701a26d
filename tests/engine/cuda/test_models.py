"""Whole models on the simulated device, any part of them: logits beside the CPU's, what is copied, what is refused."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ggblock
from ggblock import errors
from ggblock.convert import Options, execute, make_plan, open_source
from ggblock.engine.cuda import start
from ggblock.engine.cuda.gemm import Plain
from ggblock.engine.cuda.plan import MixedPlan
from ggblock.engine.cuda.steps import RopeStep
from tests.oracle import tiny

IDS = [3, 1, 4, 1, 5, 9, 2, 6, 5]


def logits(path: Path, offload: object = None, n: int = len(IDS), **options: object) -> np.ndarray:
    """After each of ``n`` tokens read at once and of two that follow one by one: float32 (n + 2, n_vocab)."""
    ids = [IDS[i % len(IDS)] for i in range(n)]
    with ggblock.load(path, threads=2, context=64, offload=offload, notify=lambda line: None, **options) as model:
        forward = model.engine.forward
        return np.concatenate([forward(ids, 0, all_logits=True), forward([7], n), forward([8], n + 1)])


def written(folder: Path, name: str) -> Path:
    tiny.write(tiny.by_name(name), folder / f"{name}.gguf")
    return folder / f"{name}.gguf"


def assert_same(a: np.ndarray, b: np.ndarray, tolerance: float = 2e-3) -> None:
    """The arithmetic is the same but for the order of sums; keys and values may then round to another float16, 2**-11
    of them away, which moves logits of up to 4 by as much of theirs."""
    assert np.abs(a - b).max() < tolerance
    assert np.array_equal(a.argmax(axis=1), b.argmax(axis=1))


@pytest.mark.parametrize(
    ("name", "offloads"),
    [
        ("llama_text", ["all", 1, 2, "ffn", r"attn|0\.ffn_down", "token_embd"]),
        ("llama_bias", ["all"]),
        ("llama_k_quants", ["all"]),
        ("llama_every_type", [1]),
        ("gemma3_text", [3, r"\.[25]\.(attn|ffn_up)|token_embd"]),
    ],
)
def test_any_split_gives_the_cpus_logits(tmp_path: Path, name: str, offloads: list[object]) -> None:
    """With two terms of activations everywhere: in "fast" a few tokens have more of them here than on the CPU."""
    path = written(tmp_path, name)
    expected = logits(path, activations="fine")
    for offload in offloads:
        assert_same(logits(path, offload, activations="fine"), expected)


def test_layers_without_rotary_positions(tmp_path: Path) -> None:
    """SmolLM3's fourth layer turns nothing and has no table; the third one does."""
    path = tmp_path / "m.gguf"
    tiny.write(replace(tiny.by_name("llama_f32"), arch="smollm3", layers=4), path)
    offload = r"\.[23]\.attn"
    assert_same(logits(path, offload, n=3, activations="fine"), logits(path, n=3, activations="fine"))
    with ggblock.load(path, context=64, offload=offload, notify=lambda line: None) as model:
        steps = [step for run in model.engine._plan.runs for step in run.steps if isinstance(step, RopeStep)]
        assert [step._kernel.name for step in steps] == ["rope/norm/8/8/0/f16", "rope/norm/8/0/0/f16"]


def test_panels_are_uploaded_as_they_lie(tmp_path: Path) -> None:
    path = written(tmp_path, "gemma3_linear_f16")
    with open_source(path) as source:
        execute(make_plan(source, str(tmp_path / "m.ggb"), Options(type=None)))
    with ggblock.open(tmp_path / "m.ggb") as file:
        assert file.tensors["blk.0.attn_q.weight"].in_panels
    assert_same(logits(tmp_path / "m.ggb", "all", activations="fine"), logits(path, activations="fine"))


def test_reference_mode(tmp_path: Path) -> None:
    path = written(tmp_path, "llama_llama3")
    assert_same(logits(path, "all", reference=True), logits(path, reference=True), 1e-4)


def test_many_tokens_go_through_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With bfloat16 tiles. Rounding a factor to 8 bits has a relative error uniform in +-2**-9, of variance 2**-18 / 3;
    a product has two factors, a row of logits is behind 7 products a layer in 2 layers, and layers may pass errors on
    larger than they came: 4 times."""
    path = written(tmp_path, "llama_text")
    monkeypatch.setattr(start, "gemm_of", lambda device: Plain())
    reference = logits(path, reference=True, n=17)[:17]
    error = ((logits(path, "all", n=17)[:17] - reference) ** 2).mean() / (reference**2).mean()
    assert 1e-7 < error < 4 * 14 * 2 * 2**-18 / 3


def copies(model: ggblock.Model) -> list[tuple[str, int]]:
    """(direction, bytes for a token) of every copy in the plan of the layers."""
    plan = model.engine._plan
    assert isinstance(plan, MixedPlan)
    return [("in" if c.to_device else "out", 4 * c.host.shape[1]) for run in plan.runs for c in run.copies]


def test_boundaries_copy_one_hidden_state(tmp_path: Path) -> None:
    path = written(tmp_path, "llama_text")
    said: list[str] = []
    with ggblock.load(path, context=64, offload=1, notify=said.append) as model:
        n_embd, n_layers = model.engine.config.n_embd, model.engine.config.n_layers
        assert copies(model) == [("in", 4 * n_embd)]
        kept = [cache for _, cache in model.engine._plan._offloading.memory._by_host.values() if cache.dtype == "f2"]
        assert len(kept) == 2, "keys and values of one layer"
    assert any(line.startswith(f"1 of {n_layers} layers on Numba's simulator") for line in said)
    with ggblock.load(path, context=64, offload=r"\.1\.ffn", notify=said.append) as model:
        assert copies(model) == [("in", 4 * n_embd)]
    with ggblock.load(path, context=64, offload=r"\.0\.", notify=said.append) as model:
        assert copies(model) == [("in", 4 * n_embd), ("out", 4 * n_embd)]


def test_batches_and_later_positions(tmp_path: Path) -> None:
    """A prompt read in two parts gives what it gives in one; attention takes several slots' worth of tokens."""
    path = written(tmp_path, "llama_text")
    ids = [IDS[i % len(IDS)] for i in range(20)]
    with ggblock.load(path, context=64, offload="all", notify=lambda line: None) as model:
        whole = model.engine.forward(ids, 0)
        model.engine.forward(ids[:12], 0)
        assert_same(model.engine.forward(ids[12:], 12), whole)


def test_auto_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "llama_text")
    said: list[str] = []
    ggblock.load(path, context=64, offload="auto", notify=said.append).close()
    assert any(line.startswith("2 of 2 layers and the output on Numba's simulator") for line in said)
    monkeypatch.setattr(start, "RESERVED", 1 << 40)
    with ggblock.load(path, context=64, offload="auto", notify=said.append) as model:
        assert not isinstance(model.engine._plan, MixedPlan)
    assert any("not one layer fits" in line for line in said)


def test_too_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ggblock.engine.cuda.device.SIMULATED_BYTES", 1000)
    with pytest.raises(errors.DeviceError, match="does not fit the memory") as caught:
        ggblock.load(written(tmp_path, "llama_text"), offload="all")
    assert "\n" not in str(caught.value)


def test_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for: an error. "auto": said, and the CPU computes."""
    path = written(tmp_path, "llama_text")
    monkeypatch.setattr("ggblock.engine.cuda.device.is_simulated", lambda: False)
    monkeypatch.setattr("ctypes.CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    for offload in ("all", 1, "ffn"):
        with pytest.raises(errors.DeviceError, match="no NVIDIA driver"):
            ggblock.load(path, offload=offload)
    with pytest.raises(errors.SettingError, match="matches none"):
        ggblock.load(path, offload="nothing like it")
    monkeypatch.undo()
    expected = logits(path)
    monkeypatch.setattr("ggblock.engine.cuda.device.check", _no_device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ggblock.load(path, context=64, offload="auto") as model:
            np.testing.assert_array_equal(model.engine.forward(IDS, 0, all_logits=True), expected[: len(IDS)])
    assert any("offload auto" in str(w.message) and "the CPU computes everything" in str(w.message) for w in caught)


def _no_device() -> None:
    raise errors.DeviceError("there is none", where="offload")
