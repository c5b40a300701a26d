"""The output matrix in two parts: nothing of it is lost, and the largest logits are those of the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggblock.engine.plan import Builder
from ggblock.engine.weights import Weight, describe, pack
from ggblock.kernels import fields

from .harness import EPS, Matrix, Product, exact_activations, matrix, random_rows, team
from .test_activations import stored
from .test_embed import embedded

MANY = 21


def parted(m: Matrix) -> Weight:
    w = describe(m.tensor, in_parts=True)
    assert w.is_parted
    return w


def parted_rows(folder: Path, raw: np.ndarray) -> Weight:
    """A matrix of these rows of Q8_0 blocks, uint8 (n_rows, row_bytes)."""
    return describe(stored(folder, "q8_0", raw.reshape(len(raw), -1, 34), "parted").tensor, in_parts=True)


class Logits:
    """A plan of one product of which the largest may be asked for."""

    def __init__(self, w: Weight, n_threads: int) -> None:
        builder = Builder(("2", "2"), n_threads, MANY)
        self.x, self.y, self.n_rows = builder.rows(w.n_cols), builder.rows(w.n_rows), w.n_rows
        assert builder.largest(builder.copy(self.x), w, self.y) == 3
        builder.barrier()
        self.plan = builder.finish(team(n_threads))

    def run(self, x: np.ndarray, best: int = 0) -> np.ndarray:
        """float32 (n_tokens, n_rows)."""
        self.x.data[: len(x), : x.shape[1]] = x
        self.y.data[:] = 7
        self.plan.state[fields.BEST] = best
        self.plan.run(len(x), 0)
        return self.y.data[: len(x), : self.n_rows].copy()


def falling(logits: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, values) of the ``k`` largest, the lower row first among equals."""
    order = np.argsort(-logits, kind="stable")[:k]
    return order, logits[order]


