"""Matrix products over ragged rows: every type with tails, against float64, with activations that need no rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ggblock
from ggblock import blocks
from ggblock.blocks import tails
from ggblock.format.writer import GgufWriter, TensorSpec

from .harness import (
    EPS,
    MODES,
    Matrix,
    Product,
    activations_of,
    assert_close,
    exact_activations,
    levels_of,
    offset_of,
    random_rows,
    rounding,
    tolerance,
)


def columns_of(name: str) -> tuple[int, int]:
    """A row that is a tail alone, an odd number of sub-blocks where that can be; and one with a tail at its end."""
    block = blocks.by_name(name)
    step, size = tails.step(block), block.block_size
    return 3 * step if 3 * step < size else step, size * (1 if size > 128 else 3) + size // 2 // step * step


def ragged(folder: Path, name: str, n_rows: int, n_cols: int, rng: np.random.Generator) -> Matrix:
    """A random matrix in panels, and what its products are exactly; tails are cut from random whole blocks."""
    block = blocks.by_name(name)
    row = tails.row(block, n_cols, ragged=True)
    n_all = row.n_blocks * block.block_size
    whole = random_rows(name, n_rows, n_all, rng).reshape(-1, block.block_bytes)
    parts = block.unpack(whole) if block.unpack else None
    assert parts is not None and row.tail is not None
    each = block.block_size // parts.scales.shape[1]
    scales = np.repeat(parts.scales.astype(np.float64), each, axis=1)
    mins = np.zeros_like(scales) if parts.mins is None else np.repeat(parts.mins.astype(np.float64), each, axis=1)
    codes, offset = parts.codes.astype(np.float64), offset_of(name)
    exact = (scales * codes - mins).reshape(n_rows, n_all)[:, :n_cols]
    size = (np.abs(scales) * (np.abs(codes + offset) + offset) + np.abs(mins)).reshape(n_rows, n_all)[:, :n_cols]
    cells = whole.reshape(n_rows, row.n_blocks, block.block_bytes)
    raw = np.concatenate(
        [cells[:, :-1].reshape(n_rows, -1), tails.shrink(row.tail, block, np.ascontiguousarray(cells[:, -1]))], axis=1
    )
    path = folder / f"{name}-{n_rows}-{n_cols}.ggb"
    with GgufWriter(path, {}, [TensorSpec("w", name, (n_rows, n_cols), True)], checksums=True) as writer:
        writer.write("w", raw)
    return Matrix(ggblock.open(path).tensors["w"], exact, size)


#: One term for one token is left to `test_every_tail`.
FORMS = ("two_mixed", "floats")


@pytest.mark.parametrize("name", tails.CUT)
@pytest.mark.parametrize("mode", FORMS)
def test_units_give_back_the_weights(mode: str, name: str, tmp_path: Path) -> None:
    """As in test_matmul: every code, scale and offset is seen alone, for one token and for many."""
    rng = np.random.default_rng(len(name))
    for n_cols in columns_of(name)[mode == "floats" :]:
        m = ragged(tmp_path, name, 21, n_cols, rng)
        w = m.weight()
        product = Product(w, MODES[mode], 2, n_cols)
        powers = np.diag(np.float32(2.0) ** rng.integers(-6, 6, n_cols).astype(np.float32))
        bound = 7 * EPS * powers.astype(np.float64) @ m.size.T
        levels = levels_of(w.family, MODES[mode], n_cols, n_cols)
        x = powers * np.float32(levels)
        assert_close(product.run(x), x.astype(np.float64) @ m.exact.T, levels[:, None] * bound)
        x = powers[::3] * 127
        one_at_a_time = np.concatenate([product.run(row[None]) for row in x])
        assert_close(one_at_a_time, x.astype(np.float64) @ m.exact.T, 127 * bound[::3])


@pytest.mark.parametrize("name", tails.CUT)
@pytest.mark.parametrize("mode", FORMS)
def test_ragged_product_of_odd_sizes_on_any_number_of_threads(mode: str, name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(len(name) + 1)
    modes = MODES[mode]
    for n_rows, n_cols in ((1, columns_of(name)[0]), (67, columns_of(name)[1]))[mode == "floats" :]:
        m = ragged(tmp_path, name, n_rows, n_cols, rng)
        w = m.weight()
        assert w.family == f"{name}+{m.tensor.row.tail.block_size}"
        products = [Product(w, modes, n_threads, 40) for n_threads in (1, 2, 3)]
        assert np.shares_memory(w.data, m.tensor.panels), "panels are used as they lie"
        for n_tokens in (1, 3, 8, 9, 37):
            x = activations_of(w, modes, n_tokens, rng)
            results = [p.run(x) for p in products]
            bound = tolerance(m, x, mode == "floats") + rounding(w, m, modes, x)
            assert_close(results[0], x.astype(np.float64) @ m.exact.T, bound)
            for other in results[1:]:
                assert np.array_equal(results[0], other), f"{n_tokens} tokens depend on the number of threads"


@pytest.mark.parametrize("name", ["q2_k", "q3_k", "q4_k", "q6_k"])
def test_every_tail(name: str, tmp_path: Path) -> None:
    """Tails of odd and even numbers of sub-blocks, one token (a kernel each, so not all of them)."""
    rng = np.random.default_rng(9)
    step = tails.step(blocks.by_name(name))
    for n_cols in range(step, 256, 3 * step if step == 32 else 5 * step):
        m = ragged(tmp_path, name, 17, n_cols, rng)
        x = exact_activations(1, n_cols, 1, rng)
        result = Product(m.weight(), MODES["two_mixed"], 1, 1).run(x)
        assert_close(result, x.astype(np.float64) @ m.exact.T, tolerance(m, x, False))
