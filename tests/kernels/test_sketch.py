"""The sketch of an output matrix: what it says of weights, and that the largest logits are those of all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggblock.engine.plan import Builder
from ggblock.engine.weights import Sketch, Weight, describe, pack, sketch_of
from ggblock.kernels import families, fields
from ggblock.kernels.families import mode_of_one

from .harness import EPS, MACHINE, Product, exact_activations, matrix, random_rows, team
from .test_activations import stored

#: One for each way in which weights are found: bytes, sub-blocks of 16, halves, floats, taken apart when loaded.
TYPES = ("q8_0", "q6_k", "f16", "f32", "q8_k")


def sketched(w: Weight) -> tuple[Weight, Sketch]:
    """``w`` with a sketch."""
    w.sketch = sketch_of(w)
    assert w.sketch
    return w, w.sketch


class Logits:
    """A plan of one product with one token, of which the largest may be asked for."""

    def __init__(self, w: Weight, n_threads: int) -> None:
        builder = Builder(("2", "1+"), n_threads, 1)
        self.x, self.y, self.n_rows = builder.rows(w.n_cols), builder.rows(w.n_rows), w.n_rows
        assert builder.largest(builder.copy(self.x), w, self.y) == 3
        builder.barrier()
        self.plan = builder.finish(team(n_threads))

    def run(self, x: np.ndarray, best: int = 0) -> np.ndarray:
        """float32 (n_rows,)."""
        self.x.data[0, : len(x)] = x
        self.y.data[:] = 7
        self.plan.state[[fields.BEST, fields.FOUND]] = best, 0
        self.plan.run(1, 0)
        return np.array(self.y.data[0, : self.n_rows])


def check(w: Weight, x: np.ndarray, some: tuple[int, ...] = (1, 2, 40, fields.MOST)) -> np.ndarray:
    """The largest are those of all, in the same order and to the bit, for any number of threads. Which rows are exact
    where the first of ``some`` are asked for."""
    plans = [Logits(sketched(w)[0] if w.sketch is None else w, n_threads) for n_threads in (1, 2, 3)]
    whole, exact = plans[0].run(x), None
    for k in some:
        found = [plan.run(x, k) for plan in plans]
        assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
        order = np.argsort(-whole, kind="stable")[:k]
        assert np.array_equal(np.argsort(-found[0], kind="stable")[:k], order)
        assert np.array_equal(found[0][order], whole[order])
        exact = found[0] == whole if exact is None else exact
        panels = [int(plan.plan.state[fields.FOUND]) for plan in plans]
        assert 0 < panels[0] <= -(-len(whole) // 16) and panels == panels[:1] * 3
    assert exact is not None
    return np.array(exact)


def weights_of(sketch: Sketch, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """(weights float64 (n_rows, n_cols), steps (n_rows, n_cols / 32)) of a sketch, one number after the other."""
    n = sketch.n_blocks
    size = 256 + 64 * (sketch.bits - 4)
    blocks = sketch.data.reshape(sketch.n_panels, n, 32 + size)
    steps = (blocks[..., :32].copy().view("<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    codes = np.zeros((sketch.n_panels, n, 16, 32))
    for j in range(32):
        lanes = 4 * np.arange(16) + j % 4
        codes[..., j] = blocks[..., size - 224 + 64 * (j // 4 % 4) + lanes] >> 4 * (j // 16) & 15
        if sketch.bits == 5:
            codes[..., j] += 16 * (blocks[..., 32 + lanes] >> j // 4 & 1)
    values = (codes - sketch.centers.astype(np.float64).reshape(1, n, 1, 32)) * steps[..., None]
    rows = values.transpose(0, 2, 1, 3).reshape(-1, sketch.n_cols)[:n_rows]
    return rows, steps.transpose(0, 2, 1).reshape(-1, n)[:n_rows]


@pytest.mark.parametrize("name", TYPES)
def test_weights_are_half_a_step_off_at_most(name: str, tmp_path: Path) -> None:
    """A step is the largest of 32 magnitudes / 7.5 or 15.5, rounded up to a bfloat16. Codes come from a product with
    its inverse, both rounded to float32: with 31 steps that is 31 * 2**-22 of a step at most; the weight's own rounding
    is as much."""
    m = matrix(tmp_path, name, 37, 512, np.random.default_rng(len(name)))
    w, sketch = sketched(m.weight())
    pack([w], team(2))
    found, steps = weights_of(sketch, 37)
    peaks = np.abs(m.exact).reshape(37, -1, 32).max(2) / (2**sketch.bits - 1) * 2
    assert np.all(peaks * (1 - 2**-21) <= steps) and np.all(steps <= peaks * (1 + 2**-7) + 2**-133)
    wide = np.repeat(steps, 32, axis=1)
    assert np.all(np.abs(found - m.exact) <= wide * (0.5 + 62 * 2**-22))
    errors = ((found - m.exact) / np.where(wide > 0, wide, 1))[wide > 0]
    assert abs(errors.mean()) < 6 * (12 * len(errors)) ** -0.5  # drawn evenly: six deviations of the mean
    assert abs((errors**2).mean() * 12 - 1) < 6 * (0.8 / len(errors)) ** 0.5


def test_centers_look_drawn() -> None:
    r = _centers(8192) - 15.5
    assert r.min() >= -0.5 and r.max() <= 0.5 and abs(r.mean()) < 6 * (12 * 8192) ** -0.5
    assert abs((r[1:] * r[:-1]).mean()) < 6 / 12 * 8192**-0.5
    assert np.array_equal(_centers(64), _centers(8192)[:64])


def _centers(n_cols: int) -> np.ndarray:
    class Tensor:
        in_panels = False

    found = sketch_of(Weight(Tensor(), "q8_0", 16, n_cols))
    assert found
    return found.centers


def test_what_is_worth_a_sketch(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for name, is_worth in (("q8_0", True), ("q6_k", True), ("q5_k", False), ("q4_0", False)):
        assert (sketch_of(matrix(tmp_path, name, 16, 256, rng).weight()) is not None) == is_worth
    assert sketch_of(matrix(tmp_path, "f16", 16, 40, rng).weight()) is None
    bits = {"q6_k": 4, "q6_k+96": 0, "q8_0": 5, "q8_0_parted": 0, "f16": 5, "expanded32": 5}
    assert {name: families.sketch_bits(name) for name in bits} == bits


@pytest.mark.parametrize("name", ["q8_0", "q6_k", "f16"])
def test_one_token_that_asks_for_all(name: str, tmp_path: Path) -> None:
    """As of a matrix without a sketch, to the bit."""
    rng = np.random.default_rng(2)
    m = matrix(tmp_path, name, 100, 512, rng)
    x = rng.normal(size=512).astype(np.float32)
    plain = Product(m.weight(), ("2", "1+"), 2, 1).run(x[None])[0]
    assert np.array_equal(Logits(sketched(m.weight())[0], 2).run(x), plain)


@pytest.mark.parametrize("name", TYPES)
def test_the_largest_are_those_of_all(name: str, tmp_path: Path) -> None:
    """Activations with outliers, as models have them, and as long as quiet blocks make second terms count."""
    rng = np.random.default_rng(3)
    w = matrix(tmp_path, name, 3000, 512, rng).weight()
    for spread in (0.0, 1.0, 3.0):
        x = rng.normal(size=512) * np.exp(spread * rng.normal(size=512))
        check(w, x.astype(np.float32))


@settings(max_examples=20, deadline=None)
@given(n_rows=st.integers(1, 2100), n_blocks=st.integers(1, 20), spread=st.floats(0, 4), seed=st.integers(0, 1 << 30))
def test_the_largest_of_any_shape(
    tmp_path_factory: pytest.TempPathFactory, n_rows: int, n_blocks: int, spread: float, seed: int
) -> None:
    """Any codes, scales of both signs, zero and large; any number of threads."""
    rng = np.random.default_rng(seed)
    raw = random_rows("q8_0", n_rows, 32 * n_blocks, rng).reshape(n_rows, n_blocks, 34)
    x = (rng.normal(size=32 * n_blocks) * np.exp(spread * rng.normal(size=32 * n_blocks))).astype(np.float32)
    check(stored(tmp_path_factory.mktemp("sketch"), "q8_0", raw, "any"), x)


def structured(kind: str, rng: np.random.Generator) -> np.ndarray:
    """float32 (3000, 640) whose errors would have much in common if codes were simply rounded."""
    w = rng.normal(size=(3000, 640))
    if kind == "rounding one way":  # a step of 1: 3.01 would be 3.5, and row 1234, with 2.98 and 3.98, 2.5 and 3.5
        w = np.full((3000, 640), 3.01) + 1e-3 * w
        w[1234] = 2.98 + np.arange(640) % 2
        w[:, ::32] = 15.49
    elif kind == "one outlier in 32":
        w = np.abs(0.03 * w) + 0.02
        w[:, ::32] = 1
    elif kind == "few values":
        w = rng.choice([-1.0, 0.0, 0.4], (3000, 640))
    elif kind == "much in common":
        w = 0.05 * w + 3 * rng.normal(size=640)
    else:
        w[rng.random(w.shape) < 0.95] = 0
    return w.astype(np.float32)


@pytest.mark.parametrize("kind", ["rounding one way", "one outlier in 32", "few values", "much in common", "sparse"])
def test_weights_with_a_structure(kind: str, tmp_path: Path) -> None:
    """Activations of one sign too, which add up what errors have in common."""
    rng = np.random.default_rng(4)
    raw = structured(kind, rng).astype("<f2").view(np.uint8).reshape(3000, 640, 2)
    w = stored(tmp_path, "f16", raw, "structured")
    for x in (np.ones(640), np.abs(rng.normal(size=640)), rng.normal(size=640)):
        check(w, x.astype(np.float32), (1, 40))


@pytest.mark.parametrize("name", ["q8_0", "q6_k", "f16"])
def test_others_keep_the_value_of_the_sketch(name: str, tmp_path: Path) -> None:
    """With second terms of activations where the product itself has them. Three numbers for 32 columns are added up,
    none with more than 32 steps, each rounded before a few times: as often as ``harness.tolerance`` has it."""
    rng = np.random.default_rng(9)
    w, sketch = sketched(matrix(tmp_path, name, 2000, 2048, rng).weight())
    plan, x = Logits(w, 2), exact_activations(1, 2048, 2, rng)[0].astype(np.float64)
    whole, found = plan.run(x.astype(np.float32)), plan.run(x.astype(np.float32), 1)
    fam, step = families.family(w.family), np.abs(x).reshape(-1, 32).max(1) / 127
    if mode_of_one(w.family, ("2", "1+"), MACHINE.name) in fields.MIXED:
        peaks = step.reshape(-1, fam.block // 32).max(1) ** 2
        is_quiet = np.repeat(peaks <= families.loud(fam) * (step**2).sum(), fam.block)
        assert 0.1 < is_quiet.mean() < 1
        wide = np.repeat(step, 32)
        x = np.where(is_quiet, np.rint(x / wide) * wide, x)
    values, steps = weights_of(sketch, 2000)
    bound = (3 * 64 + 8) * EPS * 32 * (np.repeat(steps, 32, axis=1) @ np.abs(x))
    is_exact = found == whole
    assert is_exact.mean() < 0.9
    assert np.all(is_exact | (np.abs(found - values @ x) <= bound))


def test_most_panels_are_left_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    raw = rng.normal(size=(8192, 1024)).astype("<f2").view(np.uint8).reshape(8192, 1024, 2)
    w = stored(tmp_path, "f16", raw, "many")
    assert 0 < np.mean(check(w, rng.normal(size=1024).astype(np.float32), (1, 40))) < 0.1


def test_rows_that_are_none_are_not_counted(tmp_path: Path) -> None:
    """A panel's missing rows have the value 0, which here is larger than any."""
    rng = np.random.default_rng(6)
    raw = random_rows("q8_0", 200 * 16 + 1, 64, rng).reshape(-1, 2, 34)
    raw[:, :, 2:] |= 0x80
    raw[:, :, :2] = np.frombuffer(np.float16(0.5).tobytes(), np.uint8)
    exact = check(stored(tmp_path, "q8_0", raw, "none"), np.abs(rng.normal(size=64)).astype(np.float32), (3,))
    assert np.mean(exact) < 0.5


