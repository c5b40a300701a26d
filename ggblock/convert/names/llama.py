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


def _assume(config: Config) -> None:
    config.assume(rope_theta=config.number("global_rope_theta", "rotary_emb_base", default=10000.0), rms_norm_eps=1e-6)
    if config.architecture == "MistralForCausalLM":
        config.assume(max_position_embeddings=131072, num_key_value_heads=8)
    else:
        config.assume(max_position_embeddings=config.integer("n_ctx", "model_max_length", default=2048))


def metadata(config: Config) -> dict[str, Any]:
    _assume(config)
    if config.integer("num_local_experts", "num_experts", default=0, low=0) > 1:
        raise config.fault("num_local_experts", "mixtures of experts cannot be converted")
    sizes = sizes_of(config)
    return {
        **base_metadata(config, sizes),
        "vocab_size": Typed("u32", sizes.n_vocab),
        "rope.dimension_count": Typed("u32", sizes.head),
    }


def tensors(config: Config, n_vocab: int | None) -> dict[str, Target]:
    _assume(config)
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
    ``factor``, those between are blended. Every step is rounded to float32 as torch does it, for which a number over a
    tensor is the tensor's reciprocal times the number: llama.cpp's converter gets the same bits for the usual bases
    (torch's power is not always the nearest float32, ours is).
    """
    wide, _ = config.rope()
    if str(wide.get("rope_type", "")).lower() != "llama3":
        return {}
    f32 = np.float32
    head = sizes_of(config).head
    base = float(wide.get("rope_theta", 10000.0))
    factor, low, high = (
        f32(wide.get(key, value))
        for key, value in (("factor", 8.0), ("low_freq_factor", 1.0), ("high_freq_factor", 4.0))
    )
    original = f32(
        wide.get("original_max_position_embeddings")
        or config.integer("original_max_position_embeddings", default=8192)
    )
    exponents = np.arange(0, head, 2, dtype=np.float32) / f32(head)
    frequencies = f32(1) / (base ** exponents.astype(np.float64)).astype(np.float32)
    lengths = (f32(1) / frequencies) * f32(2 * math.pi)
    with np.errstate(divide="ignore", invalid="ignore"):
        smooth = ((f32(1) / lengths) * original - low) / (high - low)
        blended = f32(1) / ((f32(1) - smooth) / factor + smooth)
    divisors = np.where(lengths < original / high, f32(1), np.where(lengths > original / low, factor, blended))
    return {"rope_freqs.weight": divisors.astype(np.float32)}
