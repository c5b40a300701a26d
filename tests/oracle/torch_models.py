"""GGUF files as transformers models: the exact arithmetic that the engine is compared with.

Needs ``torch``, ``transformers`` and ``gguf``; never imported by the light tests or by the package.
A model is built from the *dequantized* weights of the file, so that its float32 logits are what the file means.

Facts about the files (llama.cpp's converter): ``llama`` stores q and k with the two halves of each head
interleaved (rotation of neighbouring pairs), ``gemma3`` stores norm weights with 1 added, ``rope_freqs.weight``
holds the divisors of the inverse frequencies of "llama3" scaling.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np
import torch
from gguf.quants import dequantize
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

LAYER = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
}
LLAMA_LAYER = LAYER | {"ffn_norm": "post_attention_layernorm"}
GEMMA3_LAYER = LAYER | {
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def read(path: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata and dequantized tensors (float32, numpy order) of a GGUF file, read with the ``gguf`` package."""
    reader = gguf.GGUFReader(path)
    long = ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type", "tokenizer.ggml.merges")
    metadata = {key: field.contents() for key, field in reader.fields.items() if key not in long}
    tensors = {
        t.name: dequantize(t.data, t.tensor_type).astype(np.float32).reshape([int(n) for n in reversed(t.shape)])
        for t in reader.tensors
    }
    return metadata, tensors


def split_halves(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """(n_heads * head_dim, ...) with neighbouring rotation pairs -> the order of transformers (two halves)."""
    rest = weight.shape[1:]
    return weight.reshape(n_heads, -1, 2, *rest).swapaxes(1, 2).reshape(weight.shape)


def _rope(metadata: Mapping[str, Any], arch: str, base_default: float) -> dict[str, Any]:
    def key(name: str, default: Any = None) -> Any:
        return metadata.get(f"{arch}.rope.{name}", default)

    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(key("freq_base", base_default))}
    kind = key("scaling.type", "none")
    if kind == "linear":
        rope |= {"rope_type": "linear", "factor": float(key("scaling.factor"))}
    elif kind == "yarn":
        rope |= {
            "rope_type": "yarn", "factor": float(key("scaling.factor")),
            "original_max_position_embeddings": int(key("scaling.original_context_length")),
        }
        for ours, theirs in (("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")):
            if key(f"scaling.{ours}") is not None:
                rope[theirs] = float(key(f"scaling.{ours}"))
    elif kind != "none":
        raise ValueError(f"no oracle for rope scaling {kind!r}")
    return rope


def load(path: str) -> torch.nn.Module:
    """A transformers causal language model in float32 with the weights that ``path`` holds (``llama``, ``gemma3``)."""
    metadata, tensors = read(path)
    return {"llama": _llama, "gemma3": _gemma3}[metadata["general.architecture"]](metadata, tensors)


def _sizes(metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray], arch: str) -> dict[str, Any]:
    n_heads = int(metadata[f"{arch}.attention.head_count"])
    n_embd = int(metadata[f"{arch}.embedding_length"])
    return {
        "vocab_size": tensors["token_embd.weight"].shape[0], "hidden_size": n_embd,
        "intermediate_size": int(metadata[f"{arch}.feed_forward_length"]),
        "num_hidden_layers": int(metadata[f"{arch}.block_count"]), "num_attention_heads": n_heads,
        "num_key_value_heads": int(metadata.get(f"{arch}.attention.head_count_kv", n_heads)),
        "head_dim": int(metadata.get(f"{arch}.attention.key_length", n_embd // n_heads)),
        "rms_norm_eps": float(metadata[f"{arch}.attention.layer_norm_rms_epsilon"]),
        "max_position_embeddings": int(metadata[f"{arch}.context_length"]),
        "tie_word_embeddings": "output.weight" not in tensors, "attn_implementation": "eager",
    }


def _fill(model: torch.nn.Module, state: dict[str, np.ndarray]) -> torch.nn.Module:
    tied = model.config.tie_word_embeddings
    missing, unexpected = model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()}, strict=False)
    lost = [name for name in missing if not (tied and name == "lm_head.weight")]
    if lost or unexpected:
        raise ValueError(f"tensors do not match the model: missing {lost}, unexpected {list(unexpected)}")
    model.tie_weights()
    return model.eval()


def _names(tensors: Mapping[str, np.ndarray], layer: Mapping[str, str]) -> dict[str, str]:
    """Tensor name in the file -> name in transformers, for all tensors but ``rope_freqs``."""
    names = {}
    for name in tensors:
        stem, kind = name.rsplit(".", 1)
        if stem == "rope_freqs":
            continue
        if stem.startswith("blk."):
            _, index, part = stem.split(".")
            names[name] = f"model.layers.{index}.{layer[part]}.{kind}"
        else:
            names[name] = f"{TOP[stem]}.{kind}"
    return names


def _llama(metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> torch.nn.Module:
    sizes = _sizes(metadata, tensors, "llama")
    config = LlamaConfig(
        **sizes, rope_parameters=_rope(metadata, "llama", 10000.0), hidden_act="silu",
        attention_bias="blk.0.attn_q.bias" in tensors, mlp_bias="blk.0.ffn_down.bias" in tensors,
    )
    with torch.device("cpu"):
        model = LlamaForCausalLM(config)
    heads = {"attn_q": sizes["num_attention_heads"], "attn_k": sizes["num_key_value_heads"]}
    state = {}
    for name, target in _names(tensors, LLAMA_LAYER).items():
        part = name.split(".")[2] if name.startswith("blk.") else ""
        state[target] = split_halves(tensors[name], heads[part]) if part in heads else tensors[name]
    if "rope_freqs.weight" in tensors:
        rotary = model.model.rotary_emb
        rotary.inv_freq = rotary.inv_freq / torch.from_numpy(tensors["rope_freqs.weight"].copy())
        rotary.original_inv_freq = rotary.inv_freq
    return _fill(model, state)


def _gemma3(metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> torch.nn.Module:
    sizes = _sizes(metadata, tensors, "gemma3")
    period = int(metadata.get("gemma3.attention.sliding_window_pattern", 6))
    n_layers = sizes["num_hidden_layers"]
    # The 27B model (62 layers) alone scales queries by hidden / heads; the file has no key for it.
    per_head = sizes["hidden_size"] // sizes["num_attention_heads"]
    config = Gemma3TextConfig(
        **sizes, hidden_activation="gelu_pytorch_tanh",
        query_pre_attn_scalar=per_head if n_layers == 62 else sizes["head_dim"],
        sliding_window=int(metadata["gemma3.attention.sliding_window"]),
        layer_types=["full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(n_layers)],
        rope_parameters={
            "full_attention": _rope(metadata, "gemma3", 1e6),
            "sliding_attention": {
                "rope_type": "default", "rope_theta": float(metadata.get("gemma3.rope.freq_base_swa", 10000.0)),
            },
        },
        final_logit_softcapping=metadata.get("gemma3.final_logit_softcapping"),
    )
    model = Gemma3ForCausalLM(config)
    state = {
        target: tensors[name] - 1.0 if name.endswith("norm.weight") else tensors[name]
        for name, target in _names(tensors, GEMMA3_LAYER).items()
    }
    return _fill(model, state)


@torch.no_grad()
def logits(model: torch.nn.Module, ids: Any) -> np.ndarray:
    """float32 (n_tokens, n_vocab): logits after each of the tokens, without a cache."""
    tokens = torch.as_tensor(np.asarray(ids, dtype=np.int64))[None]
    return model(input_ids=tokens, use_cache=False).logits[0].float().numpy()
