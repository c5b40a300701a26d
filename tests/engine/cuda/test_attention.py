"""Rotary positions, the cache and attention on the device, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from ggblock.engine.cuda import attention
from ggblock.kernels.shapes import padded
from tests.engine.cuda.common import device

N_CTX = 192


def state_of(position: int) -> np.ndarray:
    state = np.zeros(attention.N_STATE, np.int32)
    state[attention.POSITION] = position
    return state


@pytest.mark.parametrize(
    ("pairs", "size", "n_rot", "with_norm"), [("norm", 20, 16, False), ("neox", 20, 20, True), ("norm", 16, 0, True)]
)
def test_rope(pairs: str, size: int, n_rot: int, with_norm: bool) -> None:
    """Two tokens from position 5 on; part of a head stays unturned; keys and values at their places in the cache."""
    rng = np.random.default_rng(size + n_rot)
    heads, kv_heads, n, position, wide = 3, 1, 2, 5, padded(size)
    q, k, v = (rng.standard_normal((n, h, size)).astype(np.float32) for h in (heads, kv_heads, kv_heads))
    angles = rng.uniform(0, 6, (N_CTX, max(1, n_rot // 2))).astype(np.float32)
    table = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    weights = rng.standard_normal((2, size)).astype(np.float32)
    d = device()
    turned = d.zeros(n * heads * wide, np.float32)
    keys, values = (d.zeros(kv_heads * N_CTX * wide, np.float16) for _ in range(2))
    attention.rope(pairs, size, n_rot, with_norm, "f16")[(n, heads + 2 * kv_heads), 8](
        d.upload(q), heads * size, d.upload(k), kv_heads * size, d.upload(v), kv_heads * size, d.upload(table), turned,
        keys, values, d.upload(weights[0]), d.upload(weights[1]), d.upload(state_of(position)), heads, kv_heads, N_CTX,
        np.float32(0.25), np.float32(1e-6),
    )  # fmt: skip

    def naive(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        x = x.astype(np.float64)
        if with_norm:
            x = x / np.sqrt((x * x).mean(axis=2, keepdims=True) + 1e-6) * weight
        out = x.copy()
        half = n_rot // 2
        for i in range(half):
            i0, i1 = (i, i + half) if pairs == "neox" else (2 * i, 2 * i + 1)
            c, s = (f(angles[position : position + n, i])[:, None] for f in (np.cos, np.sin))
            out[:, :, i0], out[:, :, i1] = x[:, :, i0] * c - x[:, :, i1] * s, x[:, :, i0] * s + x[:, :, i1] * c
        return out

    got = turned.copy_to_host().reshape(n, heads, wide)
    np.testing.assert_allclose(got[:, :, :size], 0.25 * naive(q, weights[0]), rtol=1e-5, atol=1e-5)
    assert not got[:, :, size:].any()
    for cache, expected in ((keys, naive(k, weights[1])), (values, v)):
        held = cache.copy_to_host().reshape(kv_heads, N_CTX, wide)
        np.testing.assert_allclose(
            held[:, position : position + n, :size].transpose(1, 0, 2), expected, rtol=2e-3, atol=1e-3
        )
        held[:, position : position + n] = 0
        assert not held.any()


@pytest.mark.parametrize(
    ("group", "size", "position", "window", "n"),
    [(3, 16, 0, 0, 1), (2, 20, 150, 0, 1), (1, 16, 150, 70, 2), (2, 144, 66, 9, 1), (5, 16, 62, 0, 4)],
)
def test_attention(group: int, size: int, position: int, window: int, n: int) -> None:
    """Chunks, windows that begin inside of one, heads of more than 128 values, several tokens in slots."""
    rng = np.random.default_rng(position + size)
    kv_heads, wide = 2, padded(size)
    heads = kv_heads * group
    q = np.zeros((n, heads, wide), np.float32)
    q[:, :, :size] = rng.standard_normal((n, heads, size))
    keys, values = np.full((2, kv_heads, N_CTX, wide), np.nan, np.float32)  # what was never written must not matter
    for cache in (keys, values):
        cache[:, : position + n] = 0
        cache[:, : position + n, :size] = rng.standard_normal((kv_heads, position + n, size))
    d = device()
    n_chunks, first, slots = N_CTX // attention.CHUNK, n - 1 if n > 2 else 0, 1 if n > 2 else n
    parts = d.zeros(slots * kv_heads * n_chunks * group * wide, np.float32)
    tops = d.zeros(slots * kv_heads * n_chunks * group * 2, np.float32)
    out = d.zeros(n * heads * size, np.float32)
    state = d.upload(state_of(position))
    attention.attend(group, size, "f32")[(kv_heads, n_chunks, slots), 4](
        d.upload(q), d.upload(keys), d.upload(values), parts, tops, state, first, kv_heads, N_CTX, n_chunks, window
    )
    attention.combine(group, size)[(heads, slots), 4](
        parts, tops, out, heads * size, state, first, kv_heads, n_chunks, window
    )
    got = out.copy_to_host().reshape(n, heads, size)
    for t in range(first, first + slots):
        end = position + t + 1
        start = max(0, end - window) if window else 0
        for h in range(heads):
            scores = keys[h // group, start:end, :size].astype(np.float64) @ q[t, h, :size]
            weights = np.exp2(scores - scores.max())
            expected = weights @ values[h // group, start:end, :size] / weights.sum()
            np.testing.assert_allclose(got[t, h], expected, rtol=1e-4, atol=1e-5)
