"""The matrix product of every block type against float64, with activations that need no rounding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ggblock
from ggblock import blocks
from ggblock.engine.plan import Builder, tabled_blocks
from ggblock.engine.weights import describe
from ggblock.format.writer import GgufWriter, TensorSpec
from ggblock.kernels.families import form_of, mode_of_many, mode_of_one
from ggblock.kernels.fields import MOST_LEVELS, MOST_SUM, SLICED, TABLED
from ggblock.kernels.matmul import OWN_TILES
from ggblock.simd.host import PAIR_MACHINES, host

from .harness import (
    EPS,
    FOURS,
    MACHINE,
    MODES,
    TYPES,
    Matrix,
    Product,
    activations_of,
    assert_close,
    exact_activations,
    is_alike,
    is_paired,
    levels_of,
    matrix,
    rounding,
    team,
    tolerance,
)

#: One type for each way in which codes are raised, scaled and added up.
SOME = ("q4_0", "q4_1", "q5_0", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "mxfp4", "nvfp4", "q1_0")

TILE_EDGES = (1, 3, 4, 5, 7, 8, 9, 16, 17, 37)  # tiles have 4 or 8 tokens


def columns_of(name: str) -> tuple[int, int]:
    """One block, and a row whose blocks are no round number; types of single weights: odd lengths."""
    size = blocks.by_name(name).block_size
    return (37, 200) if size == 1 else (size, max(3 * size, 288 // size * size))


def in_floats(name: str, mode: str) -> bool:
    return mode == "floats" or blocks.by_name(name).unpack is None


def exact_product(m: Matrix, x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) @ m.exact.T


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("mode", MODES)
def test_units_give_back_the_weights(mode: str, name: str, tmp_path: Path) -> None:
    """An activation that is large in one place and 0 elsewhere picks one weight: every code, scale and offset is seen.

    All other terms are exactly zero, so only the six roundings of ``tolerance`` and one addition are left.
    """
    rng = np.random.default_rng(len(name))
    m = matrix(tmp_path, name, 21, columns_of(name)[1], rng)
    w, n_cols = m.weight(), m.exact.shape[1]
    product = Product(w, MODES[mode], 2, n_cols)
    powers = np.diag(np.float32(2.0) ** rng.integers(-6, 6, n_cols).astype(np.float32))
    bound = 7 * EPS * powers.astype(np.float64) @ m.size.T
    levels = levels_of(w.family, MODES[mode], n_cols, n_cols)
    x = powers * np.float32(levels)
    assert_close(product.run(x), exact_product(m, x), levels[:, None] * bound + rounding(w, m, MODES[mode], x))
    x = powers * 127
    one_at_a_time = np.concatenate([product.run(row[None]) for row in x])
    assert_close(one_at_a_time, exact_product(m, x), 127 * bound)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("mode", MODES)
def test_product_of_odd_sizes_on_any_number_of_threads(mode: str, name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(len(name) + 1)
    modes = MODES[mode]
    for n_rows, n_cols in ((1, columns_of(name)[0]), (16, columns_of(name)[0]), (67, columns_of(name)[1])):
        m = matrix(tmp_path, name, n_rows, n_cols, rng)
        w = m.weight()
        products = [Product(w, modes, n_threads, 40) for n_threads in (1, 2, 3)]
        for n_tokens in TILE_EDGES if n_rows == 67 else (1, 9):
            x = activations_of(w, modes, n_tokens, rng)
            results = [p.run(x) for p in products]
            bound = tolerance(m, x, in_floats(name, mode)) + rounding(w, m, modes, x)
            assert_close(results[0], exact_product(m, x), bound)
            for other in results[1:]:
                assert np.array_equal(results[0], other), f"{n_tokens} tokens depend on the number of threads"


@pytest.mark.parametrize("name", ["q4_1", "q6_k", "f16"])
def test_tiles_of_a_thread_alone_are_as_any(name: str, tmp_path: Path) -> None:
    """Two threads have tiles of their own and leave others to all; one, and three where tiles have 8 tokens, do not.
    49 tiles or 98 and a part of one. The same to the bit as a few tokens at a time."""
    rng = np.random.default_rng(7)
    n_tokens, n_cols = 395, columns_of(name)[1]
    assert n_tokens // MACHINE.tile_tokens // 2 >= OWN_TILES
    w = matrix(tmp_path, name, 167, n_cols, rng).weight()
    x = rng.standard_normal((n_tokens, n_cols)).astype(np.float32)
    products = [Product(w, MODES["two_mixed"], n_threads, 400) for n_threads in (1, 2, 3)]
    results = [product.run(x) for product in products]
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])
    for first in range(0, 384, 32):
        assert np.array_equal(products[2].run(x[first : first + 32]), results[0][first : first + 32])


@pytest.mark.parametrize("name", ["q2_k", "q3_k", "tq1_0", "tq2_0", "q1_0", "q2_0", "q4_k", "q6_k", "q5_0", "mxfp4"])
def test_one_token_takes_second_terms_where_activations_are_large(name: str, tmp_path: Path) -> None:
    """One block in twelve has nearly all of the rounding error: there both terms count, elsewhere the first alone, and
    sums of activations are those of the terms that count. Tables have sums of both terms, rounded. Types that are not
    coarse have two terms everywhere on most machines."""
    rng = np.random.default_rng(9)
    size = blocks.by_name(name).block_size
    m = matrix(tmp_path, name, 37, 12 * size, rng)
    w = m.weight()
    product = Product(w, MODES["two_mixed"], 2, 1)
    x = exact_activations(1, 12 * size, 2, rng)
    step = np.abs(x.astype(np.float64)).reshape(-1, 32).max(1).repeat(32) / 127
    large = np.zeros(12 * size, bool)
    large[5 * size : 6 * size] = True
    x = np.where(large, x / step, x / step / 512).astype(np.float32)  # all are powers of two
    counted = np.where(large, x, np.rint(x * 512) / 512)
    assert (counted != x).sum() > size
    mode = mode_of_one(w.family, MODES["two_mixed"], MACHINE.name)
    counts = mode in (*SLICED, "2", "2w")
    bound = tolerance(m, x, False) + rounding(w, m, MODES["two_mixed"], np.where(large, 0, x))
    assert_close(product.run(x), exact_product(m, x if counts else counted), bound)


@pytest.mark.parametrize("name", SOME)
def test_many_tokens_set_four_columns_apart_where_they_are_large(name: str, tmp_path: Path) -> None:
    """In one block in twelve, of 32 columns four are up to 128 times as large as the others: all are still exact."""
    rng = np.random.default_rng(11)
    size = max(32, blocks.by_name(name).block_size)
    m = matrix(tmp_path, name, 37, 12 * size, rng)
    levels = levels_of(m.weight().family, MODES["two_mixed"], 9, 12 * size)
    alike = is_alike(m.weight().family)
    x = exact_activations(9, 12 * size, 1, rng, levels, alike).reshape(9, -1, 32)
    x /= np.abs(x).max(2, keepdims=True) / MOST_LEVELS
    for k in range(5 * size // 32, 6 * size // 32):
        group = FOURS[rng.integers(8)]
        most = 128 * levels[group[0]]
        x[:, k, group] = rng.integers(-most, most + 1, (9, 4))
        x[:, k, rng.choice(group)] = rng.choice([-most, most, 9999], 9)
    x = x.reshape(9, -1)
    for some in (x, x[:5], x[:3]):  # whole tiles of tokens, and not, and halves
        product = Product(m.weight(), MODES["two_mixed"], 2, 9)
        assert_close(product.run(some), exact_product(m, some), tolerance(m, some, False))


@pytest.mark.parametrize("codes", [0x00, 0x77, 0x80, 0xFF])
@pytest.mark.parametrize("name", [*SOME, "tq1_0"])
def test_no_sum_leaves_its_lane(name: str, codes: int, tmp_path: Path) -> None:
    """The largest codes and the smallest with the largest activations, of one sign and of both."""
    rng = np.random.default_rng(12)
    n_cols = 2 * max(32, blocks.by_name(name).block_size)
    m = matrix(tmp_path, name, 16, n_cols, rng, codes)
    w = m.weight()
    x = np.full((5, n_cols), 127, np.float32)
    x[1] = -127
    x[2, ::2], x[3, ::4], x[4, 2::4] = -127, -127, -127
    x[4] += np.float32(127 / 256) * np.sign(x[4])  # one token has two terms
    product = Product(w, MODES["two_mixed"], 2, 5)
    levels = levels_of(w.family, MODES["two_mixed"], 4, n_cols)
    if is_alike(w.family):  # of more than codes may add up to all are rounded, by half of a step at most
        rounded = 16 * 127 / (MOST_SUM - 16) / 2 * np.abs(m.exact).sum(1)
        assert_close(product.run(x[:4]), exact_product(m, x[:4]), tolerance(m, x[:4], False) + rounded)
        # 7 and 9 of 16 columns add up to what they may
        levels = np.where(np.arange(n_cols) % 16 < 7, MOST_LEVELS, (MOST_SUM - 16 - 7 * MOST_LEVELS) // 9)
    many = np.sign(x[:4]) * np.float32(levels)
    assert_close(product.run(many), exact_product(m, many), tolerance(m, many, False))
    mode = mode_of_one(w.family, MODES["two_mixed"], MACHINE.name)
    for row in x if mode in ("2", "2w") else x[:4]:
        bound = tolerance(m, row[None], False) + rounding(w, m, MODES["two_mixed"], row[None])
        assert_close(product.run(row[None]), exact_product(m, row[None]), bound)


@pytest.mark.skipif(MACHINE.name not in PAIR_MACHINES, reason="this machine multiplies in one way")
@pytest.mark.parametrize("name", ["q4_0", "q4_1", "q2_k", "q5_k", "q6_k"])
def test_many_tokens_in_the_way_of_other_cpus(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPUs of one machine differ in whether fewer dot products pay (``kernels.winograd``): the other way."""
    other = replace(host(), cpu="znver5" if host().pairs else "znver4")
    here = is_paired(name)
    monkeypatch.setattr("ggblock.engine.plan.mode_of_many", lambda *of: mode_of_many(*of[:2], other))
    assert is_paired(name) != here
    test_units_give_back_the_weights("two_mixed", name, tmp_path)
    test_product_of_odd_sizes_on_any_number_of_threads("two_mixed", name, tmp_path)
    test_many_tokens_set_four_columns_apart_where_they_are_large(name, tmp_path)
    for codes in (0x00, 0x77, 0x80, 0xFF):
        test_no_sum_leaves_its_lane(name, codes, tmp_path)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name, n_cols", [("q1_0", 4096), ("q1_0", 8192), ("q1_0", 11008), ("tq1_0", 5120)])
