"""``llama``: Llama 1-3, Mistral, SmolLM and others with the same shape (Touvron et al. 2023).

x = embedding
each layer:  x += attention(norm(x)) ;  x += down(silu(gate(norm(x))) * up(norm(x)))
logits = output(norm(x))
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .. import errors
from .compiled import Layers
from .rope import rope_table
from .written import Written


def layers(m: Layers, turns: Callable[[int], bool] = lambda i: True) -> Written:
    """``turns``: whether layer ``i`` (0-based) has rotary positions."""
    c, b, source = m.config, m.builder, m.source
    if source.integer("*.expert_count", 0, low=0):
        raise errors.ModelError(
            "mixtures of experts cannot be run", file=source.file.path, where=f"{c.architecture}.expert_count"
        )
    table = rope_table(source, m.n_ctx, c.n_rot, source.number("*.rope.freq_base", 10000.0), c.n_ctx_train)
    scale = 1.0 / math.sqrt(c.head)
    wide, narrow = c.n_heads * c.head, c.n_kv_heads * c.head
    for i in m.each():

        def at(name: str) -> str:
            return f"blk.{i}.{name}"  # noqa: B023

        a = b.norm(m.x, m.vector(at("attn_norm.weight"), c.n_embd), c.eps)
        b.matmul(a, m.matrix(at("attn_q.weight"), wide, c.n_embd), m.q, bias=m.optional_vector(at("attn_q.bias"), wide))
        b.matmul(
            a, m.matrix(at("attn_k.weight"), narrow, c.n_embd), m.k, bias=m.optional_vector(at("attn_k.bias"), narrow)
        )
        b.matmul(
            a, m.matrix(at("attn_v.weight"), narrow, c.n_embd), m.v, bias=m.optional_vector(at("attn_v.bias"), narrow)
        )
        b.barrier()
        m.attention(table if turns(i) else None, "norm", scale)
        a = b.copy(m.attended)
        b.matmul(
            a,
            m.matrix(at("attn_output.weight"), c.n_embd, wide),
            m.x,
            accumulate=True,
            bias=m.optional_vector(at("attn_output.bias"), c.n_embd),
        )
        b.barrier()
        a = b.norm(m.x, m.vector(at("ffn_norm.weight"), c.n_embd), c.eps)
        b.matmul(
            a,
            m.matrix(at("ffn_gate.weight"), c.n_ff, c.n_embd),
            m.gated,
            bias=m.optional_vector(at("ffn_gate.bias"), c.n_ff),
        )
        b.matmul(
            a, m.matrix(at("ffn_up.weight"), c.n_ff, c.n_embd), m.up, bias=m.optional_vector(at("ffn_up.bias"), c.n_ff)
        )
        b.barrier()
        a = b.gate("silu", m.gated, m.up)
        b.matmul(
            a,
            m.matrix(at("ffn_down.weight"), c.n_embd, c.n_ff),
            m.x,
            accumulate=True,
            bias=m.optional_vector(at("ffn_down.bias"), c.n_embd),
        )
        b.barrier()
    return Written(m.vector("output_norm.weight", c.n_embd), 1.0)