@pytest.mark.parametrize("n_rows", [1, 16, 37])
def test_parts_hold_every_bit(n_rows: int, tmp_path: Path) -> None:
    """A twin takes both regions apart one code after the other."""
    w = parted(matrix(tmp_path, "q8_0", n_rows, 96, np.random.default_rng(n_rows)))
    pack([w], team(2))
    n, second = w.n_panels * 3, w.n_panels * w.panel_bytes
    upper, lower = w.data[:second].reshape(n, 416), w.data[second:].reshape(n, 128)
    rows = np.zeros((16 * w.n_panels, 3, 34), np.uint8)
    for block in range(n):
        for row in range(16):
            found = rows[16 * (block // 3) + row, block % 3]
            found[:2] = upper[block, 2 * row : 2 * row + 2]
            for j in range(32):
                k, byte = j // 4, 4 * row + j % 4
                low = upper[block, (32, 160, 224, 352)[k // 2] + byte] >> 4 * (k % 2) & 15
                high = upper[block, (96, 288)[k // 4] + byte] >> 2 * (k % 4) & 3
                last = lower[block, 64 * (k // 4) + byte] >> 2 * (k % 4) & 3
                found[2 + j] = (int(high) << 6 | int(low) << 2 | int(last)) - 128 & 255
    raw = np.zeros((len(rows), 102), np.uint8)
    raw[:n_rows] = w.tensor.raw
    codes = rows.reshape(len(rows), 102)
    missing = codes[n_rows:].copy()
    assert np.array_equal(codes[:n_rows], raw[:n_rows]) and not missing.any()


def test_many_tokens_and_embeddings_as_of_the_plain_type(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    m = matrix(tmp_path, "q8_0", 37, 160, rng)
    x = rng.normal(size=(MANY, 160)).astype(np.float32)
    for n_threads in (1, 2, 3):
        plain = Product(m.weight(), ("2", "2"), n_threads, MANY).run(x, 0.0)
        assert np.array_equal(Logits(parted(m), n_threads).run(x), plain)
        ids = np.array([0, 36, 15, 16])
        assert np.array_equal(embedded(parted(m), ids, 24.0, n_threads), embedded(m.weight(), ids, 24.0, n_threads))


@pytest.mark.parametrize("n_cols", [32, 160, 2048])
def test_one_token_that_asks_for_all(n_cols: int, tmp_path: Path) -> None:
    """Activations that two terms hold exactly. Both parts together take the codes apart into numbers of at most 390
    steps (``kernels.sieve``), and each of a block's roundings, six, is of a sum of such."""
    rng = np.random.default_rng(n_cols)
    m = matrix(tmp_path, "q8_0", 300, n_cols, rng)
    plans = [Logits(parted(m), n_threads) for n_threads in (1, 2, 3)]
    for x in exact_activations(4, n_cols, 2, rng):
        results = [plan.run(x[None])[0] for plan in plans]
        steps = np.abs(m.tensor.raw.reshape(300, -1, 34)[:, :, :2].copy().view("<f2").astype(np.float64))[..., 0]
        sizes = steps @ np.abs(x.astype(np.float64)).reshape(-1, 32).sum(axis=1)
        bound = 6 * (n_cols // 32) * EPS * 390 * sizes
        assert np.all(np.abs(results[0] - m.exact @ x.astype(np.float64)) <= bound + 1e-45)
        assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


@settings(max_examples=20, deadline=None)
@given(n_rows=st.integers(1, 2100), n_blocks=st.integers(1, 20), spread=st.floats(0, 4), seed=st.integers(0, 1 << 30))
def test_the_largest_are_those_of_all(
    tmp_path_factory: pytest.TempPathFactory, n_rows: int, n_blocks: int, spread: float, seed: int
) -> None:
    """Any codes, scales of both signs, zero and large, activations with outliers; any number of threads."""
    rng = np.random.default_rng(seed)
    w = parted_rows(tmp_path_factory.mktemp("sieve"), random_rows("q8_0", n_rows, 32 * n_blocks, rng))
    x = (rng.normal(size=(1, 32 * n_blocks)) * np.exp(spread * rng.normal(size=32 * n_blocks))).astype(np.float32)
    plans = [Logits(w, n_threads) for n_threads in (1, 2, 3)]
    whole = plans[0].run(x)[0]
    for k in (1, 2, 40, fields.MOST):
        found = [plan.run(x, k)[0] for plan in plans]
        assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
        for a, b in zip(falling(found[0], k), falling(whole, k), strict=True):
            assert np.array_equal(a, b)


def test_most_panels_are_left_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    w = parted_rows(tmp_path, random_rows("q8_0", 4096, 640, rng))
    x = rng.normal(size=(1, 640)).astype(np.float32)
    plan = Logits(w, 2)
    whole, found = plan.run(x)[0], plan.run(x, 1)[0]
    assert 0 < np.mean(whole == found) < 0.5


def test_a_row_that_only_its_lower_bits_make_the_largest(tmp_path: Path) -> None:
    """Row 0 is 3 steps everywhere, rows 16 to 31 are 4 or 0, which by their upper bits is more: 4.25 steps to 1.5.
    Rows from 32 on cannot be the largest and keep what their upper bits say."""
    raw = np.zeros((64, 320 // 32, 34), np.uint8)
    raw[:, :, 1] = 0x3C  # the scale, one
    raw[0, :, 2:] = 3
    raw[16:32, :, 2:24] = 4
    raw[32:, :, 2:] = 256 - 8
    plan = Logits(parted_rows(tmp_path, raw), 2)
    found = plan.run(np.ones((1, 320), np.float32), 1)[0]
    assert found.argmax() == 0
    np.testing.assert_allclose(found[[0, 16, 32, 63]], [960, 880, -6.5 * 320, -6.5 * 320], rtol=1e-5)


def test_rows_that_are_none_are_not_counted(tmp_path: Path) -> None:
    """A panel's missing rows have the value 0, which here is larger than any."""
    rng = np.random.default_rng(4)
    raw = random_rows("q8_0", 200 * 16 + 1, 64, rng).reshape(-1, 2, 34)
    raw[:, :, 2:] |= 0x80
    raw[:, :, :2] = np.frombuffer(np.float16(0.5).tobytes(), np.uint8)
    w = parted_rows(tmp_path, raw)
    x = np.abs(rng.normal(size=(1, 64))).astype(np.float32)
    plan = Logits(w, 2)
    whole, found = plan.run(x)[0], plan.run(x, 3)[0]
    assert whole.max() < 0
    for a, b in zip(falling(found, 3), falling(whole, 3), strict=True):
        assert np.array_equal(a, b)
    assert np.mean(whole == found) < 0.5


def test_numbers_that_are_none_are_seen(tmp_path: Path) -> None:
    raw = random_rows("q8_0", 64, 64, np.random.default_rng(5)).reshape(64, 2, 34)
    raw[40, 0, :2] = 0, 0x7E  # NaN
    w = parted_rows(tmp_path, raw)
    assert np.isnan(Logits(w, 2).run(np.ones((1, 64), np.float32), 1)[0].max())
