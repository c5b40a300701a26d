"""What stands between two products: copy, norm and gate, in every form that a product reads.

The layouts are the kernels' own affair, so the results are seen through products with simple matrices: the unit matrix
gives every activation back, a matrix of mins gives the sums that belong to them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ggblock
from ggblock.engine.memory import floats
from ggblock.engine.plan import Activations, Builder, Rows
from ggblock.engine.weights import Weight, describe
from ggblock.format.writer import GgufWriter, TensorSpec
from ggblock.kernels.activation_apart import APART_SUM
from ggblock.kernels.fields import ALIKE, MOST_SUM, MOST_TIMES

from .harness import EPS, FOURS, MACHINE, MODES, assert_close, team

F32 = np.float32
TOKENS = (1, 2, 9, 17)


@pytest.fixture(autouse=True)
def plain_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of one token see both terms, also where a machine leaves the second one out (``mode_of_one``), and those
    of many multiply the codes themselves (``mode_of_many``), whose zeros then give zeros."""
    monkeypatch.setattr("ggblock.engine.plan.mode_of_one", lambda name, modes, machine: modes[0])
    monkeypatch.setattr("ggblock.engine.plan.mode_of_many", lambda name, modes, here: modes[1])


def unit_matrix(folder: Path, n: int) -> Weight:
    """F32: products with it are exact and give float activations back."""
    return stored(folder, "f32", np.eye(n, dtype="<f4").view(np.uint8).reshape(n, n, 4), "unit")


