"""Ragged rows: encoded with only the row in view, chosen by recipes for GGB files, run as they lie; the way back."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import ggblock
from ggblock import blocks, errors
from ggblock.blocks import tails
from ggblock.cli.main import main
from ggblock.convert import Options, execute, make_plan, open_source, summarize
from ggblock.convert.encode import encode_rows
from ggblock.format import GgufWriter, TensorSpec
from ggblock.inspect.verify import verify
from ggblock.kernels.quantizers import MODULES

from . import checkpoints as ck

TYPES = [name for name in tails.CUT if name in MODULES]


@pytest.mark.parametrize("name", TYPES)
def test_the_search_sees_only_what_the_row_has(name: str) -> None:
    """No more error than the same weights have in whole blocks; whole blocks before a tail are not touched by it."""
    block, rng = blocks.by_name(name), np.random.default_rng(3)
    x = rng.standard_normal((96, 2 * block.block_size)).astype(np.float32)
    for given in (None, rng.uniform(0.2, 3, x.shape[1]).astype(np.float32)):
        whole = encode_rows(x, name, given)
        reference = blocks.dequantize(whole, name, x.shape)
        for n_cols in (tails.step(block), block.block_size + block.block_size // 2 // 32 * 32):
            row = tails.row(block, n_cols, ragged=True)
            weights = None if given is None else given[:n_cols]
            made = [encode_rows(x[:, :n_cols], name, weights, threads, ragged=True) for threads in (1, 2, 3)]
            assert np.array_equal(made[0], made[1]) and np.array_equal(made[0], made[2])
            body, first = row.n_whole * block.block_bytes, row.n_whole * block.block_size
            if given is None:
                np.testing.assert_array_equal(made[0][:, :body], whole[:, :body])
            back = blocks.dequantize(made[0], name, (96, n_cols), ragged=True)
            counts = np.ones(n_cols) if weights is None else weights
            errors_ = [
                float((np.square(y[:, first:n_cols] - x[:, first:n_cols]) * counts[first:]).sum())
                for y in (back, reference)
            ]
            assert errors_[0] <= errors_[1]


@pytest.mark.parametrize("name", TYPES)
def test_rows_of_zeros_and_no_others_are_zeros(name: str) -> None:
    n_cols = blocks.by_name(name).block_size // 64 * 32
    x = np.random.default_rng(1).standard_normal((5, n_cols)).astype(np.float32)
    x[3] = 0
    back = ggblock.dequantize(ggblock.quantize(x, name, ragged=True), name, x.shape, ragged=True)
    assert back.any(axis=1).tolist() == [True, True, True, False, True]


def test_a_weight_that_does_not_fit_is_named_in_a_tail() -> None:
    x = np.zeros((4, 288), np.float32)
    x[2, 280] = np.inf
    with pytest.raises(errors.NonFiniteWeight, match="row 2, column 280"):
        encode_rows(x, "q4_k", ragged=True)
    with pytest.raises(errors.BadShape, match="whole number of sub-blocks"):
        encode_rows(x[:, :280], "q4_k", ragged=True)
    with pytest.raises(errors.BadShape, match="whole number of blocks"):
        encode_rows(x, "q4_k")


def convert(source: Path, target: Path, **options: object) -> ggblock.convert.Summary:  # type: ignore[name-defined]
    with open_source(source) as opened:
        return summarize(execute(make_plan(opened, str(target), Options(**options))))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose matrices have rows of 96 and 160: no multiple of 256, some of it odd in sub-blocks."""
    root = tmp_path_factory.mktemp("ragged")
    ck.make(root / "m", ck.llama_config(hidden_size=96, intermediate_size=160, num_attention_heads=3,
                                        num_key_value_heads=1))
    return root


def test_recipes_need_no_fallback(folder: Path) -> None:
    """The types that the recipe wants, the head's among them; the summary says that rows are ragged."""
    made = convert(folder / "m", folder / "m.ggb", type="q4_k_m", fallback=False)
    assert made.fallbacks == () and any("ragged rows" in note for note in made.notes)
    with ggblock.open(folder / "m.ggb") as file:
        kinds = {name: tensor.type.name for name, tensor in file.tensors.items()}
        assert kinds["token_embd.weight"] == "q6_k" and kinds["blk.0.attn_q.weight"] == "q4_k"
        tensor = file.tensors["blk.0.attn_q.weight"]
        assert tensor.in_panels and tensor.row.tail is not None and tensor.row_bytes == 16 + 48
    assert verify(folder / "m.ggb").faults == ()
    plain = convert(folder / "m", folder / "m.gguf", type="q4_k_m")
    assert plain.fallbacks and plain.bits_per_weight > made.bits_per_weight
    rows = {row.type: row for row in made.rows}
    with ggblock.open(folder / "m.ggb") as file:
        stored = sum(tensor.n_bytes for tensor in file.tensors.values() if tensor.type.name == "q4_k")
    assert rows["Q4_K"].n_bytes == stored


