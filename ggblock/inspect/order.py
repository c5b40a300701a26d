"""Where the bytes of one block lie in a file.

The GGUF profile stores row after row, block after block (`rows`); the GGB profile interleaves the blocks of 16 rows
(`in_panels`, after ``spec/panels.md``). `place` takes the one that fits a tensor. A profile with another order adds a
function here; the block view asks for nothing but a `Placement`.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import errors
from ..blocks.base import U8, BlockType
from ..format import panels
from ..format.reader import Tensor


@dataclass(frozen=True)
class Placement:
    """One block of a tensor.

    ``row``, ``block``: which one (of how many a row: ``blocks_per_row``). ``data``: uint8 (block_bytes,), in the order
    of the type's layout. ``offsets``: place of each byte in ``path``. ``n_weights``: weights of the block that the row
    uses, from the first. ``first_column``: the column of its first weight. ``order``: name of the byte order.
    ``seams``: bytes of the block at which a run of the order's table begins.
    """

    path: str
    row: int
    block: int
    blocks_per_row: int
    data: U8
    offsets: Sequence[int]
    n_weights: int
    order: str = "rows"
    first_column: int = 0
    seams: frozenset[int] = frozenset()

    @property
    def is_contiguous(self) -> bool:
        """Whether the bytes lie one after another."""
        return isinstance(self.offsets, range) and self.offsets.step == 1

    @property
    def span(self) -> tuple[int, int]:
        """Places of the first byte and of the one after the last; bytes of other blocks may lie between them."""
        return min(self.offsets), max(self.offsets) + 1

    @property
    def runs(self) -> list[Run]:
        """The bytes as runs of units that lie at equal distances, in the order of the block's bytes; cut at seams."""
        runs: list[Run] = []
        for first, width, start in _units(self.offsets):
            last = runs[-1] if runs else None
            if last and last.width == width and first not in self.seams:
                step = start - last.start - (last.count - 1) * last.step
                if last.count == 1 or step == last.step:
                    runs[-1] = Run(last.first, last.count + 1, width, last.start, step)
                    continue
            runs.append(Run(first, 1, width, start, 0))
        return runs


@dataclass(frozen=True)
class Run:
    """``count`` units of ``width`` bytes each, from byte ``first`` of a block: the first at ``start`` of the file, the
    others ``step`` bytes from each other."""

    first: int
    count: int
    width: int
    start: int
    step: int


def _units(offsets: Sequence[int]) -> list[tuple[int, int, int]]:
    """Stretches that lie together: (first byte of the block, bytes, place of the first)."""
    units: list[tuple[int, int, int]] = []
    for byte, offset in enumerate(offsets):
        if units and offset == units[-1][2] + units[-1][1]:
            first, width, start = units[-1]
            units[-1] = (first, width + 1, start)
        else:
            units.append((byte, 1, offset))
    return units


def place(tensor: Tensor, row: int | None, block: int) -> Placement:
    """Block ``block`` of row ``row`` of a tensor; without a row, of the whole tensor, rows one after another.

    Raises `errors.SettingError` when there is no such row or block. Reads that block alone.
    """
    return in_panels(tensor, row, block) if tensor.in_panels else rows(tensor, row, block)


def in_panels(tensor: Tensor, row: int | None, block: int) -> Placement:
    """`place` for a tensor in panels: ``spec/panels.md`` says where each unit of a block lies."""
    row, block, per_row = _numbers(tensor, row, block)
    name, size, kind = tensor.type.name, tensor.type.block_bytes, tensor.row.type_of(block)
    panel, lane = divmod(row, panels.ROWS)
    # Of float types 8 weights, each a block of its own, share a panel block; the tail of a ragged row has its own.
    unit_bytes, places, widths = panels.block_bytes(name), panels.places(kind), panels.widths(kind)
    within = []
    for byte in range(block * size, block * size + kind.block_bytes):
        column, at = divmod(byte, unit_bytes)
        within.append(panels.ROWS * column * unit_bytes + places[at] + widths[at] * lane)
    data = np.array(tensor.panels[panel, within])
    first = tensor.offset_bytes + panel * panels.panel_bytes(name, tensor.row_bytes)
    return Placement(
        tensor.path, row, block, per_row, data, [first + each for each in within], kind.block_size,
        "panels", block * tensor.type.block_size, _seams(kind),
    )


def _seams(kind: BlockType) -> frozenset[int]:
    return frozenset(place for first, _, _, *second in panels.table(kind) for place in (first, *second))


def rows(tensor: Tensor, row: int | None, block: int) -> Placement:
    """`place` for a tensor stored row after row."""
    row, block, per_row = _numbers(tensor, row, block)
    size = tensor.type.block_bytes
    raw = tensor.raw_rows(row, row + 1)[0, block * size : (block + 1) * size]
    start = tensor.offset_bytes + row * tensor.row_bytes + block * size
    return Placement(
        tensor.path, row, block, per_row, np.array(raw), range(start, start + size), tensor.type.block_size,
        first_column=block * tensor.type.block_size,
    )


def _numbers(tensor: Tensor, row: int | None, block: int) -> tuple[int, int, int]:
    """The row, the block in it, and the blocks of a row, after they were checked."""
    per_row = tensor.row.n_blocks
    if row is None:
        _check(tensor, "block", block, tensor.n_rows * per_row)
        row, block = divmod(block, per_row)
    else:
        _check(tensor, "row", row, tensor.n_rows)
        _check(tensor, "block", block, per_row)
    return row, block, per_row


def _check(tensor: Tensor, what: str, number: int, n: int) -> None:
    if not 0 <= number < n:
        raise errors.SettingError(
            f"no such {what}", file=tensor.path, where=tensor.name, expected=f"0 to {n - 1}", actual=number
        )
