"""Sums of activations as whole numbers: the tables themselves, and mins multiplied by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ggblock import blocks
from ggblock.engine.plan import Builder
from ggblock.kernels import fields, sum_tables

from .harness import MODES, Product, assert_close, matrix, team
from .test_activations import stored


def tables_of(x: np.ndarray, n_threads: int, folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(sums, sums of 256, largest scales) of thread 0's tables: float64 (n, 16), (n,), (n,)."""
    w = matrix(folder, "q2_k", 16, x.size, np.random.default_rng(0)).weight()
    builder = Builder(MODES["two_mixed"], n_threads, 1)
    rows = builder.rows(x.size)
    rows.data[0, : x.size] = x
    builder.matmul(builder.copy(rows), w, builder.rows(16))
    builder.barrier()
    tables = next(row for row in builder._rows if row[0] == "sums")[fields.A + 6]
    builder.finish(team(n_threads)).run(1, 0)
    lines = tables[: x.size // 256 * fields.SUMS].reshape(-1, fields.SUMS)
    halves = lines[:, :32].view(np.int8).astype(np.float64)
    places = sum_tables.SCALE, sum_tables.SUM, sum_tables.PEAK
    scale, whole, peak = (lines[:, b : b + 4].copy().view(np.float32)[:, 0].astype(np.float64) for b in places)
    return (256 * halves[:, :16] + halves[:, 16:]) * scale[:, None], whole, peak


@pytest.mark.parametrize("n_threads", [1, 3])
def test_sums_are_rounded_to_a_step_of_the_largest(n_threads: int, tmp_path: Path) -> None:
    """Of the first term, 1/256 of them: what the kernel adds up is 256 times as much."""
    rng = np.random.default_rng(4)
    x = (rng.standard_normal(1024) * np.repeat([1, 1e-3, 40, 0], 256)).astype(np.float32)
    sums, whole, peak = tables_of(x, n_threads, tmp_path)
    d = np.abs(x.astype(np.float64)).reshape(-1, 32).max(1) / 127
    steps = np.rint(np.divide(x.reshape(-1, 32), d[:, None], where=d[:, None] > 0, out=np.zeros((32, 32))))
    exact = (steps.reshape(-1, 2, 16).sum(2) * d[:, None]).reshape(4, 16) / 256
    largest = np.abs(exact).max(1)
    assert (np.abs(sums - exact).max(1) <= largest / 32512 / 2 * 1.01).all()
    assert np.abs(sums[:3] - exact[:3]).max() > 0
    assert np.allclose(whole, sums.sum(1), rtol=1e-6)
    assert np.allclose(peak, d.reshape(4, 8).max(1) / 256, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_mins_alone(scale: float, tmp_path: Path) -> None:
    """Codes of zero: what is left of Q2_K is mins times sums, whatever the size of the activations."""
    block, rng = blocks.by_name("q2_k"), np.random.default_rng(2)
    raw = rng.integers(0, 256, (40, 4, block.block_bytes), dtype=np.uint8)
    places = {f.name: slice(f.offset, f.end) for f in block.layout}
    raw[..., places["qs"]] = 0
    for name in ("d", "dmin"):
        raw[..., places[name]] = np.frombuffer(np.float16(0.5).tobytes(), np.uint8)
    mins = np.repeat((raw[..., places["scales"]] >> 4).astype(np.float64) / 2, 16, axis=2).reshape(40, 1024)
    steps = rng.integers(-126, 127, 1024)
    steps[::32] = 127
    x = (steps * np.float64(np.float32(scale))).astype(np.float32)[None]
    product = Product(stored(tmp_path, "q2_k", raw, "mins"), MODES["two_mixed"], 2, 1)
    expected = -(x.astype(np.float64) @ mins.T)
    sums = np.abs(x.astype(np.float64).reshape(4, 16, 16).sum(2)).max(1) / 32512 / 2
    bound = (mins.reshape(40, 4, 256).sum(2) / 16) @ sums
    assert_close(product.run(x, before=0.0), expected, bound + 200 * 2.0**-24 * (np.abs(x.astype(np.float64)) @ mins.T))
