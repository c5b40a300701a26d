"""``gemma3``: Gemma 3 text models (Gemma Team 2025).

Like llama, with norms of q and k, norms after attention and feed-forward, GELU, embeddings scaled by sqrt(n_embd), and
five layers with a sliding window (and a rotary base of 10,000) for each one that sees everything.
"""

from __future__ import annotations

import math

from .compiled import Layers
from .rope import rope_table
from .written import Written

PATTERN = 6  # every sixth layer is global, unless the file says otherwise


def layers(m: Layers) -> Written:
    c, b, source = m.config, m.builder, m.source
    everywhere = rope_table(source, m.n_ctx, c.n_rot, source.number("*.rope.freq_base", 1000000.0), c.n_ctx_train)
    local = rope_table(
        source, m.n_ctx, c.n_rot, source.number("*.rope.freq_base_swa", 10000.0), c.n_ctx_train, scaled=False
    )
    window = source.integer("*.attention.sliding_window", 0, low=0)
    pattern = source.integer("*.attention.sliding_window_pattern", PATTERN)
    # the 27 B model scales by its width a head instead of the head's own size
    base = c.n_embd / c.n_heads if c.n_layers == 62 else c.head
    scale = source.number("*.attention.scale", 0.0) or 1.0 / math.sqrt(base)
    wide, narrow = c.n_heads * c.head, c.n_kv_heads * c.head
    x, other = m.x, b.rows(c.n_embd)
    residual = None
    for i in m.each():

        def at(name: str) -> str:
            return f"blk.{i}.{name}.weight"  # noqa: B023

        is_global = (i + 1) % pattern == 0
        a = b.norm(x, m.vector(at("attn_norm"), c.n_embd), c.eps, residual)
        if residual:
            x, other = other, x
        b.matmul(a, m.matrix(at("attn_q"), wide, c.n_embd), m.q)
        b.matmul(a, m.matrix(at("attn_k"), narrow, c.n_embd), m.k)
        b.matmul(a, m.matrix(at("attn_v"), narrow, c.n_embd), m.v)
        b.barrier()
        m.attention(
            everywhere if is_global else local,
            "neox",
            scale,
            0 if is_global else window,
            m.vector(at("attn_q_norm"), c.head),
            m.vector(at("attn_k_norm"), c.head),
        )
        a = b.copy(m.attended)
        b.matmul(a, m.matrix(at("attn_output"), c.n_embd, wide), m.y)
        b.barrier()
        a = b.norm(
            x, m.vector(at("ffn_norm"), c.n_embd), c.eps, (m.y, m.vector(at("post_attention_norm"), c.n_embd), other)
        )
        x, other = other, x
        b.matmul(a, m.matrix(at("ffn_gate"), c.n_ff, c.n_embd), m.gated)
        b.matmul(a, m.matrix(at("ffn_up"), c.n_ff, c.n_embd), m.up)
        b.barrier()
        a = b.gate("gelu", m.gated, m.up)
        b.matmul(a, m.matrix(at("ffn_down"), c.n_embd, c.n_ff), m.y)
        b.barrier()
        residual = (m.y, m.vector(at("post_ffw_norm"), c.n_embd), other)
    return Written(m.vector("output_norm.weight", c.n_embd), math.sqrt(c.n_embd), x, residual)
