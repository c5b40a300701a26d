"""Attention over a cache of 12 bits in two planes against float64.

Many tokens are compared as in ``test_attention``, with the whole numbers of both planes. One token is compared with a
twin that says which panels count by both: all of a short context, of a longer one those that are mended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from ggblock.kernels import shapes
from ggblock.kernels.attention_q12 import Q_STEPS, SHARE, W_STEPS, WHOLE
from ggblock.kernels.cache_q12 import LIMIT, MOST

from .harness import EPS, assert_close
from .test_attention import BATCH, POSITIONS, Attention, Shape, filled, in_turns, naive_attention, naive_rope, tokens

FLOATS = [
    Shape(3, 2, 64, 64, "q12"),
    Shape(9, 1, 50, 50, "q12", "neox"),
    Shape(4, 1, 256, 256, "q12", "neox"),
    Shape(1, 2, 16, 16, "q12"),
    Shape(8, 1, 80, 40, "q12"),
]
SHAPES = [*FLOATS, *(replace(s, modes=("2", "1+")) for s in FLOATS)]


@dataclass
class Planes:
    """Keys or values of positions 0 .. n - 1, float64 (KV heads, n, head): of the first plane, of both, and the peaks
    of their groups of 64 dimensions, one for each dimension."""

    first: np.ndarray
    whole: np.ndarray
    peaks: np.ndarray


def planes(a: Attention, n: int) -> tuple[Planes, Planes]:
    """The cache, decoded as ``kernels.cache_q12`` states."""
    s = a.shape
    padded = -(-s.head // 16) * 16
    n32, n64 = -(-padded // 32), -(-padded // 64)
    panel, second = 16 * padded + 32 * n64, 256 * n32
    heads = a.layers.caches[0].data.reshape(s.kv_heads, -1)
    behind = heads.shape[1] // (panel + second) * panel

    def runs(data: np.ndarray, size: int, which: int) -> np.ndarray:
        """(KV heads, panels, size): keys (0) or values (1), which lie by turns in runs of 256 positions."""
        turns = data.reshape(s.kv_heads, -1, 2, 16 * size)
        return np.ascontiguousarray(turns[:, :, which]).reshape(s.kv_heads, -1, size)

    def decoded(which: int) -> Planes:
        codes, low = runs(heads[:, :behind], panel, which), runs(heads[:, behind:], second, which)
        count = codes.shape[1]
        peaks = np.ascontiguousarray(codes[..., : 32 * n64]).view("<f2").reshape(s.kv_heads, count, n64, 16)
        peaks = peaks.transpose(0, 1, 3, 2).reshape(s.kv_heads, -1, n64).astype(np.float64)
        each = np.repeat(peaks, 64, axis=2)[..., : s.head]
        high = np.ascontiguousarray(codes[..., 32 * n64 :]).view(np.int8)
        if which == 0:
            high = high.reshape(s.kv_heads, count, padded // 2, 16, 2).transpose(0, 1, 3, 2, 4)
            low = low[..., : 8 * padded].reshape(s.kv_heads, count, padded // 4, 16, 2)
            low = np.stack([low & 15, low >> 4], 3).transpose(0, 1, 4, 2, 3, 5)
        else:
            high = high.reshape(s.kv_heads, count, padded // 16, 8, 16, 2).transpose(0, 1, 3, 5, 2, 4)
            low = low.reshape(s.kv_heads, count, n32, 8, 16, 2)
            low = np.stack([low & 15, low >> 4], 3).transpose(0, 1, 4, 6, 2, 3, 5)
        high = high.reshape(s.kv_heads, 16 * count, -1)[:, :n].astype(np.int64)
        low = low.reshape(s.kv_heads, 16 * count, -1)[:, :n].astype(np.int64) - 8
        low = low[..., : high.shape[2]]
        assert not (16 * high + low)[..., s.head :].any(), "padding must stay zero"
        high, low, each = high[..., : s.head], low[..., : s.head], each[:, :n]
        return Planes(16 * high * each / MOST, (16 * high + low) * each / MOST, each)

    return decoded(0), decoded(1)


def twin_of_one(
    q: np.ndarray, keys: Planes, values: Planes, position: int, window: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """One token's result (heads, head) in float64, a bound of the kernel's error, and how many panels were mended: none
    where all count by both planes.

    Scores, weights and sums round as ``test_attention.naive_attention`` derives for floats. A query is off by half a
    step of its largest / ``Q_STEPS``. Weights times peaks are off by half a step: of their largest in a chunk (all
    positions, or their first plane) or a panel (mended, twice: what the second plane adds, and what the first then
    counts more) / ``W_STEPS``. A panel so close to ``SHARE`` that rounding decides may be mended or not.
    """
    heads, head = q.shape
    kv_heads = len(keys.first)
    low = max(0, position + 1 - window) if window else 0
    seen = slice(low, position + 1)
    at = np.arange(low, position + 1)
    panel, chunk = at // 16, at // shapes.chunk(kv_heads, position)
    out, bound, n_mended = np.empty(q.shape), np.empty(q.shape), 0
    for h in range(heads):
        kv = h // (heads // kv_heads)
        x = q[h].astype(np.float64)
        first, whole = keys.first[kv, seen], keys.whole[kv, seen]
        v_first, v_whole, peaks = (p[kv, seen] for p in (values.first, values.whole, values.peaks))
        if len(at) <= WHOLE:
            first, v_first = whole, v_whole
        rough, fine = first @ x, whole @ x
        error = (head + 8) * EPS * (np.abs(whole) @ np.abs(x)).max()
        error += np.abs(whole).sum(1).max() * np.abs(x).max() / Q_STEPS / 2 * (1 + 1e-3)
        before = np.exp2(rough - rough.max())
        tops = np.array([before[panel == p].max() for p in panel]) / before.sum()
        mended = (tops > SHARE) & (len(at) > WHOLE)
        n_mended += len(set(panel[mended]))
        after = np.where(mended, np.exp2(fine - rough.max()), before)
        v = np.where(mended[:, None], v_whole, v_first)
        total = after.sum()
        out[h] = after @ v / total
        delta = np.log(2) * (2 * error + EPS * (rough.max() - rough.min())) + (18 + 21 * (len(at) // 16 + 3)) * EPS
        lost = np.zeros(head)
        for c in set(chunk):
            mine = chunk == c
            step = (before[mine, None] * peaks[mine]).max(0) / W_STEPS
            lost += step / 2 * (np.abs(v_first[mine]) / np.maximum(peaks[mine], 1e-30)).sum(0)
        for p in set(panel[mended]):
            mine = panel == p
            step = (np.maximum(before, after)[mine, None] * peaks[mine]).max(0) / W_STEPS
            codes = (np.abs(v_first) + np.abs(v_whole - v_first))[mine] / np.maximum(peaks[mine], 1e-30)
            lost += step / 2 * codes.sum(0)
        unsure = np.abs(tops / SHARE - 1) < 1e-3 + 4 * delta
        if_not = np.where(mended, before, np.exp2(fine - rough.max()))
        other = if_not[:, None] * np.where(mended[:, None], v_first, v_whole)
        lost += (np.abs(other - after[:, None] * v) + np.abs(other).max() * 2 * delta)[unsure].sum(0)
        lost += np.abs(np.exp2(fine - rough) - 1)[unsure].sum() * before.max() * np.abs(out[h])
        size = np.maximum(after, before) @ (np.abs(v) + np.abs(v_first))
        bound[h] = (2 * delta * size + lost * (1 + 1e-3) * (1 + 4 * delta)) / total
    return out, bound, n_mended


def check(all_runs: list[Attention], q: np.ndarray, k: np.ndarray, v: np.ndarray, position: int, window: int) -> int:
    """Runs some tokens everywhere; returns how many panels were mended."""
    n, shape = len(q), all_runs[0].shape
    results = [a.run(q, k, v, position) for a in all_runs]
    assert all(np.array_equal(results[0], other) for other in results[1:])
    keys, values = planes(all_runs[0], position + n)
    if n == 1:
        expected, bound, mended = twin_of_one(all_runs[0].turned(1)[0], keys, values, position, window)
        assert_close(results[0][0], expected, bound)
        return mended
    whole = (p.whole.transpose(1, 0, 2) for p in (keys, values))
    expected, bound = naive_attention(all_runs[0].turned(n), *whole, position, window, False, shape.short(n))
    assert_close(results[0], expected, bound + 1e-30)  # what is masked may count 2**-126
    return 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("window", [0, 21])
def test_attention(window: int, shape: Shape) -> None:
    """A batch, two single tokens, a batch over the cache (both with a tail), one token again; 1, 2 and 3 threads."""
    for all_runs, q, k, v, position in in_turns(shape, window):
        check(all_runs, q, k, v, position, window)


@pytest.mark.parametrize("shape", [*FLOATS[:3], Shape(1, 8, 32, 32, "q12")], ids=str)
@pytest.mark.parametrize("window", [0, 300, 512, 700])
def test_one_token_over_many_chunks(window: int, shape: Shape) -> None:
    """Chunks of 64 and 256 positions, cut off at both ends too; texts that look everywhere and at few places."""
    rng = np.random.default_rng(11)
    all_runs = filled(shape, window, rng)
    found = {}
    for position in POSITIONS:
        for factor in (0.3, 3.0):
            q, k, v = tokens(shape, 1, rng)
            found[position, factor] = check(all_runs, np.float32(factor) * q, k, v, position, window)
    if not window or window > WHOLE:
        assert found[1056, 0.3] == 0 < found[1056, 3.0], "a position of many, and of few"


@pytest.mark.parametrize("shape", [FLOATS[0], FLOATS[2], SHAPES[5]], ids=str)
def test_what_is_written(shape: Shape) -> None:
    """Keys and values are off by half a step of the largest of 64 dimensions / ``MOST``, which is a half: 2**-11 off,
    or 2**-25 below the smallest normal half. The first plane alone is off by eight steps."""
    a, rng = Attention(shape, 2, 96), np.random.default_rng(13)
    for factor in (1.0, 1e-6, 1e3, 0.0):
        q, k, v = (np.float32(factor) * x for x in tokens(shape, 40, rng))
        a.run(q, k, v, 0)
        turned, rounding = naive_rope(k, a, 0, None, 1.0)
        exact, errors = (turned, v.astype(np.float64)), (rounding, 0 * rounding)
        for found, x, extra in zip(planes(a, 40), exact, errors, strict=True):
            x, extra = x.transpose(1, 0, 2), extra.transpose(1, 0, 2)
            groups = [np.abs(x[..., i : i + 64]).max(-1, keepdims=True) for i in range(0, shape.head, 64)]
            peak = np.concatenate([np.repeat(g, 64, -1) for g in groups], -1)[..., : shape.head]
            assert_close(found.peaks, peak, np.maximum(2.0**-11 * peak, 2.0**-25) * (1 + 1e-3) + extra.max())
            step = found.peaks / MOST
            # what the largest has in codes more than LIMIT, below normal halves, is cut off
            over = np.maximum(np.abs(x) - LIMIT * step, 0)
            assert_close(found.whole, x, step / 2 * (1 + 1e-3) + over + extra + 1e-30)
            assert_close(found.first, found.whole, 8 * step * (1 + 1e-9))


def test_what_matters_is_more_exact_than_8_bits() -> None:
    """Attention to few places: a cache of 12 bits loses less than a quarter of what one of 8 bits does."""
    losses = {}
    for cache in ("f32", "f16", "q12", "q8_0"):
        shape, rng = Shape(3, 2, 64, 64, cache), np.random.default_rng(21)
        a = Attention(shape, 2, 600)
        for start in range(0, 576, BATCH):
            a.run(*tokens(shape, BATCH, rng), start)
        q, k, v = tokens(shape, 1, rng)
        losses[cache] = a.run(4 * q, k, v, 576)
    loss = {cache: np.sqrt(np.mean((x - losses["f32"]) ** 2)) for cache, x in losses.items()}
    assert loss["q12"] < 0.25 * loss["q8_0"], loss


@pytest.mark.parametrize("shape", [FLOATS[0], SHAPES[5]], ids=str)
def test_what_was_there_before_is_gone(shape: Shape) -> None:
    """A cache that was full of other values, far larger, keeps none of them."""
    rng = np.random.default_rng(15)
    q, k, v = tokens(shape, 48, rng)
    used, fresh = Attention(shape, 2, 96), Attention(shape, 2, 96)
    for factor in (0.0, 1e-6, 1.0, 1e3):
        used.run(q, 1e4 * k, 1e4 * v, 0)
        for position, n in ((0, 5), (5, 1), (6, 1), (7, 16), (23, 1)):
            some = [x[position : position + n] for x in (q, np.float32(factor) * k, np.float32(factor) * v)]
            got, expected = used.run(*some, position), fresh.run(*some, position)
            assert np.abs(got - expected).max() <= 1e-30  # what is masked may count 2**-126


@pytest.mark.parametrize("what", ["key", "value"])
@pytest.mark.parametrize("n", [1, 9])
def test_what_is_no_number_is_not_hidden(what: str, n: int) -> None:
    """NaN in a key or a value reaches every token that sees it, and no earlier one."""
    shape, rng = FLOATS[0], np.random.default_rng(17)
    a = Attention(shape, 2, 96)
    q, k, v = tokens(shape, 40, rng)
    a.run(q[:20], k[:20], v[:20], 0)
    (k if what == "key" else v)[20, 0, 7] = np.nan
    got = a.run(q[20 : 20 + n], k[20 : 20 + n], v[20 : 20 + n], 20)
    assert np.isnan(got[:, :3]).any(-1).all() and np.isfinite(got[:, 3:]).all()