def test_rows_that_fit_no_sub_block_still_fall_back(folder: Path, tmp_path: Path) -> None:
    with GgufWriter(tmp_path / "a.gguf", {}, [TensorSpec("a.weight", "f32", (5, 48))]) as writer:
        writer.write("a.weight", np.random.default_rng(0).standard_normal((5, 48)))
    made = convert(tmp_path / "a.gguf", tmp_path / "a.ggb", type="q4_k_s", pure=True)
    assert [(each.wanted, each.became) for each in made.fallbacks] == [("Q4_K", "F16")]
    with pytest.raises(errors.RowDoesNotFit):
        convert(tmp_path / "a.gguf", tmp_path / "b.ggb", type="q4_k_s", pure=True, fallback=False)
    made = convert(tmp_path / "a.gguf", tmp_path / "a.ggb", type="q6_k", pure=True)
    assert made.fallbacks == ()  # sub-blocks of 16


def test_the_way_back_says_what_it_does(folder: Path, tmp_path: Path) -> None:
    """A GGUF file cannot hold ragged rows: they are encoded again, or it is an error; GGB keeps their bytes."""
    source = tmp_path / "m.ggb"
    convert(folder / "m", source, type="q4_k_m")
    done = CliRunner().invoke(main, ["convert", str(source), str(tmp_path / "b.gguf")])
    assert done.exit_code == 0 and "have ragged rows, which only a GGB file holds" in done.stderr
    assert "Q4_K became Q5_0 (96 columns)" in done.stderr and "Q6_K became Q8_0 (96 columns)" in done.stderr
    assert "weights were quantized before (Q4_K, Q6_K)" in done.stderr
    with ggblock.open(source) as a, ggblock.open(tmp_path / "b.gguf") as b:
        for name, tensor in a.tensors.items():
            back = b.tensors[name]
            assert not back.in_panels and back.n_cols % back.type.block_size == 0
            x = tensor.dequantize()
            assert np.square(back.dequantize() - x).sum() <= 4e-3 * np.square(x).sum()
    refused = CliRunner().invoke(main, ["convert", str(source), str(tmp_path / "c.gguf"), "--no-fallback"])
    assert refused.exit_code == 1 and "ragged rows" in refused.stderr and not (tmp_path / "c.gguf").exists()
    convert(source, tmp_path / "d.ggb")
    with ggblock.open(source) as a, ggblock.open(tmp_path / "d.ggb") as d:
        for name, tensor in a.tensors.items():
            np.testing.assert_array_equal(tensor.raw, d.tensors[name].raw)
    kept = convert(source, tmp_path / "e.gguf", type="q8_0", skip=("attn_q",))
    assert {each.tensor for each in kept.fallbacks} == {"blk.0.attn_q.weight", "blk.1.attn_q.weight"}


@pytest.mark.parametrize("reference", [False, True])
def test_a_ragged_model_runs_as_its_weights_do(folder: Path, tmp_path: Path, reference: bool) -> None:
    """Logits of a file with ragged rows against those of its decoded weights in float32."""
    from ggblock.models import build

    convert(folder / "m", tmp_path / "m.ggb", type="q4_k_m")
    with ggblock.open(tmp_path / "m.ggb") as file:
        specs = [TensorSpec(name, "f32", tensor.shape) for name, tensor in file.tensors.items()]
        with GgufWriter(tmp_path / "f.gguf", file.metadata, specs) as writer:
            for name, tensor in file.tensors.items():
                writer.write(name, tensor.dequantize())
    ids = [5, 9, 200, 3, 9, 17, 250, 1, 0]
    logits = []
    for path, threads in (("m.ggb", 2), ("f.gguf", 1)):
        with ggblock.open(tmp_path / path) as file:
            model = build(file, threads=threads, reference=reference)
            many = model.forward(ids, 0, all_logits=True)
            logits.append(np.concatenate([many, model.forward([7], len(ids))]))
            model.close()
    spread = float(np.std(logits[1]))
    bound = 1e-4 if reference else 0.05  # int8 activations of one term in batches
    assert spread > 0 and float(np.abs(logits[0] - logits[1]).max()) < bound * spread
