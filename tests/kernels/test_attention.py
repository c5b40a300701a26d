"""Positions, the cache and attention, as the engine plans them, against float64.

Rope is compared with a twin; attention with a twin that takes the turned queries and the cache as the kernels left
them, so that each has a bound of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ggblock.engine.memory import floats
from ggblock.engine.plan import Builder, multiplies_words
from ggblock.kernels.attention_words import VALUES, WEIGHTS, largest
from ggblock.models.compiled import LOG2_E, Layers
from ggblock.models.config import Config
from ggblock.models.rope import RopeTable

from .harness import EPS, assert_close, team

BATCH = 48
NORM_EPS = 1e-6


@dataclass(frozen=True)
class Shape:
    """Heads that share a KV head, KV heads, size of a head, rotated dimensions, type of the cache."""

    group: int
    kv_heads: int
    head: int
    n_rot: int
    cache: str
    pairs: str = "norm"
    modes: tuple[str, str] = ("f", "f")

    @property
    def heads(self) -> int:
        return self.group * self.kv_heads

    def __str__(self) -> str:
        return f"{self.group}x{self.kv_heads}x{self.head}-{self.cache}" + ("-int8" if self.modes[1] == "1+" else "")

    def short(self, n_tokens: int) -> bool:
        """Whether the products of so many tokens may be those of int16."""
        return n_tokens > 1 and self.cache in ("f16", "q12") and self.modes[1] == "1+" and multiplies_words()


class Attention:
    """One layer's rope, attention and combine in a plan, with the buffers and the cache that the engine gives them."""

    def __init__(
        self,
        shape: Shape,
        n_threads: int,
        n_ctx: int,
        window: int = 0,
        norms: tuple[bool, bool] = (False, False),
    ) -> None:
        self.shape, self.window = shape, window
        self.scale = 1 / np.sqrt(shape.head)
        builder = Builder(shape.modes, n_threads, BATCH)
        config = Config("none", 1, 32, 32, shape.heads, shape.kv_heads, shape.head, shape.n_rot, 1, n_ctx, NORM_EPS)
        self.layers = layers = Layers(None, config, builder, n_ctx, shape.cache)  # type: ignore[arg-type]
        base = 10000.0 ** (-np.arange(0, shape.n_rot, 2) / shape.n_rot)
        self.table = RopeTable(n_ctx, base.astype(np.float32))
        self.table.ensure(n_ctx)
        rng = np.random.default_rng(9)
        self.norms: list[np.ndarray | None] = []
        for wanted in norms:
            w = floats(-(-shape.head // 32) * 32)
            w[: shape.head] = rng.uniform(0.5, 2, shape.head)
            self.norms.append(w if wanted else None)
        layers.attention(self.table, shape.pairs, self.scale, window, *self.norms)
        self.plan = builder.finish(team(n_threads))

    def run(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, position: int) -> np.ndarray:
        """q, k, v: float32 (n_tokens, heads, head); returns the same shape as q."""
        n, m = len(q), self.layers
        for rows, values in ((m.q, q), (m.k, k), (m.v, v)):
            rows.data[:n, : values[0].size] = values.reshape(n, -1)
        m.attended.data[:] = np.nan
        self.plan.run(n, position)
        return m.attended.data[:n, : q[0].size].reshape(q.shape).copy()

    def turned(self, n: int) -> np.ndarray:
        """Queries after rope, float32 (n, heads, head): with the scale and the factor for powers of two."""
        padded = -(-self.shape.head // 16) * 16
        rows = self.layers._turned[:n].reshape(n, -1, padded)
        assert not rows[..., self.shape.head :].any()
        return rows[..., : self.shape.head]

    def cached(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values of positions 0 .. n - 1, (n, KV heads, head), in the layout that ``kernels.rope`` states."""
        s = self.shape
        # runs of keys and of values by turns
        runs = self.layers.caches[0].data.reshape(s.kv_heads, -1, 2, self.layers.run_bytes)
        all_keys, all_values = (np.ascontiguousarray(runs[:, :, i]) for i in range(2))
        if s.cache == "q8_0":
            keys, values = (coded(c, s, is_key) for c, is_key in ((all_keys, True), (all_values, False)))
            return keys[:n], values[:n]
        padded, kind = -(-s.head // 16) * 16, "<f2" if s.cache == "f16" else "<f4"
        keys = (
            all_keys.view(kind)
            .reshape(s.kv_heads, -1, padded, 16)
            .transpose(1, 3, 0, 2)
            .reshape(-1, s.kv_heads, padded)
        )
        values = all_values.view(kind).reshape(s.kv_heads, -1, padded).transpose(1, 0, 2)
        assert not keys[..., s.head :].any() and not values[..., s.head :].any(), "padding must stay zero"
        return keys[:n, :, : s.head].astype(np.float64), values[:n, :, : s.head].astype(np.float64)


def coded(cache: np.ndarray, shape: Shape, is_key: bool) -> np.ndarray:
    """All positions of a cache of 8 bits, float64 (n, KV heads, head), decoded as ``kernels.attention_q8_0`` states."""
    padded = -(-shape.head // 16) * 16
    n32 = -(-padded // 32)
    panels = cache.reshape(shape.kv_heads, -1, 32 * n32 + 16 * padded)
    n_panels = panels.shape[1]
    scales = np.ascontiguousarray(panels[..., : 32 * n32]).view("<f2").reshape(shape.kv_heads, n_panels, n32, 16)
    codes = np.ascontiguousarray(panels[..., 32 * n32 :]).view(np.int8)
    if is_key:  # (head / 4, position, 4)
        codes = codes.reshape(shape.kv_heads, n_panels, padded // 4, 16, 4).transpose(0, 1, 3, 2, 4)
    else:  # (head / 16, 4, dimension, 4 positions)
        codes = codes.reshape(shape.kv_heads, n_panels, padded // 16, 4, 16, 4).transpose(0, 1, 3, 5, 2, 4)
    codes = codes.reshape(shape.kv_heads, -1, padded)
    assert not codes[..., shape.head :].any(), "padding must stay zero"
    each = scales.transpose(0, 1, 3, 2).reshape(shape.kv_heads, -1, n32).astype(np.float64)
    values = codes * np.repeat(each, 32, axis=2)[..., :padded]
    return values[..., : shape.head].transpose(1, 0, 2)


def tokens(shape: Shape, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(
        rng.standard_normal((n, heads, shape.head)).astype(np.float32)
        for heads in (shape.heads, shape.kv_heads, shape.kv_heads)
    )  # type: ignore[return-value]


def naive_rope(
    x: np.ndarray,
    a: Attention,
    position: int,
    weight: np.ndarray | None,
    factor: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Turned heads of x (n, heads, head) in float64, and a bound of the kernel's error.

    Norm: 2 roundings each of mean, root, reciprocal and factor, half of the sum's (in 32 chains at best, one at
    worst: ``head`` roundings), and two products: (head / 2 + 8) EPS. A rotation: two products and a sum, 3 EPS of both.
    """
    n_rot, half = a.shape.n_rot, a.shape.n_rot // 2
    x = x.astype(np.float64)
    if weight is not None:
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(NORM_EPS)) * weight[: a.shape.head]
    x = x * factor
    angles = a.table.data[position : position + len(x)].astype(np.float64)[:, :, None]
    cos, sin = angles[:, 0], angles[:, 1]
    first = np.arange(0, n_rot, 2) if a.shape.pairs == "norm" else np.arange(half)
    second = first + (1 if a.shape.pairs == "norm" else half)
    out, size = x.copy(), np.abs(x)
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., first] * sin + x[..., second] * cos
    size[..., first] = size[..., second] = np.abs(x[..., first]) + np.abs(x[..., second])
    return out, (a.shape.head / 2 + 8 + 3) * EPS * size


def naive_attention(
    q: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    position: int,
    window: int,
    coded: bool = False,
    short: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Softmax in powers of two over the positions that each token sees, in float64, and a bound of the kernel's error.

    A score is a sum of ``head`` products: e = (head + 8) EPS sum |q k|. With it the weight's exponent is off by
    at most 2 e (score and maximum) and EPS |score - max|, which is ln 2 times as much in the weight. exp2 adds 2
    EPS, and for every block of 16 keys the sums round at most 17 times and are rescaled by a factor that is
    itself within 4 EPS; the chunks of one token and the division are 16 more. Both the weighted sum and its
    divisor are off by this, hence twice. Masked positions may count 2**-126 each: nothing.

    With a cache of 8 bits (``coded``) queries are rounded to multiples of max|q| / 8191 over 32 dimensions: half a step
    times |k| for each. Softmax weights are rounded too: see ``step_of_weights``.

    With products of int16 (``short``) all are off by half a step: of the largest of a query or key / ``largest``, of a
    dimension of values and of the weights in 64 positions (up to the batch's last) / ``VALUES`` and / ``WEIGHTS``.
    """
    n, heads, head = q.shape
    group = heads // keys.shape[1]
    out, bound = np.empty(q.shape), np.empty(q.shape)
    for t in range(n):
        low = max(0, position + t + 1 - window) if window else 0
        seen = slice(low, position + t + 1)
        for h in range(heads):
            k, v = keys[seen, h // group], values[seen, h // group]
            scores = k @ q[t, h].astype(np.float64)
            error = (head + 8) * EPS * (np.abs(k) @ np.abs(q[t, h].astype(np.float64))).max()
            if coded:
                peaks = np.repeat([np.abs(q[t, h][i : i + 32]).max() for i in range(0, head, 32)], 32)[:head]
                error += (np.abs(k) @ peaks).max() * 0.5 / 8191 * (1 + 1e-3)
            if short:
                steps = largest(head)
                q_step, k_steps = np.abs(q[t, h]).max() / steps, np.abs(k).max(1) / steps
                sizes = q_step * np.abs(k).sum(1) + k_steps * (np.abs(q[t, h]).sum() + head * q_step)
                error += sizes.max() / 2 * (1 + 1e-3)
            weights = np.exp2(scores - scores.max())
            lost = step_of_weights(weights, v, slice(low, position + t + 1)) if coded else 0.0
            lost = lost / weights.sum()
            if short:
                w_step = blockwise(weights[:, None], slice(0, len(weights)), low) / WEIGHTS
                v_step = blockwise(values[:, h // group], seen) / VALUES
                lost = (w_step.T @ np.abs(v) + (weights[:, None] + w_step).T @ v_step)[0] / 2 * (1 + 1e-3)
                lost = lost / weights.sum()
            weights /= weights.sum()
            spread = EPS * (scores.max() - scores.min())
            blocks = -(-len(scores) // 16) + 2
            delta = np.log(2) * (2 * error + spread) + (2 + 16 + 21 * blocks) * EPS
            out[t, h] = weights @ v
            bound[t, h] = 2 * delta * (weights @ np.abs(v)) + lost * (1 + 4 * delta)
    return out, bound


def blockwise(x: np.ndarray, seen: slice, first: int = 0) -> np.ndarray:
    """For each row of ``x`` in ``seen`` the largest magnitudes in its 64 positions; row 0 is position ``first``."""
    at = (np.arange(len(x)) + first) // 64
    peaks = np.array([np.abs(x[at == block]).max(0) for block in range(at.min(), at.max() + 1)])
    return peaks[at - at.min()][seen]


def step_of_weights(weights: np.ndarray, v: np.ndarray, seen: slice) -> np.ndarray:
    """What rounding the weights may add to each dimension before the division: see ``naive_attention``.

    Products ``w * scale`` of 64 keys and 32 dimensions are rounded to multiples of their largest / 16383, where
    ``scale`` is the largest value of the 32 dimensions / 127 (both are decoded values here, so exact but for the half
    that holds the scale). A position adds half a step times its code.
    """
    positions = np.arange(seen.start, seen.stop)
    head = v.shape[1]
    out = np.zeros(head)
    for block in np.unique(positions // 64):
        mine = positions // 64 == block
        for i in range(0, head, 32):
            scales = np.abs(v[mine, i : i + 32]).max(axis=1) / 126.9
            largest = (weights[mine] * scales).max()
            codes = np.abs(v[mine, i : i + 32]) / np.where(scales == 0, 1, scales)[:, None]
            out[i : i + 32] += 0.5 * largest / 16383 * (1 + 1e-3) * codes.sum(axis=0)
    return out


FEW = [Shape(3, 2, 64, 64, "f16"), Shape(9, 1, 50, 50, "f32", "neox"), Shape(4, 1, 256, 256, "f16", "neox")]
CODED = [
    Shape(3, 2, 64, 64, "q8_0"),
    Shape(9, 1, 50, 50, "q8_0", "neox"),
    Shape(4, 1, 256, 256, "q8_0", "neox"),
    Shape(1, 2, 16, 16, "q8_0"),
    Shape(8, 1, 80, 40, "q8_0"),
]
SHORT = [Shape(s.group, s.kv_heads, s.head, s.n_rot, "f16", s.pairs, ("2", "1+")) for s in FEW] + [
    Shape(1, 3, 16, 16, "f16", "norm", ("2", "1+"))
]
SHAPES = [
    *FEW,
    *CODED,
    *SHORT,
    Shape(1, 3, 16, 16, "f32"),
    Shape(2, 2, 128, 64, "f16"),
    Shape(8, 1, 80, 80, "f16"),
    Shape(2, 1, 80, 40, "f32"),
    Shape(1, 2, 50, 20, "f16", "neox"),
    Shape(8, 1, 128, 128, "f32"),
]


def in_turns(shape: Shape, window: int) -> Iterator[tuple[list[Attention], np.ndarray, np.ndarray, np.ndarray, int]]:
    """A text's queries, keys and values, some tokens at a time, with their position: for 1, 2 and 3 threads."""
    rng = np.random.default_rng(shape.head)
    all_runs = [Attention(shape, n_threads, 160, window) for n_threads in (1, 2, 3)]
    position = 0
    for n in (37, 1, 1, 48, 19, 1, 5):
        yield all_runs, *tokens(shape, n, rng), position
        position += n


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("window", [0, 21])
def test_attention(window: int, shape: Shape) -> None:
    """A batch, two single tokens, a batch over the cache (both with a tail), one token again; 1, 2 and 3 threads."""
    for all_runs, q, k, v, position in in_turns(shape, window):
        n = len(q)
        results = [a.run(q, k, v, position) for a in all_runs]
        keys, values = all_runs[0].cached(position + n)
        expected, bound = naive_attention(
            all_runs[0].turned(n), keys, values, position, window, shape.cache == "q8_0", shape.short(n)
        )
        assert_close(results[0], expected, bound)
        assert all(np.array_equal(results[0], other) for other in results[1:])


#: Around the ends of chunks of 64 and 256, in a text of 1,056 tokens: see ``filled``.
POSITIONS = (1056, 1023, 767, 512, 511, 256, 255, 130, 64, 63, 15, 0)


def filled(shape: Shape, window: int, rng: np.random.Generator) -> list[Attention]:
    """For 1, 2 and 3 threads, after a text of 1,056 tokens."""
    all_runs = [Attention(shape, n_threads, 1100, window) for n_threads in (1, 2, 3)]
    for start in range(0, 1056, BATCH):
        q, k, v = tokens(shape, BATCH, rng)
        for a in all_runs:
            a.run(q, k, v, start)
    return all_runs


@pytest.mark.parametrize("shape", [*FEW, Shape(1, 8, 32, 32, "f16"), *CODED[:3]], ids=str)
@pytest.mark.parametrize("window", [0, 300, 512])
def test_one_token_over_many_chunks(window: int, shape: Shape) -> None:
    """Chunks of 64 and 256 positions, cut off at both ends too; and back to an earlier position, as a new text does."""
    rng = np.random.default_rng(11)
    all_runs = filled(shape, window, rng)
    for position in POSITIONS:
        q, k, v = tokens(shape, 1, rng)
        results = [a.run(q, k, v, position) for a in all_runs]
        keys, values = all_runs[0].cached(position + 1)
        expected, bound = naive_attention(
            all_runs[0].turned(1), keys, values, position, window, shape.cache == "q8_0"
        )
        assert_close(results[0], expected, bound)
        assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("shape", [FEW[0], CODED[0], SHORT[0]], ids=str)
def test_scores_of_any_size(shape: Shape) -> None:
    """Scores up to thousands: the online softmax must neither overflow nor lose the largest."""
    a = Attention(shape, 2, 160)
    q, k, v = tokens(shape, 40, np.random.default_rng(12))
    got = a.run(q * 60, k * 60, v, 0)
    keys, values = a.cached(40)
    expected, bound = naive_attention(a.turned(40), keys, values, 0, 0, shape.cache == "q8_0", shape.short(40))
    assert_close(got, expected, bound)


@pytest.mark.parametrize("pairs", ["norm", "neox"])
@pytest.mark.parametrize("norms", [(False, False), (True, True), (True, False)], ids=["plain", "normed", "q normed"])
@pytest.mark.parametrize("cache", ["f16", "f32", "q8_0"])
@pytest.mark.parametrize(("head", "n_rot"), [(64, 64), (50, 20)])
def test_rope(head: int, n_rot: int, cache: str, norms: tuple[bool, bool], pairs: str) -> None:
    """Queries turned and scaled; keys turned and values as they are in the cache, rounded once more.

    To half precision: half a step of 2**-11 of the value, or of 2**-24 below the smallest normal half. To 8 bits: half
    a step of the largest of 32 dimensions / 127, and the step itself is a half, 2**-11 off at most (127 times).
    """
    shape = Shape(2, 2, head, n_rot, cache, pairs)
    a = Attention(shape, 2, 96, 0, norms)
    rng = np.random.default_rng(13)
    all_keys, all_values, bounds = [], [], []
    for position, n in ((0, 40), (40, 1), (41, 23)):
        q, k, v = tokens(shape, n, rng)
        a.run(q, k, v, position)
        expected, bound = naive_rope(q, a, position, a.norms[0], a.scale * LOG2_E)
        assert_close(a.turned(n), expected, bound)
        turned, bound = naive_rope(k, a, position, a.norms[1], 1.0)
        all_keys.append(turned)
        bounds.append(bound)
        all_values.append(v.astype(np.float64))
    keys, values = a.cached(64)
    expected = np.concatenate(all_keys)
    stored: Any = np.concatenate(all_values)
    bound = np.concatenate(bounds)
    if cache == "q8_0":
        assert_close(keys, expected, bound + step8(np.abs(expected) + bound))
        assert_close(values, stored, step8(np.abs(stored)))
        return
    half = 0.0 if cache == "f32" else np.maximum(2.0**-11 * np.abs(expected) * (1 + 1e-3), 2.0**-25)
    assert_close(keys, expected, bound + half)
    assert np.array_equal(values, stored.astype(np.float16) if cache == "f16" else stored)


def step8(x: np.ndarray) -> np.ndarray:
    """How far 8 bits may be from x (..., head), the magnitudes: see ``test_rope``."""
    peaks = [x[..., i : i + 32].max(-1, keepdims=True) for i in range(0, x.shape[-1], 32)]
    peak = np.concatenate([np.repeat(p, 32, -1) for p in peaks], -1)[..., : x.shape[-1]]
    return peak * (0.5 / 127 + 2.0**-11) * (1 + 1e-3) + 2.0**-25 * 127


def test_words_of_zeros_and_of_tiny_and_large_values_and_what_was_there_before() -> None:
    """A cache that was full of other values keeps none of them, to the bit; zeros have no step. (Products of floats let
    masked positions count 2**-126.)"""
    shape = SHORT[0]
    rng = np.random.default_rng(15)
    q, k, v = tokens(shape, 48, rng)
    used, fresh = Attention(shape, 2, 96), Attention(shape, 2, 96)
    for factor in (0.0, 1e-6, 1.0, 1e3):
        used.run(q, 1e4 * k, 1e4 * v, 0)
        for n in (5, 16, 37):
            small = q[:n], np.float32(factor) * k[:n], np.float32(factor) * v[:n]
            got = used.run(*small, 0)
            assert np.array_equal(got, fresh.run(*small, 0)) or not shape.short(n)
            keys, values = used.cached(n)
            expected, bound = naive_attention(used.turned(n), keys, values, 0, 0, False, shape.short(n))
            assert_close(got, expected, bound + 1e-30)


def test_eight_bits_of_zeros_and_of_tiny_and_large_values() -> None:
    """No scale is infinite, no zero divides, and a cache that was full of other values keeps none of them."""
    shape = CODED[0]
    a = Attention(shape, 2, 96)
    rng = np.random.default_rng(14)
    q, k, v = tokens(shape, 48, rng)
    a.run(q, 1e4 * k, 1e4 * v, 0)
    for factor in (0.0, 1e-30, 1e-6, 1e5):
        got = a.run(q, np.float32(factor) * k, np.float32(factor) * v, 0)
        keys, values = a.cached(48)
        expected, bound = naive_attention(a.turned(48), keys, values, 0, 0, True)
        assert_close(got, expected, bound + 1e-30)
        assert_close(values, factor * v.astype(np.float64), step8(np.abs(factor * v.astype(np.float64))))
