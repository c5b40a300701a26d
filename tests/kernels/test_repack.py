"""Panels: the kernel against the NumPy reference, and back; and the reference against a twin that goes unit by unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggblock import blocks
from ggblock.engine.weights import pack
from ggblock.format import panels

from .harness import Matrix, matrix, team

STORED = sorted(name for name in panels.UNITS if not name.startswith("expanded"))
FLOATS = ("f32", "f16", "bf16")


def columns(name: str, n_blocks: int) -> int:
    """Types of single weights get rows that fill no whole panel block of 8."""
    size = blocks.by_name(name).block_size
    return 8 * n_blocks - 3 if size == 1 else n_blocks * size


def packed(m: Matrix, n_threads: int) -> np.ndarray:
    w = m.weight()
    pack([w], team(n_threads))
    return w.data.reshape(w.n_panels, w.panel_bytes)


def padded_rows(m: Matrix, name: str) -> np.ndarray:
    """The stored rows, filled up with zero bytes to whole panel blocks."""
    size = panels.block_bytes(name)
    n_blocks = -(-m.tensor.row_bytes // size)
    rows = np.zeros((m.tensor.n_rows, n_blocks * size), np.uint8)
    rows[:, : m.tensor.row_bytes] = m.tensor.raw
    return rows


def naive_panels(rows: np.ndarray, name: str) -> np.ndarray:
    """One unit after the other, as the text of ``format.panels`` says."""
    size = panels.block_bytes(name)
    n_panels, n_blocks = -(-len(rows) // 16), rows.shape[1] // size
    out = np.zeros((n_panels, n_blocks * 16 * size), np.uint8)
    for row in range(len(rows)):
        for block in range(n_blocks):
            at = 0
            for first, n_bytes, width in panels.UNITS[name]:
                for o in range(first, first + n_bytes, width):
                    to = 16 * (block * size + at) + width * (row % 16)
                    out[row // 16, to : to + width] = rows[row, block * size + o : block * size + o + width]
                    at += width
    return out


@pytest.mark.parametrize("name", STORED)
def test_units_cover_a_block(name: str) -> None:
    """Units cut no field in two, add up to the block, and are as wide as the kernels can load."""
    block = blocks.by_name(name)
    if name in FLOATS:
        assert panels.UNITS[name] == ((0, 8 * block.block_bytes, block.block_bytes),)
        return
    assert panels.block_bytes(name) == block.block_bytes
    bytes_seen: list[int] = []
    for first, n_bytes, width in panels.UNITS[name]:
        assert width in (1, 2, 4) and n_bytes % width == 0
        bytes_seen += range(first, first + n_bytes)
        units = [range(o, o + width) for o in range(first, first + n_bytes, width)]
        cut = [field.name for field in block.layout for u in units if u[0] < field.offset <= u[-1]]
        assert cut == [], "a unit reaches from one field into the next"
    assert sorted(bytes_seen) == list(range(block.block_bytes)), "every byte once"


@pytest.mark.parametrize("name", STORED)
def test_reference_against_the_twin(name: str) -> None:
    size = panels.block_bytes(name)
    rows = np.random.default_rng(1).integers(0, 256, (19, 3 * size), dtype=np.uint8)
    assert np.array_equal(panels.to_panels(rows, name), naive_panels(rows, name))


@pytest.mark.parametrize("name", STORED)
@settings(max_examples=8, deadline=None)
@given(n_rows=st.integers(1, 70), n_blocks=st.integers(1, 4), n_threads=st.integers(1, 3), seed=st.integers(0, 1 << 30))
def test_kernel_against_the_reference(
    tmp_path_factory: pytest.TempPathFactory, name: str, n_rows: int, n_blocks: int, n_threads: int, seed: int
) -> None:
    m = matrix(tmp_path_factory.mktemp("repack"), name, n_rows, columns(name, n_blocks), np.random.default_rng(seed))
    rows, result = padded_rows(m, name), packed(m, n_threads)
    assert np.array_equal(result, panels.to_panels(rows, name))
    assert np.array_equal(panels.from_panels(result, name, n_rows), rows), "going back must lose nothing"


@pytest.mark.parametrize("name", ["q8_k", "q8_1"])
def test_expanded_types_keep_every_weight_exactly(name: str, tmp_path: Path) -> None:
    m = matrix(tmp_path, name, 37, 2 * blocks.by_name(name).block_size, np.random.default_rng(2))
    assert m.weight().family == "expanded32"
    cells = panels.from_panels(packed(m, 2), "expanded32", 37).reshape(37, -1, 36)
    scales = np.ascontiguousarray(cells[..., :4]).view("<f4")
    weights = (cells[..., 4:].view(np.int8) * scales).reshape(37, -1)
    assert weights.dtype == np.float32 and np.array_equal(weights, m.tensor.dequantize())


@pytest.mark.parametrize("name", ["f64", "i8", "i16", "i32", "i64"])
def test_other_types_become_float32(name: str, tmp_path: Path) -> None:
    m = matrix(tmp_path, name, 18, 27, np.random.default_rng(3))
    assert m.weight().family == "f32"
    weights = panels.from_panels(packed(m, 2), "f32", 18).view("<f4")
    assert np.array_equal(weights[:, :27], m.tensor.dequantize()) and not weights[:, 27:].any()