def test_numbers_that_are_none_are_seen(tmp_path: Path) -> None:
    raw = random_rows("q8_0", 64, 64, np.random.default_rng(7)).reshape(64, 2, 34)
    raw[40, 0, :2] = 0, 0x7E  # NaN
    plan = Logits(sketched(stored(tmp_path, "q8_0", raw, "nan"))[0], 2)
    whole, found = plan.run(np.ones(64, np.float32)), plan.run(np.ones(64, np.float32), 1)
    assert np.isnan(whole[40]) and np.isnan(found[40])
    assert np.nanargmax(found) == np.nanargmax(whole) and np.nanmax(found) == np.nanmax(whole)


def test_weights_so_large_that_their_squares_are_none(tmp_path: Path) -> None:
    """2**120 and more, in columns of which some are zero."""
    rng = np.random.default_rng(10)
    raw = (rng.normal(size=(500, 64)) * 2.0**120).astype("<f4").view(np.uint8).reshape(500, 64, 4)
    x = rng.normal(size=64).astype(np.float32)
    x[:32] = 0
    check(stored(tmp_path, "f32", raw, "large"), x, (1, 40))


def test_a_sketch_is_made_once(tmp_path: Path) -> None:
    w, sketch = sketched(matrix(tmp_path, "q6_k", 40, 256, np.random.default_rng(8)).weight())
    pack([w, w], team(2))
    data = sketch.data
    pack([w], team(1))
    assert sketch.data is data and describe(w.tensor).sketch is None
