"""llama in plain NumPy, token after token and head after head: the naive twin of ``ggblock/models/llama.py``.

Written from the description of the architecture (transformers' ``LlamaForCausalLM``; yarn from arXiv:2309.00071) and
from what llama.cpp's converter stores: matrices are (n_out, n_in), the rows of attn_q and attn_k are reordered so that
the rotation pairs entry ``2 i`` with entry ``2 i + 1``, and "llama3" scaling is a tensor of divisors. Everything is
float32; sums of squares and softmax run in float64. Keys and values are plain lists, so a token may be put at any
position up to the end and replaces what stood there and after it.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tests.naive.gemma3 import rms_norm


def rotate(x: np.ndarray, position: int, inverse_frequencies: np.ndarray, scale: float) -> np.ndarray:
    """Rotary embedding of heads ``x`` (n_heads, head_dim): entry 2 i turns with entry 2 i + 1; a rest is left alone."""
    n_rotated = 2 * len(inverse_frequencies)
    angle = position * inverse_frequencies
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    out = x.copy()
    even, odd = x[:, 0:n_rotated:2], x[:, 1:n_rotated:2]
    out[:, 0:n_rotated:2] = even * cos - odd * sin
    out[:, 1:n_rotated:2] = odd * cos + even * sin
    return out.astype(np.float32)


def frequencies(key: Any, n_rotated: int, divisors: np.ndarray | None) -> tuple[np.ndarray, float]:
    """(radians a position, float64 (n_rotated / 2,); what cosine and sine are multiplied with)."""
    base = float(key("rope.freq_base", 10000.0))
    i = np.arange(n_rotated // 2)
    plain = base ** (-2.0 * i / n_rotated)
    if divisors is not None:
        plain = plain / divisors.astype(np.float64)
    kind = key("rope.scaling.type", "none")
    if kind == "none":
        return plain, 1.0
    factor = float(key("rope.scaling.factor"))
    if kind == "linear":
        return plain / factor, 1.0
    assert kind == "yarn", kind
    old = float(key("rope.scaling.original_context_length"))

    def dimension(turns: float) -> float:
        """The pair that makes so many turns within the old context."""
        return n_rotated * math.log(old / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(dimension(float(key("rope.scaling.yarn_beta_fast", 32.0)))), 0)
    high = min(math.ceil(dimension(float(key("rope.scaling.yarn_beta_slow", 1.0)))), n_rotated - 1)
    stretched = np.clip((i - low) / max(high - low, 0.001), 0.0, 1.0)
    return plain / factor * stretched + plain * (1.0 - stretched), 0.1 * math.log(factor) + 1.0


class NaiveLlama:
    """Logits of a llama file; the same methods as a compiled model.

    ``file``: an opened file with ``.metadata`` (mapping) and ``.tensors`` (name -> object with ``.dequantize()``).
    ``n_evaluated`` counts the tokens that went through `forward`.
    """

    def __init__(self, file: Any, context: int | None = None) -> None:
        self.config = file.metadata
        self.weights: dict[str, np.ndarray] = {name: t.dequantize() for name, t in file.tensors.items()}
        meta: Mapping[str, Any] = file.metadata
        self._key = lambda name, default=None: meta.get(f"llama.{name}", default)
        self.n_vocab = self.weights["token_embd.weight"].shape[0]
        self.n_ctx_train = int(self._key("context_length"))
        self.n_ctx = context or self.n_ctx_train
        self.n_layers = int(self._key("block_count"))
        self.n_heads = int(self._key("attention.head_count"))
        self.n_kv = int(self._key("attention.head_count_kv", self.n_heads))
        self.head_dim = int(self._key("attention.key_length", int(self._key("embedding_length")) // self.n_heads))
        self.eps = float(self._key("attention.layer_norm_rms_epsilon"))
        n_rotated = int(self._key("rope.dimension_count", self.head_dim))
        self.turns, self.rope_scale = frequencies(self._key, n_rotated, self.weights.get("rope_freqs.weight"))
        self.keys: list[list[np.ndarray]] = [[] for _ in range(self.n_layers)]
        self.values: list[list[np.ndarray]] = [[] for _ in range(self.n_layers)]
        self.n_evaluated = 0
        self.is_closed = False

    def forward(self, ids: Sequence[int], position: int, all_logits: bool = False, best: int = 0) -> np.ndarray:
        """float32 (1 or n, n_vocab): logits after the last or after every token of ``ids``, put at ``position``.

        All but the ``best`` largest are made worthless, if that is not 0: nobody may depend on them.
        """
        assert not self.is_closed and 0 < len(ids) and position + len(ids) <= self.n_ctx
        assert position <= len(self.keys[0]), "a gap in the cache"
        rows = []
        for offset, token in enumerate(ids):
            row = self._token(token, position + offset)
            if all_logits or offset == len(ids) - 1:
                rows.append(row)
        if best:
            rows[-1] = largest_alone(rows[-1], best)
        self.n_evaluated += len(ids)
        return np.stack(rows).astype(np.float32)

    def close(self) -> None:
        self.is_closed = True

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        y = self.weights[f"{name}.weight"] @ x
        bias = self.weights.get(f"{name}.bias")
        return y if bias is None else y + bias

    def _token(self, token: int, position: int) -> np.ndarray:
        x = self.weights["token_embd.weight"][token]
        for i in range(self.n_layers):
            h = rms_norm(x, self.weights[f"blk.{i}.attn_norm.weight"], self.eps)
            x = x + self._attention(i, h, position)
            h = rms_norm(x, self.weights[f"blk.{i}.ffn_norm.weight"], self.eps)
            gate = self._linear(f"blk.{i}.ffn_gate", h)
            silu = (gate / (1.0 + np.exp(-gate.astype(np.float64)))).astype(np.float32)
            x = x + self._linear(f"blk.{i}.ffn_down", silu * self._linear(f"blk.{i}.ffn_up", h))
        x = rms_norm(x, self.weights["output_norm.weight"], self.eps)
        return self.weights.get("output.weight", self.weights["token_embd.weight"]) @ x

    def _attention(self, i: int, h: np.ndarray, position: int) -> np.ndarray:
        keys, values = self.keys[i], self.values[i]
        q = self._linear(f"blk.{i}.attn_q", h).reshape(self.n_heads, self.head_dim)
        k = self._linear(f"blk.{i}.attn_k", h).reshape(self.n_kv, self.head_dim)
        q = rotate(q, position, self.turns, self.rope_scale)
        del keys[position:], values[position:]
        keys.append(rotate(k, position, self.turns, self.rope_scale))
        values.append(self._linear(f"blk.{i}.attn_v", h).reshape(self.n_kv, self.head_dim))
        heads = []
        for head in range(self.n_heads):
            group = head // (self.n_heads // self.n_kv)
            score = np.stack([k[group] for k in keys]) @ q[head] / np.sqrt(self.head_dim)
            weight = np.exp(score.astype(np.float64) - score.max())
            heads.append((weight / weight.sum()).astype(np.float32) @ np.stack([v[group] for v in values]))
        return self._linear(f"blk.{i}.attn_output", np.concatenate(heads))


def largest_alone(row: np.ndarray, best: int) -> np.ndarray:
    """A row of logits whose ``best`` largest are kept, of equals the first; the others are just below them."""
    kept = np.argsort(-row, kind="stable")[:best]
    others = np.full_like(row, row[kept].min() - np.float32(1e-3))
    others[kept] = row[kept]
    return others


def logits(file: Any, ids: Sequence[int]) -> np.ndarray:
    """float32 (n_tokens, n_vocab): logits after every token of ``ids`` from position 0."""
    return NaiveLlama(file, context=len(ids)).forward(ids, 0, all_logits=True)
