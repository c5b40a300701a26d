"""Panels: 16 rows of blocks, interleaved so that one vector load feeds 16 rows.

A block is cut into units of 1, 2 or 4 bytes. A panel block holds the blocks of 16 rows at the same columns, unit by
unit, in an order that is the type's: a unit of ``u`` bytes takes ``16 * u`` of the panel block, row ``r``'s at
``u * r`` of them. Every byte of the 16 blocks appears once, so going to panels and back loses nothing, and the size
does not change. Rows that are missing from the last panel are zero bytes.

The order is that in which the blocks' weights are decoded, first what many of them share: a program that multiplies
with panels then reads memory strictly forward, which is what processors prefetch best (``tools/bench/NOTES.md``).

For types whose weights are floats a unit is one weight, and 8 columns make one panel block; missing columns are zero.

A row may end in a tail, the part of a super-block that it needs (`blocks.tails`): the last panel block holds 16 tails.
"""
from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..blocks import BlockType, by_name, tails
from ..blocks.base import U8

ROWS = 16

#: A run of units: the byte of the block at which it begins, its bytes, the width of a unit.
Run = tuple[int, int, int]
#: Such runs, or units of two places by turns: the fourth number is the byte of the second; the bytes are those of one.
Runs = tuple[Run | tuple[int, int, int, int], ...]


def _in_order(*runs: tuple[int, int]) -> tuple[Run, ...]:
    """Runs of (bytes, width) in the order of the block's bytes."""
    starts = itertools.accumulate((n for n, _ in runs), initial=0)
    return tuple((start, n, width) for start, (n, width) in zip(starts, runs, strict=False))


def _one_by_one(runs: Runs) -> tuple[Run, ...]:
    """The same without turns: their units follow one another as runs of a single unit."""
    out = list[Run]()
    for first, n_bytes, width, *second in runs:
        if second:
            out += [(place + i, width, width) for i in range(0, n_bytes, width) for place in (first, *second)]
        else:
            out.append((first, n_bytes, width))
    return tuple(out)


#: Runs of units of each type, in the order of a panel block, as ``spec/panels.toml`` has them. Float types: 8 weights.
TABLE: dict[str, Runs] = {
    "f32": _in_order((32, 4)), "f16": _in_order((16, 2)), "bf16": _in_order((16, 2)),
    "q4_0": _in_order((2, 2), (16, 4)), "q4_1": _in_order((4, 2), (16, 4)),
    "q5_0": _in_order((2, 2), (20, 4)), "q5_1": _in_order((4, 2), (20, 4)), "q8_0": _in_order((2, 2), (32, 4)),
    "q2_k": ((80, 4, 2), (0, 16, 1), (16, 64, 4)),
    "q3_k": ((108, 2, 2), (96, 12, 1), (0, 32, 4, 32), (64, 32, 4)),
    "q4_k": _in_order((4, 2), (12, 1), (128, 4)),
    "q5_k": ((0, 4, 2), (4, 12, 1), (16, 32, 4, 48), (80, 96, 4)),
    "q6_k": ((208, 2, 2), (192, 16, 1), (0, 32, 4, 128), (32, 32, 4), (64, 32, 4, 160), (96, 32, 4)),
    "iq4_nl": _in_order((2, 2), (16, 4)), "iq4_xs": _in_order((4, 2), (4, 1), (128, 4)),
    "mxfp4": _in_order((1, 1), (16, 4)), "nvfp4": _in_order((4, 1), (32, 4)),
    "tq1_0": ((52, 2, 2), (0, 52, 4)), "tq2_0": ((64, 2, 2), (0, 64, 4)),
    "q1_0": _in_order((2, 2), (16, 4)), "q2_0": _in_order((2, 2), (16, 1)),
    # no types of files: what the engine makes of types without a kernel of their own (kernels/expanded32.py)
    "expanded32": _in_order((4, 4), (32, 4)),
}

#: The same without turns.
UNITS: dict[str, tuple[Run, ...]] = {name: _one_by_one(runs) for name, runs in TABLE.items()}


def block_bytes(name: str) -> int:
    """Bytes of one block (for float types: of 8 weights) of one row."""
    return sum(n for _, n, _ in UNITS[name])


#: Types whose rows are filled up to 8 columns.
FLOATS = frozenset({"f32", "f16", "bf16"})

#: Private type ids of tensors in panels: this plus ggml's number. Far from any id that another reader knows.
FIRST_ID = 0x47470000


def type_id(ggml_id: int) -> int:
    """The private id of a type in panels."""
    return FIRST_ID + ggml_id


def plain_id(number: int) -> int | None:
    """ggml's number of the type with the private id ``number``; None where ``number`` is no such id."""
    return number - FIRST_ID if FIRST_ID <= number < FIRST_ID + 0x10000 else None


@lru_cache(maxsize=256)
def units(block: BlockType) -> tuple[Run, ...]:
    """Runs of units of a block or a tail, without turns."""
    return _one_by_one(table(block))


@lru_cache(maxsize=256)
def table(block: BlockType) -> Runs:
    """Runs of units of a block or a tail, as the specification has them. A tail's lie in the order of its bytes; its
    fields have the widths of the whole block's, its codes always 4."""
    if not block.is_tail:
        return TABLE[block.name]
    whole, runs = by_name(block.name), list[tuple[int, int]]()
    for field in block.layout:
        of = whole.field(field.name)
        width = 4 if tails.holds_codes(whole, of) else widths(whole)[of.offset]
        if runs and runs[-1][1] == width:
            runs[-1] = (runs[-1][0] + field.n_bytes, width)
        else:
            runs.append((field.n_bytes, width))
    return _in_order(*runs)