def test_rows_that_are_too_wide_for_tables(name: str, n_cols: int, biased: bool, tmp_path: Path) -> None:
    """On machines that have tables they are packed in slices that all take tables, the last narrower than the others;
    with a bias whole, where the first columns take them, or none. Elsewhere all rows are alike."""
    mode = {"q1_0": "1t", "tq1_0": "1d"}[name]
    assert tabled_blocks(mode, n_cols) < n_cols // TABLED[mode][1]
    rng = np.random.default_rng(n_cols)
    m = matrix(tmp_path, name, 35, n_cols, rng)
    w, modes = m.weight(), MODES["two_mixed"]
    bias = np.zeros(48, np.float32) if biased else None
    product = Product(w, modes, 2, 32, accumulate=True, bias=bias)
    in_slices = mode_of_one(form_of(name, modes, MACHINE.name), modes, MACHINE.name) == mode and not biased
    assert len(w.slices) == (-(-n_cols // 2048) if in_slices else 1)
    for n_tokens in (1, 21):
        x = activations_of(w, modes, n_tokens, rng)
        bound = tolerance(m, x, False) + rounding(w, m, modes, x) + 2 * EPS * (np.abs(x) @ m.size.T + 7)
        assert_close(product.run(x, before=7.0), exact_product(m, x) + 7.0, bound)


@pytest.mark.parametrize("n_cols", [2048, 4096])
def test_threads_that_share_a_gate_s_work_share_its_tables(n_cols: int, tmp_path: Path) -> None:
    """Results of one token are the same to the bit for one thread, which does all, and for several."""
    rng = np.random.default_rng(n_cols)
    m = matrix(tmp_path, "q1_0", 40, n_cols, rng)
    values, results = rng.standard_normal((2, n_cols)), []
    for n_threads in (1, 2, 3):
        builder = Builder(MODES["two_mixed"], n_threads, 1)
        gate, up, y = builder.rows(n_cols), builder.rows(n_cols), builder.rows(40)
        gate.data[0, :n_cols], up.data[0, :n_cols] = values
        activations = builder.gate("silu", gate, up)
        assert activations.split == (n_threads > 1)
        builder.matmul(activations, m.weight(), y)
        builder.barrier()
        plan = builder.finish(team(n_threads))
        plan.run(1, 0)
        results.append(y.data[0, :40].copy())
    x = values[0] / (1 + np.exp(-values[0])) * values[1]
    assert np.abs(results[0] - m.exact @ x).max() < 0.05 * np.abs(m.exact @ x).max()
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


@pytest.mark.parametrize("name", ["q8_0", "q4_1", "f16"])
@pytest.mark.parametrize("mode", MODES)
def test_accumulate_and_bias(mode: str, name: str, tmp_path: Path) -> None:
    """``y += x @ w.T + bias``: two more roundings, of sums that are no larger than all magnitudes together."""
    rng = np.random.default_rng(5)
    m = matrix(tmp_path, name, 35, 96, rng)
    bias = np.zeros(64, np.float32)
    bias[:35] = rng.standard_normal(35)
    w = m.weight()
    product = Product(w, MODES[mode], 2, 16, accumulate=True, bias=bias)
    for n_tokens in (1, 11):
        x = exact_activations(n_tokens, 96, 1, rng, levels_of(w.family, MODES[mode], n_tokens, 96))
        expected = exact_product(m, x)
        bound = tolerance(m, x, in_floats(name, mode)) + rounding(w, m, MODES[mode], x)
        bound += 2 * EPS * (np.abs(x) @ m.size.T + 7 + np.abs(bias[:35]))
        assert_close(product.run(x, before=7.0), expected + bias[:35] + 7.0, bound)


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_a_weight_that_is_no_number_shows(name: str, tmp_path: Path) -> None:
    """NaN and infinity reach the results of their rows, of one token and of many, and no others."""
    rng = np.random.default_rng(7)
    raw = rng.standard_normal((20, 96)).astype("<f4")
    raw[3, 40], raw[17, 95] = np.nan, np.inf
    halves = raw.astype("<f2").view(np.uint8) if name == "f16" else (raw.view("<u4") >> 16).astype("<u2").view(np.uint8)
    with GgufWriter(tmp_path / "m.gguf", {"general.architecture": "none"}, [TensorSpec("w", name, (20, 96))]) as writer:
        writer.write("w", halves)
    with ggblock.open(tmp_path / "m.gguf") as file:
        product = Product(describe(file.tensors["w"]), MODES["two_mixed"], 1, 16)
        for n_tokens in (1, 11):
            found = np.isfinite(product.run(rng.standard_normal((n_tokens, 96)).astype(np.float32)))
            assert not found[:, [3, 17]].any() and np.delete(found, [3, 17], axis=1).all()


@pytest.mark.parametrize("name", ["q4_k", "iq2_xs", "f32", "i8"])
def test_a_wide_matrix_is_packed_in_pieces(name: str, tmp_path: Path) -> None:
    """More weights than are taken apart at a time when a file is loaded."""
    rng = np.random.default_rng(6)
    m = matrix(tmp_path, name, 1030, 1280, rng)
    w = m.weight()
    x = activations_of(w, MODES["two_mixed"], 2, rng)
    result = Product(w, MODES["two_mixed"], 2, 8).run(x)
    assert_close(result, exact_product(m, x), tolerance(m, x, in_floats(name, "two_mixed")))
