"""Embeddings by the kernel: rows of every block type as its decoder gives them, but for the order of two roundings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ggblock import blocks
from ggblock.blocks import tails
from ggblock.engine.memory import buffer, floats
from ggblock.engine.plan import Builder
from ggblock.engine.weights import Weight

from .harness import EPS, TYPES, Matrix, matrix, team
from .test_ragged import columns_of, ragged


def embedded(w: Weight, ids: np.ndarray, scale: float, n_threads: int) -> np.ndarray:
    """Rows ``ids`` of ``w`` times ``scale``, by a plan of that one operation: float32 (len(ids), n_cols)."""
    builder = Builder(("2", "1+"), n_threads, len(ids))
    x, places, factor = builder.rows(w.n_cols), buffer(8 * len(ids)).view(np.int64), floats(1)
    x.data[:] = 7
    places[:], factor[0] = ids, scale
    builder.embed(places, w, factor, x)
    builder.finish(team(n_threads)).run(len(ids), 0)
    return np.array(x.data[: len(ids), : w.n_cols])


def check(m: Matrix) -> None:
    """Bound: scale, product, sum with the offset and factor are rounded, six times at most, each by what the kernel
    adds up (``Matrix.size``; see ``harness.tolerance``)."""
    ids = np.array([0, 36, 15, 16, 15, 31, 32, 7])
    for scale in (1.0, 24.0):
        results = [embedded(m.weight(), ids, scale, n_threads) for n_threads in (1, 2, 3)]
        for result in results[1:]:
            np.testing.assert_array_equal(result, results[0])
        assert np.all(np.abs(results[0] - scale * m.exact[ids]) <= 6 * EPS * scale * m.size[ids] + 1e-45)
    np.testing.assert_array_equal(embedded(m.weight(), ids[1:2], 24.0, 2), results[0][1:2])


@pytest.mark.parametrize("name", TYPES)
def test_rows_are_those_of_the_decoder(name: str, tmp_path: Path) -> None:
    size = blocks.by_name(name).block_size
    check(matrix(tmp_path, name, 37, 37 if size == 1 else 3 * size, np.random.default_rng(len(name))))


@pytest.mark.parametrize("name", tails.CUT)
def test_rows_with_tails(name: str, tmp_path: Path) -> None:
    check(ragged(tmp_path, name, 37, columns_of(name)[1], np.random.default_rng(len(name))))


def test_rows_of_a_matrix_that_one_token_would_have_in_slices(tmp_path: Path) -> None:
    """A shared output matrix, whose rows are read as embeddings too, stays whole."""
    m = matrix(tmp_path, "q1_0", 37, 4096, np.random.default_rng(3))
    w, ids = m.weight(), np.array([0, 36, 15, 16])
    builder = Builder(("2", "1+"), 2, len(ids))
    x, y, places, factor = builder.rows(4096), builder.rows(37), buffer(8 * len(ids)).view(np.int64), floats(1)
    places[:], factor[0] = ids, 1
    builder.embed(places, w, factor, x)
    builder.matmul(builder.copy(x), w, y)
    builder.finish(team(2)).run(len(ids), 0)
    assert w.slices == [(0, w.n_blocks)]
    np.testing.assert_allclose(x.data[: len(ids), :4096], m.exact[ids], rtol=1e-6)
