"""Whole conversions of small checkpoints: tensors, metadata, exact sizes, faults that leave no file."""
from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ggblock
from ggblock import errors
from ggblock.blocks import dequantize, quantize
from ggblock.convert import Options, convert, execute, make_plan, open_source, streaming, summarize

from . import checkpoints as ck


def paired(array: np.ndarray, heads: int) -> np.ndarray:
    """The naive twin of the rows' change of order: dimension j and j + half of a head become neighbours."""
    out = np.empty_like(array)
    size = len(array) // heads
    for h in range(heads):
        for j in range(size // 2):
            out[h * size + 2 * j] = array[h * size + j]
            out[h * size + 2 * j + 1] = array[h * size + j + size // 2]
    return out


LLAMA = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
GEMMA = {
    **LLAMA, "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip


def expected(arrays: ck.Arrays, config: dict[str, Any]) -> ck.Arrays:
    gemma = config["architectures"][0].startswith("Gemma")
    out = {}
    for name, array in arrays.items():
        if name.startswith("model.layers."):
            _, _, layer, *rest = name.split(".")
            short = (GEMMA if gemma else LLAMA)[".".join(rest[:-1])]
            target = f"blk.{layer}.{short}.weight"
            if not gemma and short in ("attn_q", "attn_k"):
                heads = config["num_attention_heads" if short == "attn_q" else "num_key_value_heads"]
                array = paired(array, heads)
        else:
            target = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
                      "lm_head.weight": "output.weight"}[name]  # fmt: skip
        out[target] = array + np.float32(1) if gemma and target.endswith("norm.weight") else array
    return out


@pytest.mark.parametrize("config", [ck.llama_config(), ck.llama_config(tie_word_embeddings=False), ck.gemma_config(),
                                    ck.llama_config(architectures=["MistralForCausalLM"], head_dim=32)])  # fmt: skip
@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
def test_every_tensor_of_a_checkpoint(tmp_path: Path, config: dict[str, Any], kind: str) -> None:
    arrays = ck.make(tmp_path / "m", config)
    convert(tmp_path / "m", tmp_path / "m.gguf", kind)
    wanted = expected(arrays, config)
    with ggblock.open(tmp_path / "m.gguf") as file:
        assert set(file.tensors) == set(wanted)
        for name, tensor in file.tensors.items():
            stored = "f32" if wanted[name].ndim == 1 else kind
            assert tensor.type.name == stored and tensor.shape == wanted[name].shape
            np.testing.assert_array_equal(tensor.raw, quantize(wanted[name], stored).reshape(tensor.raw.shape))


def test_metadata_of_a_llama(tmp_path: Path) -> None:
    config = ck.llama_config(rope_scaling={"type": "linear", "factor": 2.0})
    ck.make(tmp_path / "Tiny-1B-Instruct", config)
    (tmp_path / "Tiny-1B-Instruct" / "README.md").write_text(
        "---\nlicense: mit\nlanguage:\n- en\n- no\ntags: [a, b]\nbase_model: org/base-2B\n---\n# Tiny\n"
    )
    (tmp_path / "Tiny-1B-Instruct" / "generation_config.json").write_text('{"temperature": 0.6, "top_k": 20}')
    convert(tmp_path / "Tiny-1B-Instruct", tmp_path / "m.gguf", "q8_0")
    with ggblock.open(tmp_path / "m.gguf") as file:
        found = {key: (file.metadata.kind(key), file.metadata[key]) for key in file.metadata}
        found = {key: (kind, value[:] if kind.endswith("[]") else value) for key, (kind, value) in found.items()}
    assert found["general.architecture"] == ("str", "llama")
    assert found["general.name"] == ("str", "Tiny 1B Instruct")
    assert found["general.license"] == ("str", "mit")
    assert found["general.languages"][1] == ["en", "no"]
    assert found["general.base_model.0.repo_url"] == ("str", "https://huggingface.co/org/base-2B")
    assert found["general.sampling.top_k"] == ("i32", 20)
    assert found["general.file_type"] == ("u32", 7)
    assert found["llama.attention.head_count_kv"] == ("u32", 2)
    assert found["llama.attention.key_length"] == ("u32", 16)
    assert found["llama.rope.scaling.type"] == ("str", "linear")
    assert found["llama.rope.scaling.factor"] == ("f32", 2.0)
    assert found["tokenizer.ggml.model"] == ("str", "gpt2")
    assert found["tokenizer.ggml.pre"] == ("str", "gpt-2")
    assert found["tokenizer.ggml.bos_token_id"] == ("u32", 256)
    assert found["tokenizer.ggml.padding_token_id"] == ("u32", 260)
    assert found["tokenizer.ggml.add_bos_token"] == ("bool", True)
    assert found["tokenizer.ggml.merges"][1] == ["h e"]
    assert found["tokenizer.ggml.token_type"][1][254:] == [1, 1, 3, 3, 3, 3, 3, 1]
    assert found["tokenizer.chat_template"] == ("str", "{{ messages }}")


def test_sentencepiece_and_a_wide_embedding(tmp_path: Path) -> None:
    ck.make(tmp_path / "m", ck.gemma_config(), sentencepiece=True)
    arrays = ck.weights(ck.gemma_config())
    arrays["model.embed_tokens.weight"] = np.zeros((300, 64), np.float32)
    ck.write_safetensors(tmp_path / "m" / "model.safetensors", arrays)
    (tmp_path / "m" / "added_tokens.json").write_text('{"<extra>": 261}')
    convert(tmp_path / "m", tmp_path / "m.gguf", "f16")
    with ggblock.open(tmp_path / "m.gguf") as file:
        assert file.tensors["token_embd.weight"].shape == (262, 64)
        meta = file.metadata
        assert meta["tokenizer.ggml.model"] == "llama" and meta["tokenizer.ggml.add_space_prefix"] is False
        assert meta["tokenizer.ggml.tokens"][:4] == ["<unk>", "<s>", "</s>", "<0x00>"]
        assert meta["tokenizer.ggml.tokens"][259:] == ["\u2581w259", "\u2581w260", "<extra>"]
        assert meta["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6] and meta["tokenizer.ggml.token_type"][-1] == 4
        assert meta["tokenizer.ggml.scores"][5] == -5.0 and meta["tokenizer.ggml.scores"][-1] == -1000.0
        assert meta["gemma3.attention.sliding_window"] == 16
        assert meta["gemma3.rope.freq_base_swa"] == 10000.0


def test_llama3_scaling_becomes_a_tensor(tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}  # fmt: skip
    ck.make(tmp_path / "m", ck.llama_config(rope_scaling=scaling, head_dim=32, rope_theta=500.0))
    convert(tmp_path / "m", tmp_path / "m.gguf", "f16")
    with ggblock.open(tmp_path / "m.gguf") as file:
        found = file.tensors["rope_freqs.weight"].dequantize()
    for i, value in enumerate(found):
        length = 2 * np.pi * 500.0 ** (2 * i / 32)
        smooth = (64 / length - 1) / 3
        plain = 1.0 if length < 16 else 8.0 if length > 64 else 1 / ((1 - smooth) / 8 + smooth)
        assert value == pytest.approx(plain, rel=1e-5)
    assert found.shape == (16,) and {1.0, 8.0} <= set(found.tolist()) and len(set(found.tolist())) > 2


@pytest.mark.parametrize("kind", ["f16", "q8_0", "q4_0", "q4_k_m"])
def test_a_plan_knows_the_exact_size_and_reads_no_weight(tmp_path: Path, kind: str) -> None:
    ck.make(tmp_path / "m", ck.llama_config(hidden_size=256, intermediate_size=256))
    with open_source(tmp_path / "m") as source:
        plan = make_plan(source, str(tmp_path / "m.gguf"), Options(type=kind))
        assert not (tmp_path / "m.gguf").exists()
        result = execute(plan)
    assert (tmp_path / "m.gguf").stat().st_size == plan.n_bytes == summarize(result).n_bytes
    rows = summarize(plan).rows
    assert sum(row.weights for row in rows) == plan.n_weights
    assert 8 * sum(row.n_bytes for row in rows) / plan.n_weights == pytest.approx(plan.bits_per_weight)
    limit = {"f16": 4e-4, "q8_0": 0.01, "q4_0": 0.12, "q4_k_m": 0.12}[kind]
    errors_found = [w.error for w in result.tensors if w.error is not None]
    assert errors_found and max(errors_found) < limit


def test_gguf_in_gguf_out(tmp_path: Path) -> None:
    ck.make(tmp_path / "m", ck.llama_config())
    convert(tmp_path / "m", tmp_path / "f16.gguf", "f16")
    convert(tmp_path / "m", tmp_path / "direct.gguf", "q8_0")
    convert(tmp_path / "f16.gguf", tmp_path / "again.gguf", "f16")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "f16.gguf").read_bytes()
    convert(tmp_path / "f16.gguf", tmp_path / "q8.gguf", "q8_0")
    with ggblock.open(tmp_path / "q8.gguf") as a, ggblock.open(tmp_path / "f16.gguf") as b:
        assert list(a.tensors) == list(b.tensors)
        for name, tensor in a.tensors.items():
            if tensor.type.name == "q8_0":
                raw = quantize(b.tensors[name].dequantize(), "q8_0")
                np.testing.assert_array_equal(tensor.raw, raw)
        assert set(b.metadata) == set(a.metadata)


def test_rows_that_do_not_fit_are_told(tmp_path: Path) -> None:
    ck.make(tmp_path / "m", ck.llama_config(intermediate_size=104))
    with open_source(tmp_path / "m") as source:
        plan = make_plan(source, str(tmp_path / "m.gguf"), Options(type="q4_k_s"))
        found = {each.tensor: (each.wanted, each.became) for each in summarize(plan).fallbacks}
        assert found["blk.0.attn_q.weight"] == ("Q4_K", "Q5_0")
        assert found["blk.0.ffn_down.weight"][1] == "F16"
        with pytest.raises(errors.RowDoesNotFit, match="do not fit"):
            make_plan(source, str(tmp_path / "m.gguf"), Options(type="q4_k_s", fallback=False))


def test_only_and_skip(tmp_path: Path) -> None:
    ck.make(tmp_path / "m", ck.llama_config())
    options = Options(only=("ffn", "attn_q"), skip=("ffn_up",))
    convert(tmp_path / "m", tmp_path / "m.gguf", "q8_0", options=options)
    with ggblock.open(tmp_path / "m.gguf") as file:
        quantized = {name.split(".")[2] for name, t in file.tensors.items() if t.type.name == "q8_0"}
        assert quantized == {"ffn_gate", "ffn_down", "attn_q"}
        assert file.tensors["blk.0.ffn_up.weight"].type.name == "f32"
    with open_source(tmp_path / "m") as source, pytest.raises(errors.SettingError, match="fits no tensor"):
        make_plan(source, "x.gguf", Options(type="q8_0", skip=("nose",)))


def test_split_output(tmp_path: Path) -> None:
    ck.make(tmp_path / "m", ck.llama_config())
    convert(tmp_path / "m", tmp_path / "one.gguf", "f16")
    result = convert(tmp_path / "m", tmp_path / "many.gguf", "f16", options=Options(split_bytes=60_000))
    paths = result.plan.paths
    assert len(paths) > 2 and paths[0].endswith(f"many-00001-of-{len(paths):05d}.gguf")
    assert sum(os.path.getsize(path) for path in paths) == result.plan.n_bytes
    with ggblock.open(paths[1]) as many, ggblock.open(tmp_path / "one.gguf") as one:
        assert list(many.tensors) == list(one.tensors)
        assert all(np.array_equal(many.tensors[n].raw, one.tensors[n].raw) for n in one.tensors)
        assert many.metadata["llama.block_count"] == 2
    kept = convert(paths[0], tmp_path / "kept.gguf", "q8_0", options=Options(keep_split=True)).plan.paths
    assert len(kept) == len(paths)
    with pytest.raises(errors.SettingError, match="not split"):
        convert(tmp_path / "one.gguf", tmp_path / "x.gguf", "q8_0", options=Options(keep_split=True))


def damaged(folder: Path, how: str) -> None:
    """Change one thing of the checkpoint in ``folder``."""
    config = json.loads((folder / "config.json").read_text())
    arrays = ck.weights(config)
    weight = "model.layers.1.mlp.up_proj.weight"
    if how == "nan":
        arrays[weight][5, 6] = np.nan
    elif how == "inf":
        arrays[weight][5, 6] = -np.inf
    elif how == "huge":
        arrays[weight][5, 6] = 1e6
    elif how == "missing":
        del arrays[weight]
    elif how == "unknown":
        arrays["model.layers.1.mlp.nose.weight"] = arrays[weight]
    elif how == "layer":
        arrays["model.layers.2.mlp.up_proj.weight"] = arrays[weight]
    elif how == "shape":
        arrays[weight] = arrays[weight][:50]
    elif how == "truncated":
        ck.write_safetensors(folder / "model.safetensors", arrays)
        raw = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(raw[: len(raw) - 100])
        return
    elif how == "architecture":
        config["architectures"] = ["NoseForCausalLM"]
    elif how == "quantized":
        config["quantization_config"] = {"quant_method": "gptq"}
    elif how == "heads":
        config["num_attention_heads"] = "many"
    elif how == "vocabulary":
        (folder / "tokenizer.json").unlink()
    elif how == "tokenizer":
        (folder / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {}}}')
    elif how == "ids":
        config["vocab_size"] = 250
        arrays["model.embed_tokens.weight"] = arrays["model.embed_tokens.weight"][:250]
    (folder / "config.json").write_text(json.dumps(config))
    ck.write_safetensors(folder / "model.safetensors", arrays)


FAULTS = {
    "nan": (errors.NonFiniteWeight, "blk.1.ffn_up.weight, row 5, column 6"),
    "inf": (errors.NonFiniteWeight, "blk.1.ffn_up.weight, row 5, column 6"),
    "huge": (errors.NonFiniteWeight, "blk.1.ffn_up.weight, row 5, column 6"),
    "missing": (errors.MissingTensor, "model.layers.1.mlp.up_proj.weight"),
    "unknown": (errors.UnmappedTensor, "model.layers.1.mlp.nose.weight"),
    "layer": (errors.UnmappedTensor, "model.layers.2.mlp.up_proj.weight"),
    "shape": (errors.ShapeMismatch, "expected 96 x 64; found 50 x 64"),
    "truncated": (errors.BadCheckpoint, "cut short"),
    "architecture": (errors.UnknownArchitecture, "NoseForCausalLM"),
    "quantized": (errors.BadCheckpoint, "already quantized"),
    "heads": (errors.BadCheckpoint, "num_attention_heads"),
    "vocabulary": (errors.MissingVocabulary, "tokenizer.json or tokenizer.model"),
    "tokenizer": (errors.BadCheckpoint, "no usable tokenizer"),
    "ids": (errors.BadCheckpoint, "beyond the vocabulary"),
}


@pytest.mark.parametrize("how", FAULTS)
def test_a_fault_is_one_line_and_leaves_no_file(tmp_path: Path, how: str) -> None:
    ck.make(tmp_path / "m", ck.llama_config())
    damaged(tmp_path / "m", how)
    (tmp_path / "out").mkdir()
    kind, text = FAULTS[how]
    with pytest.raises(kind) as fault:
        convert(tmp_path / "m", tmp_path / "out" / "m.gguf", "q8_0")
    assert text in str(fault.value) and "\n" not in str(fault.value) and "m" in str(fault.value.file or "m")
    assert list((tmp_path / "out").iterdir()) == []


def test_nonfinite_weights_on_request(tmp_path: Path) -> None:
    ck.make(tmp_path / "m", ck.llama_config())
    damaged(tmp_path / "m", "nan")
    result = convert(tmp_path / "m", tmp_path / "q.gguf", "q8_0", options=Options(allow_nonfinite=True))
    assert any("1 weights" in text for text in summarize(result).notes)
    with ggblock.open(tmp_path / "q.gguf") as file:
        assert np.isfinite(file.tensors["blk.1.ffn_up.weight"].dequantize()).all()
    convert(tmp_path / "m", tmp_path / "f.gguf", "f32", options=Options(allow_nonfinite=True))
    with ggblock.open(tmp_path / "f.gguf") as file:
        assert np.isnan(file.tensors["blk.1.ffn_up.weight"].dequantize()).sum() == 1


def test_converting_onto_itself_is_refused(tmp_path: Path) -> None:
    ck.make(tmp_path / "m", ck.llama_config())
    convert(tmp_path / "m", tmp_path / "m.gguf", "f16")
    before = (tmp_path / "m.gguf").read_bytes()
    with pytest.raises(errors.WouldOverwriteInput):
        convert(tmp_path / "m.gguf", tmp_path / "m.gguf", "q8_0")
    with pytest.raises(errors.WouldOverwriteInput):
        convert(tmp_path / "m", tmp_path / "m" / "model.safetensors", "q8_0")
    assert (tmp_path / "m.gguf").read_bytes() == before


@pytest.mark.parametrize("fault", [KeyboardInterrupt, errors.DiskFull, "vanished", "shrunk"])
def test_an_interrupted_conversion_leaves_nothing(
    tmp_path: Path, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ck.make(tmp_path / "m", ck.llama_config())
    (tmp_path / "out").mkdir()
    model = tmp_path / "m" / "model.safetensors"
    calls = 0

    def progress(name: str, done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            if fault == "vanished":
                model.unlink()
            elif fault == "shrunk":
                os.truncate(model, model.stat().st_size - 50_000)
            else:
                raise fault("stopped")

    kinds = {"vanished": errors.CannotRead, "shrunk": errors.Truncated}
    with pytest.raises(kinds.get(fault, fault)):
        convert(tmp_path / "m", tmp_path / "out" / "m.gguf", "q8_0", progress=progress,
                options=Options(split_bytes=60_000))  # fmt: skip
    assert list((tmp_path / "out").iterdir()) == []


def test_pieces_of_rows_give_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for config in (ck.llama_config(), ck.gemma_config()):
        shutil.rmtree(tmp_path / "m", ignore_errors=True)
        ck.make(tmp_path / "m", config)
        convert(tmp_path / "m", tmp_path / "whole.gguf", "q4_0")
        with monkeypatch.context() as patched:
            patched.setattr(streaming, "CHUNK_WEIGHTS", 700)
            convert(tmp_path / "m", tmp_path / "pieces.gguf", "q4_0")
        assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "pieces.gguf").read_bytes()


def test_torch_files_convert_alike(tmp_path: Path) -> None:
    arrays = ck.make(tmp_path / "m", ck.llama_config())
    convert(tmp_path / "m", tmp_path / "a.gguf", "q8_0")
    (tmp_path / "m" / "model.safetensors").unlink()
    ck.write_torch(tmp_path / "m" / "pytorch_model.bin", arrays)
    convert(tmp_path / "m", tmp_path / "b.gguf", "q8_0")
    with ggblock.open(tmp_path / "a.gguf") as a, ggblock.open(tmp_path / "b.gguf") as b:
        assert set(a.tensors) == set(b.tensors)
        assert all(np.array_equal(a.tensors[name].raw, b.tensors[name].raw) for name in a.tensors)


def test_importance_is_used(tmp_path: Path) -> None:
    arrays = ck.make(tmp_path / "m", ck.llama_config())
    name, wanted = "blk.0.ffn_up.weight", arrays["model.layers.0.mlp.up_proj.weight"]
    weight = np.where(np.arange(64) < 8, 100.0, 0.01).astype(np.float32)
    convert(tmp_path / "m", tmp_path / "without.gguf", "q4_0")
    convert(tmp_path / "m", tmp_path / "with.gguf", "q4_0", options=Options(importance={name: weight}))
    loss = {}
    for which in ("without", "with"):
        with ggblock.open(tmp_path / f"{which}.gguf") as file:
            back = dequantize(file.tensors[name].raw, "q4_0", wanted.shape)
        loss[which] = float((np.square(back - wanted) * weight).sum())
    assert loss["with"] < 0.9 * loss["without"]


@pytest.mark.parametrize(("changes", "text"), [
    ({"no_rope_layers": [1, 1]}, None), ({"no_rope_layers": [1, 0]}, "no_rope_layers"),
    ({"no_rope_layer_interval": 2}, "no_rope_layers"), ({"use_sliding_window": True}, "use_sliding_window"),
])  # fmt: skip
def test_a_smollm3_that_no_file_can_describe(tmp_path: Path, changes: dict[str, Any], text: str | None) -> None:
    config = ck.llama_config(architectures=["SmolLM3ForCausalLM"])
    ck.make(tmp_path / "m", config)
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, **changes}))
    if text is None:
        convert(tmp_path / "m", tmp_path / "m.gguf", "f16")
        with ggblock.open(tmp_path / "m.gguf") as file:
            assert file.metadata["general.architecture"] == "smollm3" and "smollm3.rope.freq_base" in file.metadata
    else:
        with pytest.raises(errors.BadCheckpoint, match=text):
            convert(tmp_path / "m", tmp_path / "m.gguf", "f16")