@lru_cache(maxsize=256)
def places(block: BlockType) -> tuple[int, ...]:
    """For each byte of a block or a tail (of float types: of 8 weights), its place in the panel block in row 0; in row
    ``r`` it lies ``r`` times its unit's width further on."""
    found, at = dict[int, int](), 0
    for first, n_bytes, width in units(block):
        found |= {first + i: ROWS * (at + i // width * width) + i % width for i in range(n_bytes)}
        at += n_bytes
    return tuple(found[byte] for byte in range(at))


@lru_cache(maxsize=256)
def widths(block: BlockType) -> tuple[int, ...]:
    """The width of the unit that each byte belongs to."""
    found = {first + i: width for first, n_bytes, width in units(block) for i in range(n_bytes)}
    return tuple(found[byte] for byte in range(len(found)))


def runs(name: str, n_bytes: int) -> list[tuple[int, int, Runs]]:
    """A row of ``n_bytes`` as (number of blocks, bytes of one, its runs): its whole blocks, then its tail.

    Raises ValueError for a length that no row has. Float rows must be filled up to 8 columns.
    """
    size = block_bytes(name)
    n_blocks, rest = divmod(n_bytes, size)
    found: list[tuple[int, int, Runs]] = [(n_blocks, size, TABLE[name])] if n_blocks or not rest else []
    return [*found, (1, rest, table(tails.tail_of_bytes(by_name(name), rest)))] if rest else found


def row_bytes(name: str, n_bytes: int) -> int:
    """Bytes that a row of ``n_bytes`` takes in a panel: float rows are filled up to 8 columns."""
    size = block_bytes(name)
    return -(-n_bytes // size) * size if name in FLOATS else n_bytes


def panel_bytes(name: str, n_bytes: int) -> int:
    """Bytes of a panel of 16 rows of ``n_bytes`` each."""
    return ROWS * row_bytes(name, n_bytes)


def fill(rows: U8, name: str) -> U8:
    """``rows`` uint8 (n_rows, n_bytes) with zero bytes up to `row_bytes`."""
    missing = row_bytes(name, rows.shape[1]) - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, missing))) if missing else rows


#: So many bytes of panels are made at a time: they stay in a core's second-level cache while run after run is copied.
CHUNK_BYTES = 1 << 18


def _pairs(rows: U8, panels: U8, of: Runs) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """For each run ``of`` blocks, its units in ``rows`` and in ``panels``: two views (panel, block, unit, row).

    ``rows`` (n_panels, 16, n_blocks, size), ``panels`` (n_panels, n_blocks, 16 * size), last dimension contiguous.
    """
    at = 0
    for first, n_bytes, width, *second in of:
        places = (first, *second)
        end = at + ROWS * n_bytes * len(places)
        cells = panels[..., at:end].view(f"u{width}").reshape(*panels.shape[:2], -1, ROWS)
        for turn, place in enumerate(places):
            part = rows[..., place : place + n_bytes].view(f"u{width}")
            yield part.transpose(0, 2, 3, 1), cells[..., turn :: len(places), :]
        at = end


def to_panels(rows: U8, name: str) -> U8:
    """``rows`` uint8 (n_rows, n_bytes) to uint8 (n_panels, 16 * n_bytes), C order.

    The reference; the engine's kernel ``repack`` does the same faster. Float rows must be padded to 8 columns.
    """
    n_panels, n_bytes = -(-len(rows) // ROWS), rows.shape[1]
    out = np.empty((n_panels, ROWS * n_bytes), np.uint8)
    step = max(1, CHUNK_BYTES // (ROWS * n_bytes or 1))
    for p0 in range(0, n_panels, step):
        part = rows[ROWS * p0 : ROWS * (p0 + step)]
        if len(part) % ROWS:
            part = np.concatenate([part, np.zeros((-len(part) % ROWS, n_bytes), np.uint8)])
        start = 0
        for n_blocks, size, of in runs(name, n_bytes):
            end = start + n_blocks * size
            n = len(part) // ROWS
            source = part[:, start:end].reshape(n, ROWS, n_blocks, size)
            target = out[p0 : p0 + n, ROWS * start : ROWS * end].reshape(n, n_blocks, ROWS * size)
            for cells, place in _pairs(source, target, of):
                place[...] = cells
            start = end
    return out


def from_panels(panels: U8, name: str, n_rows: int) -> U8:
    """The inverse of ``to_panels``: uint8 (n_rows, n_bytes)."""
    n_panels, n_bytes = len(panels), panels.shape[1] // ROWS
    out = np.empty((n_panels, ROWS, n_bytes), np.uint8)
    step = max(1, CHUNK_BYTES // (ROWS * n_bytes or 1))
    for p0 in range(0, n_panels, step):
        start = 0
        for n_blocks, size, of in runs(name, n_bytes):
            end = start + n_blocks * size
            n = min(step, n_panels - p0)
            target = out[p0 : p0 + n, :, start:end].reshape(n, ROWS, n_blocks, size)
            source = panels[p0 : p0 + n, ROWS * start : ROWS * end].reshape(n, n_blocks, ROWS * size)
            for cells, place in _pairs(target, source, of):
                cells[...] = place
            start = end
    return out.reshape(n_panels * ROWS, n_bytes)[:n_rows]
