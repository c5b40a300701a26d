"""``llama``: Llama 1 to 3, Mistral, SmolLM 1 and 2, and others with the same tensors."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...format.metadata import Typed
from ..config import Config
from . import Target, layer_tensors
from .common import base_metadata, sizes_of


def metadata(config: Config) -> dict[str, Any]:
    if config.integer("num_local_experts", "num_experts", default=0, low=0) > 1:
        raise config.fault("num_local_experts", "mixtures of experts cannot be converted")
    sizes = sizes_of(config)
    return {
        **base_metadata(config, sizes),
        "vocab_size": Typed("u32", sizes.n_vocab),
        "rope.dimension_count": Typed("u32", sizes.head),
    }


def tensors(config: Config, n_vocab: int | None) -> dict[str, Target]:
    s = sizes_of(config)
    wide, narrow = s.n_heads * s.head, s.n_kv_heads * s.head
    return {
        "model.embed_tokens.weight": Target("token_embd.weight", (s.n_vocab, s.n_embd)),
        **dict(layer_tensors(s.n_layers, {
            "input_layernorm": ("attn_norm", (s.n_embd,), {}),
            "self_attn.q_proj": ("attn_q", (wide, s.n_embd), {"heads": s.n_heads}),
            "self_attn.k_proj": ("attn_k", (narrow, s.n_embd), {"heads": s.n_kv_heads}),
            "self_attn.v_proj": ("attn_v", (narrow, s.n_embd), {}),
            "self_attn.o_proj": ("attn_output", (s.n_embd, wide), {}),
            "post_attention_layernorm": ("ffn_norm", (s.n_embd,), {}),
            "mlp.gate_proj": ("ffn_gate", (s.n_ff, s.n_embd), {}),
            "mlp.up_proj": ("ffn_up", (s.n_ff, s.n_embd), {}),
            "mlp.down_proj": ("ffn_down", (s.n_embd, s.n_ff), {}),
        }, biases=True)),
        "model.norm.weight": Target("output_norm.weight", (s.n_embd,)),
        "lm_head.weight": Target("output.weight", (s.n_vocab, s.n_embd), required=not _tied(config)),
    }  # fmt: skip


def _tied(config: Config) -> bool:
    # Absent means tied for no Llama, but a checkpoint without a head can only mean that.
    return bool(config.values.get("tie_word_embeddings", False))


def generated(config: Config) -> dict[str, NDArray[np.float32]]:
    """``rope_freqs.weight`` where the scaling is Llama 3's: the divisor of each pair's frequency, float32 (head / 2,).

    Wavelengths below ``original / high_freq_factor`` stay, those above ``original / low_freq_factor`` are divided by
    ``factor``, those between are blended. All steps in float32, as they are computed elsewhere.
    """
    wide, _ = config.rope()
    if str(wide.get("rope_type", "")).lower() != "llama3":
        return {}
    f32 = np.float32
    head = sizes_of(config).head
    base = f32(wide.get("rope_theta", 10000.0))
    factor, low, high = (
        f32(wide.get(key, value))
        for key, value in (("factor", 8.0), ("low_freq_factor", 1.0), ("high_freq_factor", 4.0))
    )
    original = f32(
        wide.get("original_max_position_embeddings")
        or config.integer("original_max_position_embeddings", default=8192)
    )
    frequencies = f32(1) / base ** (np.arange(0, head, 2, dtype=np.float32) / f32(head))
    lengths = f32(2 * math.pi) / frequencies
    with np.errstate(divide="ignore", invalid="ignore"):
        smooth = (original / lengths - low) / (high - low)
        blended = f32(1) / ((f32(1) - smooth) / factor + smooth)
    divisors = np.where(lengths < original / high, f32(1), np.where(lengths > original / low, factor, blended))
    return {"rope_freqs.weight": divisors.astype(np.float32)}
