"""IQ1, IQ2 and IQ3 written anew: every weight exactly, by a twin that goes weight by weight as the page says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ggblock import blocks
from ggblock.blocks import codebooks
from ggblock.engine.weights import pack
from ggblock.kernels.families import LEVELS, family, units
from ggblock.kernels.levels import tables

from .harness import Matrix, matrix, team

N_ROWS = 37


def rows_of(m: Matrix, n_threads: int) -> np.ndarray:
    """The rows that lie in the panels, (n_rows, n_blocks, bytes): unit by unit, without ``format.panels``."""
    w = m.weight()
    pack([w], team(n_threads))
    lying = w.data.reshape(w.n_panels, w.n_blocks, -1)
    out, at = np.zeros((w.n_panels, 16, w.n_blocks, w.plain_bytes), np.uint8), 0
    for first, n_bytes, width in units(w.family):
        for byte in range(first, first + n_bytes, width):
            of_rows = lying[:, :, at : at + 16 * width].reshape(w.n_panels, w.n_blocks, 16, width)
            out[:, :, :, byte : byte + width] = of_rows.transpose(0, 2, 1, 3)
            at += 16 * width
    assert at == lying.shape[2]
    return out.reshape(-1, w.n_blocks, w.plain_bytes)


def naive_weights(block: np.ndarray, name: str) -> list[np.float32]:
    """The weights of one block of ``kernels.levels``, by its page."""
    fam = family(name)
    half, out = block[:2].view(np.float16)[0].astype(np.float32), []
    first = 2 + 256 // fam.sub // 2
    for column in range(256):
        s, k, i = column // fam.sub, column % 32 // 4, column % 4
        n = int(block[2 + s // 2]) >> 4 * (s % 2) & 15
        of = block[first + column // 32 * 4 * fam.bits :].tolist()
        if fam.bits == 4:
            number = of[4 * (k % 4) + i] >> 4 * (k // 4) & 15
        elif k < 6:
            number = of[4 * (k // 2) + i] >> 3 * (k % 2) & 7
        else:
            number = of[8 * (k - 6) + i] >> 6 | (of[4 + i] >> k & 1) << 2
        level = fam.levels[number] - int(fam.zero)
        out.append(half * np.float32(fam.factor) * np.float32(2 * n + 1) * np.float32(level))
    return out


@pytest.mark.parametrize("name", LEVELS)
def test_every_weight_is_kept(name: str, tmp_path: Path) -> None:
    m = matrix(tmp_path, name, N_ROWS, 512, np.random.default_rng(len(name)))
    found, weights = rows_of(m, 2), m.tensor.dequantize()
    for row in (0, 15, 16, N_ROWS - 1):
        twin = [value for block in found[row] for value in naive_weights(block, name)]
        assert np.array_equal(np.array(twin, np.float32), weights[row])
    assert not found[N_ROWS:].any()
    assert np.array_equal(found, rows_of(m, 3))


@pytest.mark.parametrize("name", LEVELS)
def test_every_pattern_has_its_numbers(name: str) -> None:
    """A block holds at most 64 of up to 2,048 patterns."""
    grid, fam = getattr(codebooks, "IQ1" if name.startswith("iq1") else name.upper()).grid, family(name)
    numbers = tables(fam)[8 * 256 :].reshape(grid.shape)
    levels = np.array(fam.levels)[numbers] - int(fam.zero)
    if name in ("iq1_s", "iq1_m"):  # in eighths, shifted up by one of them
        grid = 8 * grid.astype(np.int64) + 1
    assert np.array_equal(levels, grid)


@pytest.mark.parametrize("name", LEVELS)
def test_panels_are_smaller_than_bytes(name: str) -> None:
    assert 8 * family(name).n_bytes / 256 < (4.3 if name.startswith("iq3") else 3.4)
    assert [o for first, n, _ in units(name) for o in range(first, first + n)] == list(range(family(name).n_bytes))
    assert name in blocks.REGISTRY
