"""gemma3 in plain NumPy, token after token and head after head: the naive twin of ``ggblock/models/gemma3.py``.

Written from the description of the architecture (transformers' ``Gemma3ForCausalLM``) and from what llama.cpp's
converter stores: norm weights already hold the added 1, matrices are (n_out, n_in), rotation pairs entry ``i`` with
entry ``i + head_dim / 2``. Everything is float32; sums of squares and softmax run in float64.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis; float32 in, float32 out."""
    mean = np.mean(np.square(x.astype(np.float64)), axis=-1, keepdims=True)
    return (x / np.sqrt(mean + eps) * weight).astype(np.float32)


def rotate(x: np.ndarray, position: int, base: float, factor: float) -> np.ndarray:
    """Rotary embedding of heads ``x`` (n_heads, head_dim): entry i turns with entry i + head_dim / 2."""
    half = x.shape[-1] // 2
    angle = position / factor * base ** (-np.arange(half) / half)
    cos, sin = np.cos(angle), np.sin(angle)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(np.float32)


def gelu(x: np.ndarray) -> np.ndarray:
    """The tanh form of GELU."""
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


def logits(file: Any, ids: Sequence[int]) -> np.ndarray:
    """float32 (n_tokens, n_vocab): logits after every token of ``ids`` from position 0.

    ``file``: an opened file with ``.metadata`` (mapping) and ``.tensors`` (name -> object with ``.dequantize()``).
    """
    meta: Mapping[str, Any] = file.metadata
    weights = {name: tensor.dequantize() for name, tensor in file.tensors.items()}

    def key(name: str, default: Any = None) -> Any:
        return meta.get(f"gemma3.{name}", default)

    n_layers, n_heads = int(key("block_count")), int(key("attention.head_count"))
    n_kv = int(key("attention.head_count_kv", n_heads))
    head_dim = int(key("attention.key_length", 256))
    n_embd = int(key("embedding_length"))
    eps = float(key("attention.layer_norm_rms_epsilon"))
    window, period = int(key("attention.sliding_window")), int(key("attention.sliding_window_pattern", 6))
    # Only the 27B model (62 layers) scales its queries by the width of a head as hidden size / heads.
    query_scale = (n_embd / n_heads if n_layers == 62 else head_dim) ** -0.5
    linear = key("rope.scaling.type") == "linear"

    embedding = weights["token_embd.weight"]
    keys: list[list[np.ndarray]] = [[] for _ in range(n_layers)]
    values: list[list[np.ndarray]] = [[] for _ in range(n_layers)]
    out = []
    for position, token in enumerate(ids):
        x = embedding[token] * np.float32(np.sqrt(n_embd))
        for i in range(n_layers):
            w = {part: weights[f"blk.{i}.{part}.weight"] for part in (
                "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "attn_q_norm", "attn_k_norm",
                "post_attention_norm", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down", "post_ffw_norm")}
            everywhere = (i + 1) % period == 0
            base = float(key("rope.freq_base", 1e6) if everywhere else key("rope.freq_base_swa", 1e4))
            factor = float(key("rope.scaling.factor", 1.0)) if linear and everywhere else 1.0

            h = rms_norm(x, w["attn_norm"], eps)
            q = rms_norm((w["attn_q"] @ h).reshape(n_heads, head_dim), w["attn_q_norm"], eps)
            k = rms_norm((w["attn_k"] @ h).reshape(n_kv, head_dim), w["attn_k_norm"], eps)
            q = rotate(q, position, base, factor) * np.float32(query_scale)
            keys[i].append(rotate(k, position, base, factor))
            values[i].append((w["attn_v"] @ h).reshape(n_kv, head_dim))
            start = 0 if everywhere else max(0, position - window + 1)
            heads = []
            for head in range(n_heads):
                group = head // (n_heads // n_kv)
                seen_k = np.stack([k[group] for k in keys[i][start:]])
                seen_v = np.stack([v[group] for v in values[i][start:]])
                score = (seen_k @ q[head]).astype(np.float64)
                weight = np.exp(score - score.max())
                heads.append((weight / weight.sum()).astype(np.float32) @ seen_v)
            x = x + rms_norm(w["attn_output"] @ np.concatenate(heads), w["post_attention_norm"], eps)

            h = rms_norm(x, w["ffn_norm"], eps)
            h = w["ffn_down"] @ (gelu(w["ffn_gate"] @ h) * (w["ffn_up"] @ h)).astype(np.float32)
            x = x + rms_norm(h, w["post_ffw_norm"], eps)
        row = weights.get("output.weight", embedding) @ rms_norm(x, weights["output_norm.weight"], eps)
        cap = key("final_logit_softcapping")
        out.append(cap * np.tanh(row / cap) if cap else row)
    return np.stack(out).astype(np.float32)