def unit_codes(folder: Path, n: int) -> Weight:
    """Q4_1 with scale 1, min 0 and code 1 on the diagonal: all other terms are zero on every machine."""
    cells = np.zeros((n, n // 32, 20), np.uint8)
    cells[..., 1] = 0x3C  # the float16 1.0
    j = np.arange(n) % 32
    cells[np.arange(n), np.arange(n) // 32, 4 + j % 16] = np.where(j < 16, 1, 16)
    return stored(folder, "q4_1", cells, "units")


def mins_matrix(folder: Path, name: str, n: int) -> Weight:
    """In row s only the weights of sub-block s are not 0: 1 by a min (Q4_1), or -32 by a code of 0 (Q6_K)."""
    if name == "q4_1":
        cells = np.zeros((n // 32, n // 32, 20), np.uint8)
        cells[np.arange(n // 32), np.arange(n // 32), 3] = 0x3C
    else:
        cells = np.zeros((n // 16, n // 256, 210), np.uint8)
        cells[..., 209] = 0x3C
        for s in range(n // 16):
            cells[s, s // 16, 192 + s % 16] = 1
    return stored(folder, name, cells, "mins")


def stored(folder: Path, name: str, cells: np.ndarray, what: str) -> Weight:
    path = folder / f"{what}-{name}-{len(cells)}.gguf"
    n_cols = cells.shape[1] * ggblock.blocks.by_name(name).block_size
    with GgufWriter(path, {"general.architecture": "none"}, [TensorSpec("w", name, (len(cells), n_cols))]) as writer:
        writer.write("w", cells.reshape(len(cells), -1))
    return describe(ggblock.open(path).tensors["w"])


class Seen:
    """A plan: an operation, and products that show what it wrote."""

    def __init__(
        self,
        mode: str,
        n_threads: int,
        width: int,
        weights: list[Weight],
        n_inputs: int,
        make: Callable[..., Activations],
    ) -> None:
        builder = Builder(MODES[mode], n_threads, max(TOKENS) + 3)
        self.width = width
        self.inputs = [builder.rows(width) for _ in range(n_inputs)]
        a = make(builder, *self.inputs)
        self.outputs = [builder.rows(w.n_rows) for w in weights]
        for w, y in zip(weights, self.outputs, strict=True):
            builder.matmul(a, w, y)
        builder.barrier()
        self.plan = builder.finish(team(n_threads))

    def run(self, *values: np.ndarray) -> list[np.ndarray]:
        n = len(values[0])
        for rows, value in zip(self.inputs, values, strict=True):
            rows.data[:n, : self.width] = value
            rows.data[n:, : self.width] = np.nan  # nobody may look at other tokens
        self.plan.run(n, 0)
        return [y.data[:n].copy() for y in self.outputs]


def copy_of(builder: Builder, x: Rows) -> Activations:
    return builder.copy(x)


def spread_values(n_tokens: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Blocks of very different size; one of zeros, one whose scale is denormal, one of a single large value."""
    x = rng.standard_normal((n_tokens, n)) * 10.0 ** rng.uniform(-6, 4, (n_tokens, -(-n // 32))).repeat(32, 1)[:, :n]
    x[0, :32] = 0
    x[-1, 32:64] = 0
    x[-1, 40] = 3.0e4
    x[-1, :32] = 1e-44
    return x.astype(F32)


TILE = MACHINE.tile_tokens


def steps_apart(x: np.ndarray) -> np.ndarray:
    """The steps of mode "1+", or larger ones, (n_tokens, blocks): of 28 of 32 columns where four surely stand apart,
    because they and no others are much of a tile's error. Where products are first summed in int16 the reader's steps
    (Q6_K's) are multiples of one, and no half's codes add up to more than they may."""
    sizes = np.abs(x).reshape(len(x), -1, 32)
    fours = sizes[:, :, FOURS]
    out = np.zeros(sizes.shape[:2])
    for first in range(0, len(x), TILE):
        here = slice(first, first + TILE)
        tops = fours[here].max(3)
        group = (tops**2).sum(0).argmax(1)
        rest = sizes[here].copy()
        np.put_along_axis(rest, FOURS[group][None], 0, axis=2)
        whole, others = step_of(sizes[here], MOST_SUM), step_of(rest, MOST_SUM - APART_SUM)
        others = np.maximum(others, whole / 128)
        saved, error = (whole**2 - others**2).sum(0), (alike(whole) ** 2).sum(0)
        looked_at = error > max(0.0301, 1.001 / len(error)) * error.sum()
        if MACHINE.narrow:
            looked_at = looked_at.reshape(-1, ALIKE).any(1).repeat(ALIKE)
        sure = looked_at & (saved > 0.0301 * error.sum())
        out[here] = alike(np.where(sure, others, whole))
    return out


def step_of(sizes: np.ndarray, most_sum: int) -> np.ndarray:
    """Of magnitudes (tokens, blocks, 32)."""
    steps = sizes.max(2) / 127
    if not MACHINE.narrow:
        return steps
    return np.maximum(steps, sizes.reshape(*steps.shape, 2, 16).sum(3).max(2) / (most_sum - 16))


def alike(steps: np.ndarray) -> np.ndarray:
    """Multiples of a token's least, the same for all tokens of a tile."""
    if not MACHINE.narrow:
        return steps
    groups = steps.reshape(len(steps), -1, ALIKE)
    unit = groups.max(2, keepdims=True) / MOST_TIMES
    times = np.ceil(groups / np.where(unit > 0, unit, 1) * (1 - 1e-6)).max(0, keepdims=True)
    return (np.maximum(times, 1) * unit).reshape(steps.shape)


def test_tiles_hold_what_single_tokens_hold(tmp_path: Path) -> None:
    """Two programs write activations, one for a token and one for tiles; with two terms both must agree to the bit."""
    builder = Builder(("2", "2"), 2, max(TOKENS) + 3)
    x, y = builder.rows(512), builder.rows(512)
    builder.matmul(builder.copy(x), unit_codes(tmp_path, 512), y)
    builder.barrier()
    plan = builder.finish(team(2))
    values = spread_values(13, 512, np.random.default_rng(6))
    x.data[:13, :512] = values
    plan.run(13, 0)
    together = y.data[:13].copy()
    for t in range(13):
        x.data[:1, :512] = values[t]
        plan.run(1, 0)
        assert np.array_equal(y.data[0], together[t])


@pytest.mark.parametrize("mode", ["two_mixed"])
def test_quantized_copy(mode: str, tmp_path: Path) -> None:
    """Bytes within half a step of the value, two terms within a step of 1/256 (a remainder of half a step is cut to
    127/256); the step is max|x| / 127 over 32 values, or as of ``steps_apart``. 4 EPS of the value for the quotient
    x / step and its four roundings. Blocks whose step has no reciprocal in float32 may become zero."""
    rng = np.random.default_rng(4)
    weights = [unit_codes(tmp_path, 512), mins_matrix(tmp_path, "q4_1", 512), mins_matrix(tmp_path, "q6_k", 512)]
    seen = {n: Seen(mode, n, 512, weights, 1, copy_of) for n in (1, 2, 3)}
    for n_tokens in TOKENS:
        x = spread_values(n_tokens, 512, rng)
        got, sums32, sums16 = seen[2].run(x)
        terms = MODES[mode][n_tokens > 1]
        steps = np.abs(x.astype(np.float64)).reshape(n_tokens, 16, 32).max(2) / 127
        if terms == "1+":
            smaller = steps_apart(x.astype(np.float64))
            assert n_tokens < TILE or (smaller < steps / 2).any()
            steps = smaller
        step = steps.repeat(32, 1)
        share = 1 / 256 if terms == "2" else 0.5
        bound = np.where(step < 3e-39, np.abs(x), step * share + (np.abs(x) + 127 * step) * 4 * EPS)
        assert_close(got[:, :512], x.astype(np.float64), bound)
        # the sums are of what was written, not of x: one rounding of the sum, one of its product with the step
        whole = got[:, :512].astype(np.float64).reshape(n_tokens, 16, 32)
        size = np.abs(whole).sum(2)
        assert_close(sums32[:, :16], whole.sum(2), 3 * EPS * size)
        assert_close(sums16[:, :32] / -32, whole.reshape(n_tokens, 32, 16).sum(2), 3 * EPS * size.repeat(2, 1))
        for n_threads in (1, 3):
            for one, other in zip(seen[n_threads].run(x), (got, sums32, sums16), strict=True):
                assert np.array_equal(one, other)


@pytest.mark.parametrize("width", [32, 300, 513])
def test_float_copy_is_exact(width: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    seen = Seen("floats", 2, width, [unit_matrix(tmp_path, width)], 1, copy_of)
    for n_tokens in TOKENS:
        x = spread_values(n_tokens, width, rng) if width > 64 else rng.standard_normal((n_tokens, width)).astype(F32)
        got = seen.run(x)[0]
        assert np.array_equal(got[:, :width], x)


def norm_bound(n: int) -> float:
    """Relative error of ``x * w / sqrt(mean(x**2) + eps)``: squares of one sign are added in 32 chains, ceil(n / 32)
    roundings each, then six more down to one sum: half of that in the root; the mean, + eps, the root, the reciprocal,
    and the two products round once each."""
    return ((-(-n // 32) + 6) / 2 + 6) * EPS


def naive_norm(x: np.ndarray, w: np.ndarray, eps: float) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.sqrt((x * x).mean(1, keepdims=True) + F32(eps)) * w


def padded(values: np.ndarray) -> np.ndarray:
    out = floats(-(-len(values) // 32) * 32)
    out[: len(values)] = values
    return out


@pytest.mark.parametrize("width", [64, 576, 100])
def test_norm(width: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    w = rng.standard_normal(width).astype(F32)
    seen = {
        n: Seen("floats", n, width, [unit_matrix(tmp_path, width)], 1, lambda b, x: b.norm(x, padded(w), 1e-5))
        for n in (1, 2, 3)
    }
    for n_tokens in TOKENS:
        x = (rng.standard_normal((n_tokens, width)) * 10.0 ** rng.uniform(-4, 3, (n_tokens, 1))).astype(F32)
        x[0] = 0
        expected = naive_norm(x, w, 1e-5)
        got = seen[1].run(x)[0]
        assert_close(got[:, :width], expected, norm_bound(width) * np.abs(expected))
        assert all(np.array_equal(seen[n].run(x)[0], got) for n in (2, 3))


@pytest.mark.parametrize("width", [64, 100])
def test_norm_of_a_residual(width: int, tmp_path: Path) -> None:
    """``out = x + norm(y)``, then the norm of out. Out: the norm's own error and one addition."""
    rng = np.random.default_rng(7)
    w, w_post = (rng.standard_normal(width).astype(F32) for _ in range(2))
    kept: list[Rows] = []

    def make(b: Builder, x: Rows, y: Rows) -> Activations:
        kept.append(b.rows(width))
        return b.norm(x, padded(w), 1e-6, (y, padded(w_post), kept[-1]))

    all_seen = [Seen("floats", n, width, [unit_matrix(tmp_path, width)], 2, make) for n in (1, 2, 3)]
    for n_tokens in TOKENS:
        x, y = (rng.standard_normal((n_tokens, width)).astype(F32) for _ in range(2))
        results = [s.run(x, y)[0] for s in all_seen]
        added = naive_norm(y, w_post, 1e-6)
        sums = kept[0].data[:n_tokens, :width].copy()
        assert_close(sums, x + added, norm_bound(width) * np.abs(added) + EPS * np.abs(x + added))
        expected = naive_norm(sums, w, 1e-6)
        assert_close(results[0][:, :width], expected, norm_bound(width) * np.abs(expected))
        for rows, result in zip(kept[1:], results[1:], strict=True):
            assert np.array_equal(rows.data[:n_tokens, :width], sums) and np.array_equal(result, results[0])


@pytest.mark.parametrize("kind", ["silu", "gelu"])
def test_gate(kind: str, tmp_path: Path) -> None:
    """``g / (1 + exp(-u)) * up`` with u = g (SiLU), or u = 2 sqrt(2 / pi) (g + 0.044715 g**3) (GELU).

    exp is within 3 EPS (tests of ``vec``) and its argument within 5 EPS of u for GELU (five roundings), so the sum
    below the line within (3 + 5 |u|) EPS and one more; the quotient and the product add two. Below -88 exp stays where
    it is, and the result is no further from zero than |g| exp(-88).
    """
    rng = np.random.default_rng(8)
    seen = {
        n: Seen("floats", n, 160, [unit_matrix(tmp_path, 160)], 2, lambda b, g, up: b.gate(kind, g, up)) for n in (1, 2)
    }
    for n_tokens in TOKENS:
        g = (rng.standard_normal((n_tokens, 160)) * 10.0 ** rng.uniform(-3, 1.3, (n_tokens, 160))).astype(F32)
        g[-1, :8] = (0, -0.0, -87, -88.5, -300, 90, 300, 1e-30)
        up = rng.standard_normal((n_tokens, 160)).astype(F32)
        wide = g.astype(np.float64)
        u = wide if kind == "silu" else 2 * np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)
        with np.errstate(over="ignore"):
            expected = wide / (1 + np.exp(-u)) * up
        relative = (6 + (0 if kind == "silu" else 5) * np.minimum(np.abs(u), 88)) * EPS
        floor = np.abs(wide * up) * 2 * np.exp(-87.3)
        got = seen[1].run(g, up)[0]
        assert_close(got[:, :160], expected, relative * np.abs(expected) + floor)
        assert np.array_equal(seen[2].run(g, up)[0], got)
