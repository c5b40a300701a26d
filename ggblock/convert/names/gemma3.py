"""``gemma3``: Gemma 3 text models, and the text part of those that see.

Norms are stored as what is added to one; embeddings may have more rows than the vocabulary has tokens.
"""
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...format.metadata import Typed
from ..config import Config
from . import Target, layer_tensors
from .common import Sizes, base_metadata, sizes_of


def _sizes(config: Config) -> Sizes:
    config.assume(vocab_size=262208, rope_theta=1e6, rope_local_base_freq=1e4, sliding_window=4096, rms_norm_eps=1e-6,
                  max_position_embeddings=131072)
    return sizes_of(config, heads=8, kv_heads=4, head=256)


def metadata(config: Config) -> dict[str, Any]:
    if config.values.get("attn_logit_softcapping") is not None:
        raise config.fault("attn_logit_softcapping", "Gemma 3 has no such thing", "null")
    values = base_metadata(config, _sizes(config))
    cap = config.number("final_logit_softcapping", default=None)
    if cap:
        values["final_logit_softcapping"] = Typed("f32", cap)
    if config.values.get("sliding_window_pattern") != 1:
        values["attention.sliding_window"] = Typed("u32", config.integer("sliding_window"))
    return values


def tensors(config: Config, n_vocab: int | None) -> dict[str, Target]:
    s = _sizes(config)
    wide, narrow = s.n_heads * s.head, s.n_kv_heads * s.head
    norm = {"add": 1.0}
    return {
        "model.embed_tokens.weight": Target("token_embd.weight", (None, s.n_embd), max_rows=n_vocab),
        **dict(layer_tensors(s.n_layers, {
            "input_layernorm": ("attn_norm", (s.n_embd,), norm),
            "self_attn.q_proj": ("attn_q", (wide, s.n_embd), {}),
            "self_attn.k_proj": ("attn_k", (narrow, s.n_embd), {}),
            "self_attn.v_proj": ("attn_v", (narrow, s.n_embd), {}),
            "self_attn.o_proj": ("attn_output", (s.n_embd, wide), {}),
            "self_attn.q_norm": ("attn_q_norm", (s.head,), norm),
            "self_attn.k_norm": ("attn_k_norm", (s.head,), norm),
            "post_attention_layernorm": ("post_attention_norm", (s.n_embd,), norm),
            "pre_feedforward_layernorm": ("ffn_norm", (s.n_embd,), norm),
            "post_feedforward_layernorm": ("post_ffw_norm", (s.n_embd,), norm),
            "mlp.gate_proj": ("ffn_gate", (s.n_ff, s.n_embd), {}),
            "mlp.up_proj": ("ffn_up", (s.n_ff, s.n_embd), {}),
            "mlp.down_proj": ("ffn_down", (s.n_embd, s.n_ff), {}),
        }, biases=False)),
        "model.norm.weight": Target("output_norm.weight", (s.n_embd,), add=1.0),
        "lm_head.weight": Target("output.weight", (None, s.n_embd), max_rows=n_vocab, required=False),
    }  # fmt: skip


def generated(config: Config) -> dict[str, NDArray[np.float32]]:
    return {}
