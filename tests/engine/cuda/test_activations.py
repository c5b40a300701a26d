"""What writes activations on the device, against the same in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from ggblock.engine.cuda import activations
from tests.engine.cuda.common import device

WORDS = 64  # of a token of up to 256 values


def naive(kind: str, a: np.ndarray, b: np.ndarray, weight: np.ndarray, post: np.ndarray, eps: float) -> np.ndarray:
    """float64: the values before they are written."""
    a, b = a.astype(np.float64), b.astype(np.float64)

    def norm(x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)

    if kind == "residual":
        return norm(a + norm(b) * post) * weight
    if kind == "norm":
        return norm(a) * weight
    if kind == "silu":
        return a / (1 + np.exp(-a)) * b
    if kind == "gelu":
        return 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3))) * b
    return a


class Written:
    """What a kernel wrote for tokens of ``k`` values; row 0 of a, b and out is left alone (``first`` is 1)."""

    def __init__(self, kind: str, form: str, a: np.ndarray, b: np.ndarray, threads: int) -> None:
        n, k = a.shape
        rng = np.random.default_rng(1)
        self.weight, self.post = (rng.standard_normal(k).astype(np.float32) for _ in range(2))
        d, stride = device(), k + 3
        dtype = {"f": np.float32, "h": np.uint16}.get(form, np.uint32)
        size = 4 * WORDS if form in "fh" else WORDS
        q, q2, meta = d.zeros(n * size, dtype), d.zeros(n * WORDS, np.uint32), d.zeros(n * WORDS // 2, np.float32)
        out = d.zeros((n + 1) * stride, np.float32)

        def rows(x: np.ndarray) -> object:
            padded = np.full((n + 1, stride), 1e9, np.float32)
            padded[1:, :k] = x
            return d.upload(padded)

        activations.writer(kind, form)[n, threads](
            rows(a), stride, rows(b), stride, d.upload(self.weight), d.upload(self.post), out, stride,
            np.float32(1e-5), k, 1, q, q2, meta, WORDS,
        )  # fmt: skip
        self.q, self.q2 = q.copy_to_host().reshape(n, -1), q2.copy_to_host().reshape(n, -1)
        self.meta = meta.copy_to_host().reshape(n, -1, 4)
        self.out = out.copy_to_host().reshape(n + 1, stride)[1:, :k]
        self.expected = naive(kind, a, b, self.weight, self.post, 1e-5)


def some(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(k)
    return tuple(rng.standard_normal((n, k)).astype(np.float32) * 3 for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", activations.KINDS)
def test_floats_and_bfloat16(kind: str) -> None:
    a, b = some(2, 40)
    w = Written(kind, "f", a, b, 8)
    np.testing.assert_allclose(w.q[:, :40], w.expected, rtol=2e-6, atol=2e-6)
    assert not w.q[:, 40:].any()
    h = Written(kind, "h", a, b, 4)
    halves = (h.q.astype(np.uint32) << 16).view(np.float32)[:, :40]
    np.testing.assert_allclose(halves, w.expected, rtol=2.0**-8, atol=1e-6)
    nearest = (w.q[:, :40].view(np.uint32) + 0x7FFF + (w.q[:, :40].view(np.uint32) >> 16 & 1)) >> 16
    assert np.array_equal(h.q[:, :40], nearest)


@pytest.mark.parametrize("kind", activations.KINDS)
@pytest.mark.parametrize("form", ["1", "2"])
def test_bytes(kind: str, form: str) -> None:
    """Scale, codes and sums of every 32 values; a group of zeros has scale zero; the padding stays zero."""
    a, b = some(2, 72)
    if kind == "copy":
        a[0, 32:64] = 0
        a[1, 32:64] = 1e-40  # a scale that no float32 can hold is zero
    w = Written(kind, form, a, b, 4)
    codes = w.q.view(np.int8).astype(np.float64)
    if form == "2":
        codes = codes * 256 + w.q2.view(np.int8)
    d = w.meta[:, :, 0].astype(np.float64)
    values = np.zeros((2, 256))
    values[:, :72] = w.expected
    groups = values.reshape(2, 8, 32)
    peak = np.abs(groups).max(axis=2)
    step = peak / 127 / (256 if form == "2" else 1)
    if kind == "copy":
        assert not codes.reshape(2, 8, 32)[:, 1].any()
        step[:, 1] = d[:, 1]
    np.testing.assert_allclose(d, step, rtol=1e-5, atol=1e-30)
    # half a step; with two terms the second one may end at 127 of 128
    error = np.abs(codes.reshape(2, 8, 32) * d[:, :, None] - groups)
    assert (error <= step[:, :, None] * (1.02 if form == "2" else 0.501) + 1e-6 * peak[:, :, None] + 1e-39).all()
    sums = codes.reshape(2, 8, 2, 16).sum(axis=3)
    for column, total in ((1, sums.sum(axis=2)), (2, sums[:, :, 0]), (3, sums[:, :, 1])):
        np.testing.assert_allclose(w.meta[:, :, column], total * d, rtol=1e-6, atol=1e-30)
    if kind == "residual":
        b64 = b.astype(np.float64)
        norm = b64 / np.sqrt((b64 * b64).mean(axis=1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(w.out, a + norm * w.post, rtol=1e-5, atol=1e-5)


def test_a_long_token_passes_through_shared_memory_in_pieces() -> None:
    k = activations.CHUNK + 40
    a, _ = some(1, k)
    d = device()
    words = 4 * 256 + 64
    q = d.zeros(words * 4, np.float32)
    none_u, none_f = d.zeros(1, np.uint32), d.zeros(1, np.float32)
    weight = d.upload(np.ones(k, np.float32))
    activations.writer("norm", "f")[1, 4](
        d.upload(a), k, none_f, 0, weight, none_f, none_f, 0, np.float32(0), k, 0, q, none_u, none_f, words
    )
    expected = a / np.sqrt((a.astype(np.float64) ** 2).mean())
    np.testing.assert_allclose(q.copy_to_host()[None, :k], expected, rtol=1e-5, atol=1e-6)


def test_a_nan_is_not_lost() -> None:
    a, b = some(1, 40)
    a[0, 3] = np.nan
    for form in ("1", "f", "h"):
        w = Written("copy", form, a, b, 4)
        if form == "1":
            assert np.isnan(w.meta[0, 0, :2]).all() and not np.isnan(w.meta[0, 1]).any()
        else:
            assert (np.isnan(w.q[0, 3]) if form == "f" else w.q[0, 3] == 0x7FC0)
