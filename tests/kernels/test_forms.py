"""Forms in which the engine packs a type for products by tables: their bytes against twins that go weight by weight."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ggblock
from ggblock.engine.weights import describe, pack
from ggblock.format import GgufWriter, TensorSpec
from ggblock.kernels.families import FORM_UNITS, family, form_of

from .harness import MACHINE, MODES, Matrix, Product, matrix, team

N_ROWS = 37


def packed(m: Matrix, form: str, n_threads: int) -> np.ndarray:
    """Rows of blocks of a form, as they lie in its panels: uint8 (n_rows, n_blocks, bytes)."""
    w = m.weight()
    w.family = form
    pack([w], team(n_threads))
    units = w.data.reshape(w.n_panels, w.n_blocks, -1, 16)[:, :, 2:]  # after the halves all are of one byte
    halves = w.data.reshape(w.n_panels, w.n_blocks, -1)[:, :, :32].reshape(w.n_panels, w.n_blocks, 16, 2)
    rows = np.concatenate([halves, units.transpose(0, 1, 3, 2)], 3).transpose(0, 2, 1, 3)
    return rows.reshape(-1, w.n_blocks, w.plain_bytes)


def naive_threes(weights: np.ndarray) -> list[int]:
    """The bytes behind the half of a block of 256 weights of -1, 0 and 1, as ``kernels.tq1_0_threes`` says."""

    def number(columns: list[int], i: int) -> tuple[int, bool]:
        value = sum(power * int(weights[c]) for power, c in zip((9, 3, 1), columns))
        return abs(value), value < 0 or (value == 0 and i % 2 == 1)

    out = []
    for part in range(5):
        numbers = [number([48 * part + 16 * k + i for k in range(3)], i) for i in range(16)]
        signs = [0, 0]
        for j in range(8):
            top = 7 - 4 * (j % 4 // 2) - 2 * (j // 4)
            signs[j % 2] |= numbers[j][1] << top | numbers[8 + j][1] << top - 1
        out += signs + [numbers[j][0] | numbers[8 + j][0] << 4 for j in range(8)]
    numbers = [number([240 + 4 * k + i for k in range(3)], i) for i in range(4)]
    out += [numbers[0][0] | numbers[2][0] << 4, numbers[1][0] | numbers[3][0] << 4]
    out.append(sum(is_negative << 7 - i for i, (_, is_negative) in enumerate(numbers)))
    a, b, c, d = (int(w) + 1 for w in weights[252:])
    return [*out, (3 * a + b) | (3 * c + d) << 4]


def test_threes_are_those_of_the_page(tmp_path: Path) -> None:
    m = matrix(tmp_path, "tq1_0", N_ROWS, 768, np.random.default_rng(4))
    raw = m.tensor.raw.reshape(N_ROWS, 3, 54)
    halves = raw[:, :, 52:].copy().view("<f2").astype(np.float64)
    weights = np.rint(m.exact.reshape(N_ROWS, 3, 256) / np.where(halves, halves, 1))
    for n_threads in (1, 3):
        found = packed(m, "tq1_0_threes", n_threads)
        assert not found[N_ROWS:].any()
        np.testing.assert_array_equal(found[:N_ROWS, :, :2], raw[:, :, 52:])
        for row in range(N_ROWS):
            for k in range(3):
                assert found[row, k, 2:].tolist() == naive_threes(weights[row, k])


def test_signs_lie_place_by_place(tmp_path: Path) -> None:
    m = matrix(tmp_path, "q1_0", N_ROWS, 384, np.random.default_rng(5))
    found = packed(m, "q1_0_places", 2)
    np.testing.assert_array_equal(found[:N_ROWS], m.tensor.raw.reshape(N_ROWS, 3, 18))
    assert not found[N_ROWS:].any()


@pytest.mark.parametrize("form", FORM_UNITS)
def test_units_of_a_form_are_its_block(form: str) -> None:
    covered = [o for first, n_bytes, _ in FORM_UNITS[form] for o in range(first, first + n_bytes)]
    assert covered == list(range(family(form).n_bytes))


@pytest.mark.parametrize("name, n_cols", [("tq1_0", 512), ("tq1_0", 5120), ("q1_0", 4096), ("q4_0", 64)])
def test_a_file_in_panels_is_multiplied_as_its_rows_are(name: str, n_cols: int, tmp_path: Path) -> None:
    """Only types that have another form or slices here are packed anew; the others are used as they lie."""
    rng, modes = np.random.default_rng(6), MODES["two_mixed"]
    m = matrix(tmp_path, name, N_ROWS, n_cols, rng)
    with GgufWriter(tmp_path / "w.ggb", {}, [TensorSpec("w", name, (N_ROWS, n_cols), True)], checksums=True) as writer:
        writer.write("w", m.tensor.raw)
    rows, panels = m.weight(), describe(ggblock.open(tmp_path / "w.ggb").tensors["w"])
    x = rng.standard_normal((9, n_cols)).astype(np.float32)
    for n_tokens in (1, 9):
        results = [Product(w, modes, 2, 9).run(x[:n_tokens]) for w in (rows, panels)]
        assert np.array_equal(*results)
    assert panels.family == rows.family == form_of(name, modes, MACHINE.name) and panels.slices == rows.slices
    is_mapped = np.shares_memory(panels.data, panels.tensor.panels)
    assert is_mapped == (panels.family == name and len(panels.slices) == 1)
