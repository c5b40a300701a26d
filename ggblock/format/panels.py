"""Panels: 16 rows of blocks, interleaved so that one vector load feeds 16 rows.

A block is cut into units of 1, 2 or 4 bytes. A panel block holds the blocks of 16 rows at the same columns, unit by
unit: the unit at byte ``o`` of row ``r``'s block, ``u`` bytes wide, lies at ``16 * o + u * r``. Every byte of the
16 blocks appears once, so going to panels and back loses nothing, and the size does not change. Rows that are missing
from the last panel are zero bytes.

For types whose weights are floats a unit is one weight, and 8 columns make one panel block; missing columns are zero.

A row may end in a tail, the part of a super-block that it needs (`blocks.tails`): the last panel block holds 16 tails.
"""
from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..blocks import BlockType, by_name, tails

ROWS = 16

# type -> runs of units in a block: (bytes, unit width); float types: the width of one weight, 8 to a panel block
UNITS: dict[str, tuple[tuple[int, int], ...]] = {
    "f32": ((32, 4),), "f16": ((16, 2),), "bf16": ((16, 2),),
    "q4_0": ((2, 2), (16, 4)), "q4_1": ((4, 2), (16, 4)),
    "q5_0": ((2, 2), (20, 4)), "q5_1": ((4, 2), (20, 4)), "q8_0": ((2, 2), (32, 4)),
    "q2_k": ((16, 1), (64, 4), (4, 2)), "q3_k": ((96, 4), (12, 1), (2, 2)),
    "q4_k": ((4, 2), (12, 1), (128, 4)), "q5_k": ((4, 2), (12, 1), (160, 4)), "q6_k": ((192, 4), (16, 1), (2, 2)),
    "iq4_nl": ((2, 2), (16, 4)), "iq4_xs": ((4, 2), (4, 1), (128, 4)),
    "mxfp4": ((1, 1), (16, 4)), "nvfp4": ((4, 1), (32, 4)),
    "tq1_0": ((52, 4), (2, 2)), "tq2_0": ((64, 4), (2, 2)),
    "q1_0": ((2, 2), (16, 4)), "q2_0": ((2, 2), (16, 1)),
    # no types of files: what the engine makes of types without a kernel of their own (kernels/expanded32.py)
    "expanded32": ((4, 4), (32, 4)), "expanded16": ((8, 4), (32, 4)),
}


def block_bytes(name: str) -> int:
    """Bytes of one block (for float types: of 8 weights) of one row."""
    return sum(n for n, _ in UNITS[name])


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
def units(block: BlockType) -> tuple[tuple[int, int], ...]:
    """Runs of units of a block or a tail. A tail's fields have the widths of the whole block's, its codes always 4."""
    if not block.is_tail:
        return UNITS[block.name]
    whole, runs = by_name(block.name), list[tuple[int, int]]()
    for field in block.layout:
        of = whole.field(field.name)
        width = 4 if tails.holds_codes(whole, of) else _width(block.name, of.offset)
        if runs and runs[-1][1] == width:
            runs[-1] = (runs[-1][0] + field.n_bytes, width)
        else:
            runs.append((field.n_bytes, width))
    return tuple(runs)


def _width(name: str, byte: int) -> int:
    """The width of the unit that byte ``byte`` of a block belongs to."""
    for n_bytes, width in UNITS[name]:
        if byte < n_bytes:
            return width
        byte -= n_bytes
    raise IndexError(byte)


def runs(name: str, n_bytes: int) -> list[tuple[int, int, tuple[tuple[int, int], ...]]]:
    """A row of ``n_bytes`` as (number of blocks, bytes of one, its units): its whole blocks, then its tail.

    Raises ValueError for a length that no row has. Float rows must be filled up to 8 columns.
    """
    size = block_bytes(name)
    n_blocks, rest = divmod(n_bytes, size)
    found = [(n_blocks, size, UNITS[name])] if n_blocks or not rest else []
    return [*found, (1, rest, units(tails.tail_of_bytes(by_name(name), rest)))] if rest else found


def row_bytes(name: str, n_bytes: int) -> int:
    """Bytes that a row of ``n_bytes`` takes in a panel: float rows are filled up to 8 columns."""
    size = block_bytes(name)
    return -(-n_bytes // size) * size if name in FLOATS else n_bytes


def panel_bytes(name: str, n_bytes: int) -> int:
    """Bytes of a panel of 16 rows of ``n_bytes`` each."""
    return ROWS * row_bytes(name, n_bytes)


def fill(rows: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.uint8]:
    """``rows`` uint8 (n_rows, n_bytes) with zero bytes up to `row_bytes`."""
    missing = row_bytes(name, rows.shape[1]) - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, missing))) if missing else rows


def to_panels(rows: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.uint8]:
    """``rows`` uint8 (n_rows, n_bytes) to uint8 (n_panels, 16 * n_bytes), C order.

    The reference; the engine's kernel ``repack`` does the same faster. Float rows must be padded to 8 columns.
    """
    n_panels = -(-len(rows) // ROWS)
    out = []
    start = 0
    for n_blocks, size, of in runs(name, rows.shape[1]):
        end = start + n_blocks * size
        padded = np.zeros((n_panels * ROWS, n_blocks, size), np.uint8)
        padded[: len(rows)] = rows[:, start:end].reshape(-1, n_blocks, size)
        panels = padded.reshape(-1, ROWS, n_blocks, size).transpose(0, 2, 1, 3)      # panel, block, row, byte
        to = np.empty((n_panels, n_blocks, ROWS * size), np.uint8)
        at = 0
        for n, width in of:
            part = panels[..., at:at + n].reshape(*panels.shape[:3], n // width, width).swapaxes(2, 3)
            to[..., ROWS * at:ROWS * (at + n)] = part.reshape(*panels.shape[:2], ROWS * n)
            at += n
        out.append(to.reshape(n_panels, -1))
        start = end
    return out[0] if len(out) == 1 else np.concatenate(out, axis=1)


def from_panels(panels: npt.NDArray[np.uint8], name: str, n_rows: int) -> npt.NDArray[np.uint8]:
    """The inverse of ``to_panels``: uint8 (n_rows, n_bytes)."""
    n_panels, n_bytes = len(panels), panels.shape[1] // ROWS
    out = []
    start = 0
    for n_blocks, size, of in runs(name, n_bytes):
        end = start + n_blocks * size
        blocks = panels[:, ROWS * start : ROWS * end].reshape(n_panels, n_blocks, ROWS * size)
        rows = np.empty((n_panels, ROWS, n_blocks, size), np.uint8)
        at = 0
        for n, width in of:
            part = blocks[..., ROWS * at:ROWS * (at + n)].reshape(n_panels, n_blocks, n // width, ROWS, width)
            rows[..., at:at + n] = part.transpose(0, 3, 1, 2, 4).reshape(n_panels, ROWS, n_blocks, n)
            at += n
        out.append(rows.reshape(n_panels * ROWS, n_blocks * size)[:n_rows])
        start = end
    return out[0] if len(out) == 1 else np.concatenate(out, axis=1)
