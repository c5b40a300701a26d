"""Tensors of a file as the engine's kernels read them: panels of 16 rows.

IQ1, IQ2 and IQ3 are written anew when they are loaded (``kernels.levels``). A type that has no kernel of its own is
taken apart: into signed bytes with a float32 scale for 32 weights where its codes are such (``expanded32``), else into
float32. Nothing is rounded on the way, so the result is exactly what the type's decoder gives.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..blocks import BlockType
from ..format import panels
from ..format.reader import Tensor
from ..kernels import families, fields, levels
from ..simd.host import host
from .memory import Arena, address, aligned, buffer, floats
from .store import kernels
from .team import Team


@dataclass
class Sketch:
    """A rough matrix beside an output matrix of ``n_panels`` panels and ``n_cols`` columns (``kernels.sketch``);
    ``data`` is empty until that is packed. ``bits``: of a code. ``centers``: float32 (n_cols,)."""

    bits: int
    n_panels: int
    n_cols: int
    centers: npt.NDArray[np.float32]
    data: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8), repr=False)

    @property
    def n_blocks(self) -> int:
        return self.n_cols // 32

    def reach(self, in_floats: bool) -> float:
        """How many times the root of ``sum((d * x)**2)`` a row may be above its value: the page of ``kernels.sketch``
        says why. ``in_floats``: where activations are multiplied as floats."""
        rounding = 2.0**-26 * math.sqrt(self.n_cols**3)
        if in_floats:
            rounding = 3 * rounding + 2.0**-12 * math.sqrt(self.n_blocks)
        return families.DEVIATIONS / math.sqrt(12) + float(1 << self.bits) * rounding

    @property
    def panel_bytes(self) -> int:
        return panels.ROWS * self.n_blocks * families.sketch_bytes(self.bits)

    @property
    def n_bytes(self) -> int:
        return self.n_panels * self.panel_bytes

    def resolve(self) -> int:
        return address(self.data)


@dataclass
class Weight:
    """A matrix of ``n_rows`` by ``n_cols`` that will be packed; ``data`` is empty until then.

    ``family``: of its kernels; ``q4_k+128`` says that rows end in a tail of 128 weights, as only files in panels have
    them, ``q8_0_parted`` that codes lie in two parts (``kernels.sieve``); products may choose a form of the type that
    is faster (``families.FORMS``). ``n_blocks``: whole blocks a row.
    """

    tensor: Tensor
    family: str
    n_rows: int
    n_cols: int
    data: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8), repr=False)
    slice_blocks: int = 0  # whole blocks of a row in a slice: see ``slice_columns``
    by_rows: bool = False  # whether rows are read one by one too (``Builder.embed``): then they stay whole
    sketch: Sketch | None = None  # of an output matrix: made when it is packed

    def slice_columns(self, n_cols: int) -> None:
        """Has panels packed in slices of ``n_cols`` columns (a multiple of a block), all panels of one slice before
        those of the next, so that what one token multiplies a slice with stays in the first level of cache. For
        products in a mode of ``fields.SLICED``."""
        block = int(families.family(self.family).block)
        assert self.is_free and n_cols % block == 0
        self.slice_blocks = n_cols // block

    @property
    def is_free(self) -> bool:
        """Whether panels may still be packed in another order or form than the file's type has. Those of a file are
        used as they lie, but for types of which tokens are far faster in another."""
        if self.tensor.in_panels and (self.tensor.row.tail or self.tensor.type.name not in families.FORMS):
            return False
        return not (self.data.size or self.by_rows)

    @property
    def slices(self) -> list[tuple[int, int]]:
        """(first whole block, whole blocks) of the slices in which panels lie; one where rows are whole."""
        each = self.slice_blocks or max(1, self.n_blocks)
        return [(first, min(each, self.n_blocks - first)) for first in range(0, max(1, self.n_blocks), each)]

    @property
    def n_panels(self) -> int:
        return -(-self.n_rows // panels.ROWS)

    @property
    def n_blocks(self) -> int:
        size = int(families.family(self.family).block)
        return -(-self.n_cols // size) if self.is_float else self.n_cols // size

    @property
    def panel_bytes(self) -> int:
        if self.tensor.in_panels and self.tensor.row.tail:
            return panels.panel_bytes(self.tensor.type.name, self.tensor.row_bytes)
        return panels.ROWS * self.n_blocks * int(families.family(self.family).n_bytes)

    @property
    def second_bytes(self) -> int:
        """Of a panel in the second region, behind all panels; 0 where there is none."""
        return families.second_bytes(families.family(self.family)) * self.n_blocks

    @property
    def n_bytes(self) -> int:
        """Of all panels and the second region."""
        return self.n_panels * (self.panel_bytes + self.second_bytes)

    @property
    def is_parted(self) -> bool:
        return self.second_bytes > 0

    @property
    def rewriter(self) -> str:
        """The kernel that writes rows anew before they are packed, or ""."""
        return families.rewriter(self.plain)

    @property
    def plain(self) -> str:
        """The family of the panels that ``repack`` makes, before they are parted."""
        return self.tensor.type.name if self.is_parted else self.family

    @property
    def units(self) -> tuple[tuple[int, int, int], ...]:
        """Units of the blocks that ``repack`` takes: (first byte, bytes, width) of each run."""
        return families.units(self.plain)

    @property
    def plain_bytes(self) -> int:
        """Bytes of such a block."""
        return sum(n_bytes for _, n_bytes, _ in self.units)

    def unpacked_bytes(self, mode: str) -> int:
        """Of a panel as many tokens in ``mode`` read it (``kernels.unpacked``)."""
        return -(-self.n_cols // 32) * families.unit_bytes(families.family(self.family), host().machine, mode)

    @property
    def is_float(self) -> bool:
        return isinstance(families.family(self.family), families.FloatFamily)

    def resolve(self) -> int:
        return address(self.data)


_PIECE_BYTES = 8 << 20  # of packed weights that are made at a time
_CHUNK_WEIGHTS = 1 << 20  # weights taken apart at a time: some tens of MB of temporaries


def _family_of(block: BlockType) -> str:
    if block.name in families.FAMILIES:
        return block.name
    if block.unpack is None or block.sub_block_size % 32:
        return "f32"
    sample = block.unpack(np.zeros((1, block.block_bytes), np.uint8))
    return "f32" if sample.mins is not None or sample.codes.dtype != np.int8 else "expanded32"


def describe(tensor: Tensor, in_parts: bool = False) -> Weight:
    """How ``tensor`` will be held. A tensor of more than two dimensions is seen as rows.

    ``in_parts``: with its codes in two parts, if its type and its file allow that.
    """
    tail = tensor.row.tail
    if in_parts and not tensor.in_panels and tensor.type.name in families.PARTED:
        return Weight(tensor, families.PARTED[tensor.type.name], tensor.n_rows, tensor.n_cols)
    family = _family_of(tensor.type) if tail is None else f"{tensor.type.name}+{tail.block_size}"
    return Weight(tensor, family, tensor.n_rows, tensor.n_cols)


def sketch_of(w: Weight) -> Sketch | None:
    """A sketch that ``w`` may be given, or None where it is not worth one.

    What centers are off the middle by has to look drawn, not to be secret: it is the same for all matrices.
    """
    bits = families.sketch_bits(w.family)
    if w.n_cols % 32 or not bits:
        return None
    drawn = np.frombuffer(hashlib.shake_128(b"ggblock sketch").digest(2 * w.n_cols), "<u2")
    centers = floats(w.n_cols)
    centers[:] = 2 ** (bits - 1) - 1 + (drawn + np.float32(0.5)) / np.float32(65536)
    return Sketch(bits, w.n_panels, w.n_cols, centers)


def _expanded(rows: npt.NDArray[np.uint8], block: BlockType) -> npt.NDArray[np.uint8]:
    """Rows of blocks as rows of the blocks of ``expanded32``: uint8 (n_rows, n_cols / 32 * 36)."""
    assert block.unpack is not None
    parts = block.unpack(rows.reshape(-1, block.block_bytes))
    scales = np.repeat(parts.scales, block.sub_block_size // 32, axis=1)  # of larger sub-blocks: the same again
    out = np.empty((parts.codes.size // 32, 36), np.uint8)
    out[:, :4] = np.ascontiguousarray(scales, "<f4").view(np.uint8).reshape(-1, 4)
    out[:, 4:] = parts.codes.view(np.uint8).reshape(-1, 32)
    return out.reshape(len(rows), -1)


def pieces(w: Weight, n_rows: int, team: Team) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """(first row, rows as bytes) of what ``repack`` takes; first rows are multiples of a panel's.

    At most ``n_rows`` rows (whole panels) at a time where the type has a family of its own. Those that are written
    anew, by ``team``, last until the next.
    """
    block = w.tensor.type
    if w.plain == block.name or w.plain in families.FORM_UNITS:
        room = buffer(n_rows * w.n_blocks * w.plain_bytes if w.rewriter else 0)
        for first in range(0, w.n_rows, max(1, n_rows)):
            rows = w.tensor.raw_rows(first, min(w.n_rows, first + n_rows))
            yield first, _rewritten(w, rows, room, team) if w.rewriter else rows
        return
    step = max(1, _CHUNK_WEIGHTS // max(1, w.n_cols) // panels.ROWS) * panels.ROWS
    for first in range(0, w.n_rows, step):
        last = min(w.n_rows, first + step)
        if w.family == "f32":
            yield first, w.tensor.rows(first, last).view(np.uint8)
        else:
            yield first, _expanded(w.tensor.raw_rows(first, last), block)


def packing_kernels(weights: list[Weight]) -> list[str]:
    """The kernels that ``pack`` takes."""
    special = ["split"] if any(w.is_parted for w in weights) else []
    rewriters = dict.fromkeys(w.rewriter for w in weights if w.rewriter)
    sketched = dict.fromkeys(f"sketch/{w.family}/{w.sketch.bits}" for w in weights if w.sketch)
    return ["repack", *special, *rewriters, *sketched]


def _run(team: Team, kernel: str, *operands: int) -> None:
    """Runs one kernel on all threads of ``team``."""
    row = np.zeros(fields.ROW, np.int64)
    row[fields.KERNEL] = kernels([kernel])[kernel]
    row[fields.A : fields.A + len(operands)] = operands
    team.run(address(row), 1)


def _rewritten(
    w: Weight, rows: npt.NDArray[np.uint8], room: npt.NDArray[np.uint8], team: Team
) -> npt.NDArray[np.uint8]:
    """``rows`` of a file as ``w.rewriter`` writes them anew, in ``room``."""
    n_blocks = len(rows) * w.n_blocks
    tables = [address(levels.tables(families.family(w.plain)))] if w.plain in families.LEVELS else []
    _run(team, w.rewriter, address(rows), n_blocks, address(room), *tables)
    return room[: n_blocks * w.plain_bytes].reshape(len(rows), -1)


def repack(
    w: Weight, rows: npt.NDArray[np.uint8], to: int, team: Team, only: tuple[int, int] | None = None
) -> None:  # fmt: skip
    """Interleaves ``rows`` (from a multiple of a panel's on) at address ``to``, on all threads of ``team``: all blocks
    of them, or ``only`` those of a slice."""
    first, n_blocks = only or (0, w.n_blocks)
    size, units = w.plain_bytes, w.units
    table = np.zeros(1 + 3 * len(units), np.int64)  # eight zero bytes first: see the kernel
    table[1:] = np.array(units).reshape(-1)
    at, places = address(rows) + first * size, address(table) + 8
    _run(team, "repack", at, rows.shape[1], rows.shape[0], n_blocks, size, places, len(units), to)


def _split(w: Weight, first: int, rows: npt.NDArray[np.uint8], whole: npt.NDArray[np.uint8], team: Team) -> None:
    """Puts ``rows``, those of panel ``first`` and on, into both regions of ``w``, by way of panels of the plain type,
    which ``whole`` has room for."""
    n_blocks = -(-len(rows) // panels.ROWS) * w.n_blocks
    repack(w, rows, address(whole), team)
    to = address(w.data) + first * w.panel_bytes
    second = address(w.data) + w.n_panels * w.panel_bytes + first * w.second_bytes
    _run(team, "split", address(whole), n_blocks, to, second)


def _sketch(w: Weight, sketch: Sketch, team: Team) -> None:
    sketch.data = buffer(sketch.n_bytes)
    panels_of_w = w.resolve(), w.n_panels, w.n_blocks, w.panel_bytes
    name = f"sketch/{w.family}/{sketch.bits}"
    _run(team, name, *panels_of_w, address(sketch.centers), sketch.resolve(), sketch.panel_bytes)


def pack(weights: list[Weight], team: Team) -> None:
    """Fills ``data`` of every weight and sketch, on all threads of ``team``, one tensor after the other.

    Weights that lie in panels in their file are used where they are, unless another form or order of them was chosen.
    """
    for w in weights:
        is_as_in_file = families.split(w.family)[0] == w.tensor.type.name and len(w.slices) == 1
        if w.tensor.in_panels and is_as_in_file and not w.data.size:
            w.data = w.tensor.panels.reshape(-1)  # a GGB file is run as it lies, shared with other processes
    waiting = [w for w in weights if not w.data.size]
    arena = Arena(sum(aligned(w.n_bytes) for w in waiting))
    for w in waiting:
        w.data = arena.take(w.n_bytes)
        step = min(w.n_panels, max(1, _PIECE_BYTES // w.panel_bytes)) * panels.ROWS
        whole = buffer(step * w.n_blocks * w.plain_bytes if w.is_parted else 0)
        for first, rows in pieces(w, step, team):
            if w.is_parted:
                _split(w, first // panels.ROWS, rows, whole, team)
            else:
                for of_slice in w.slices:
                    before = w.n_panels * of_slice[0] + first // panels.ROWS * of_slice[1]  # blocks of panels
                    to = address(w.data) + before * panels.ROWS * w.plain_bytes
                    repack(w, rows, to, team, of_slice)
            w.tensor.release()  # of the file only a piece is in memory at a time, not a whole matrix
    for w in weights:
        if w.sketch and not w.sketch.data.size:
            _sketch(w, w.sketch, team)


def vector(tensor: Tensor, pad: int = 32) -> npt.NDArray[np.float32]:
    """A one-dimensional tensor as float32, padded with zeros to a multiple of ``pad``."""
    values = tensor.dequantize().reshape(-1)
    out = floats(-(-values.size // pad) * pad)
    out[: values.size] = values
    return out
