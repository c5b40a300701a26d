"""Small checkpoints whose conversion llama.cpp's own converter has made too; see tools/gen_golden_converter.py.

Weights are sums of random bits of a frozen generator, so that every system makes the same.
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import ggblock

from . import checkpoints as ck

#: Types that the converter can write.
TYPES = ("f32", "f16", "bf16", "q8_0")
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 4.0, "beta_slow": 0.25,
        "attention_factor": 1.5}  # fmt: skip
PAD = {"__type": "AddedToken", "content": "<pad>", "lstrip": False, "normalized": False, "rstrip": False,
       "single_word": False, "special": True}  # fmt: skip
CARD = """---
license: other
license_name: tiny
license_link: https://example.org/licence
language:
- en
- no
tags: [a, b]
pipeline_tag: text-generation
base_model: [org/Base-1B, https://huggingface.co/other/Second-v0.2]
datasets:
- somebody/texts
---
# A model
"""


def _numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    bits = np.random.RandomState(seed).randint(-(1 << 31), 1 << 31, (3, *shape), dtype=np.int64)
    return (bits.sum(axis=0) / 2.0**35).astype(np.float32)


def weights(config: dict[str, Any], dtype: str = "float32") -> ck.Arrays:
    """What the checkpoint holds; ``dtype`` "uint16" stands for bfloat16."""
    found = {name: _numbers(array.shape, i) for i, (name, array) in enumerate(ck.weights(config).items())}
    if config.get("attention_bias"):
        for name in list(found):
            if ".self_attn." in name and name.endswith("proj.weight"):
                found[name.replace(".weight", ".bias")] = _numbers(found[name].shape[:1], len(found))
    if config.get("mlp_bias"):
        for name in list(found):
            if ".mlp." in name and name.endswith("proj.weight"):
                found[name.replace(".weight", ".bias")] = _numbers(found[name].shape[:1], len(found))
    if dtype == "uint16":
        return {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in found.items()}
    return {name: array.astype(dtype) for name, array in found.items()}


def _make(folder: Path, config: dict[str, Any], dtype: str = "float32", sentencepiece: bool = False) -> ck.Arrays:
    ck.make(folder, config, sentencepiece=sentencepiece)
    settings_path = folder / "tokenizer_config.json"
    settings = json.loads(settings_path.read_text()) if settings_path.exists() else {}
    settings_path.write_text(json.dumps({**settings, "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": PAD}))
    arrays = weights(config, dtype)
    ck.write_safetensors(folder / "model.safetensors", arrays)
    return arrays


def llama_untied(folder: Path) -> None:
    arrays = _make(folder, ck.llama_config(tie_word_embeddings=False, attention_bias=True, mlp_bias=True))
    (folder / "README.md").write_text(CARD)
    (folder / "generation_config.json").write_text('{"temperature": 0.6, "top_p": 0.9, "top_k": 20}')
    (folder / "model.safetensors").unlink()
    parts, half = {}, len(arrays) // 2
    for i, names in enumerate((list(arrays)[:half], list(arrays)[half:]), 1):
        part = f"model-{i:05d}-of-00002.safetensors"
        ck.write_safetensors(folder / part, {name: arrays[name] for name in names})
        parts.update(dict.fromkeys(names, part))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))


def llama_tied_llama3(folder: Path) -> None:
    _make(folder, ck.llama_config(rope_scaling=LLAMA3, head_dim=32, rope_theta=500.0), "uint16")


def llama_torch_yarn(folder: Path) -> None:
    arrays = _make(folder, ck.llama_config(rope_scaling=YARN), "float16")
    (folder / "model.safetensors").unlink()
    ck.write_torch(folder / "pytorch_model.bin", arrays)


def mistral_pieces(folder: Path) -> None:
    config = ck.llama_config(architectures=["MistralForCausalLM"], model_type="mistral", head_dim=32,
                             tie_word_embeddings=False, sliding_window=64, bos_token_id=1, eos_token_id=2,
                             rope_scaling={"type": "linear", "factor": 2.0})  # fmt: skip
    _make(folder, config, "uint16", sentencepiece=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "added_tokens_decoder": {
            "0": {"content": "<unk>", "special": True}, "260": {"content": "[INST]", "special": True},
            "261": {"content": "\u2581word", "special": False},
        },
        "chat_template": "{{ bos_token }}{% for m in messages %}[INST] {{ m.content }}{% endfor %}",
    }))  # fmt: skip


def gemma3_pieces(folder: Path) -> None:
    config = ck.gemma_config(final_logit_softcapping=30.0, bos_token_id=2, eos_token_id=[1, 106], pad_token_id=0)
    arrays = _make(folder, config, "float16", sentencepiece=True)
    arrays["model.embed_tokens.weight"] = _numbers((300, 64), 99).astype(np.float16)  # more rows than tokens
    ck.write_safetensors(folder / "model.safetensors", arrays)
    (folder / "added_tokens.json").write_text('{"<extra>": 261}')
    (folder / "tokenizer_config.json").write_text('{"add_bos_token": true, "bos_token": "<s>", "eos_token": "</s>"}')


def gemma3_that_sees(folder: Path) -> None:
    text = ck.gemma_config(rope_scaling={"rope_type": "linear", "factor": 8.0})
    arrays = _make(folder, text, "uint16", sentencepiece=True)
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text,
        "vision_config": {"hidden_size": 8}, "eos_token_id": [1, 106],
    }))  # fmt: skip
    seen = {f"language_model.{name}": array for name, array in arrays.items()}
    seen["vision_tower.vision_model.post_layernorm.weight"] = seen["language_model.model.norm.weight"]
    seen["multi_modal_projector.mm_soft_emb_norm.weight"] = seen["language_model.model.norm.weight"]
    ck.write_safetensors(folder / "model.safetensors", seen)


def smollm3(folder: Path) -> None:
    config = ck.llama_config(architectures=["SmolLM3ForCausalLM"], model_type="smollm3", num_hidden_layers=5,
                             no_rope_layers=[1, 1, 1, 0, 1], rope_theta=5e6)  # fmt: skip
    _make(folder, config, "uint16")


def _bare(folder: Path, config: dict[str, Any], *left_out: str) -> None:
    """A checkpoint whose config.json says as little as old ones do."""
    _make(folder, config, "float16", sentencepiece=True)
    (folder / "tokenizer_config.json").unlink()
    kept = {key: value for key, value in config.items() if key not in left_out}
    (folder / "config.json").write_text(json.dumps(kept))


def llama_bare(folder: Path) -> None:
    config = ck.llama_config(num_key_value_heads=4, tie_word_embeddings=False)
    _bare(folder, config, "num_key_value_heads", "rope_theta", "max_position_embeddings",
          "rms_norm_eps", "tie_word_embeddings", "bos_token_id", "eos_token_id")


def mistral_bare(folder: Path) -> None:
    config = ck.llama_config(architectures=["MistralForCausalLM"], model_type="mistral", tie_word_embeddings=False)
    _bare(folder, config, "rope_theta", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings")


def smollm3_bare(folder: Path) -> None:
    config = ck.llama_config(architectures=["SmolLM3ForCausalLM"], model_type="smollm3", num_hidden_layers=4)
    _bare(folder, config, "rope_theta", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings",
          "bos_token_id", "eos_token_id")


def gemma3_bare(folder: Path) -> None:
    config = ck.gemma_config(num_attention_heads=8, num_key_value_heads=4, head_dim=256, num_hidden_layers=1)
    _bare(folder, config, "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings",
          "sliding_window", "rms_norm_eps", "rope_theta", "rope_local_base_freq")


#: Name, which is also that of the folder: function that makes the checkpoint.
CASES: dict[str, Callable[[Path], None]] = {
    "Untied-135M-Instruct-v0.1": llama_untied, "tied-llama3": llama_tied_llama3, "torch_yarn": llama_torch_yarn,
    "mistral-pieces-7B": mistral_pieces, "gemma3-pieces-it": gemma3_pieces, "gemma3-sees": gemma3_that_sees,
    "SmolLM3-tiny": smollm3, "llama-bare": llama_bare, "mistral-bare": mistral_bare, "smollm3-bare": smollm3_bare,
    "gemma3-bare": gemma3_bare,
}  # fmt: skip


def facts(path: Path) -> dict[str, Any]:
    """What a GGUF file holds, as JSON."""
    with ggblock.open(path) as file:
        keys: list[list[Any]] = []
        for key in file.metadata:
            value: Any = file.metadata[key]
            kind = file.metadata.kind(key)
            if kind.endswith("[]"):
                value = list(value[:])
                if len(value) > 16:
                    value = hashlib.sha256(json.dumps(value).encode()).hexdigest()
            keys.append([key, kind, value])
        tensors = [
            [name, tensor.type.label, list(tensor.shape), hashlib.sha256(tensor.raw.tobytes()).hexdigest()]
            for name, tensor in file.tensors.items()
        ]
    return {"keys": keys, "tensors": tensors}
