"""One pass over a tensor: what every block holds, as small matrices, and sums over all weights."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..blocks import BlockType
from ..format import panels
from ..format.reader import Tensor

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Weights that are decoded at a time: 16 MB of float32.
CHUNK_WEIGHTS = 1 << 22
#: Columns that stand for a block where the type has no blocks of more than one weight.
PLAIN_GROUP = 32
#: The histogram of values has this many bins.
BINS = 48
#: A block is called saturated when this share of its codes is at the lowest or the highest level in the type.
SATURATED = 0.25

#: How many different codes a type can express, and the lowest and highest (as `Unpacked.codes` gives them).
LEVELS: dict[str, tuple[int, float, float]] = {
    "q1_0": (2, -1, 1), "q2_0": (4, -1, 2), "q4_0": (16, -8, 7), "q4_1": (16, 0, 15), "q5_0": (32, -16, 15),
    "q5_1": (32, 0, 31), "q8_0": (256, -127, 127), "q8_1": (256, -127, 127), "q8_k": (256, -127, 127),
    "q2_k": (4, 0, 3), "q3_k": (8, -4, 3), "q4_k": (16, 0, 15), "q5_k": (32, 0, 31), "q6_k": (64, -32, 31),
    "iq1_s": (6, -1.125, 1.125), "iq1_m": (6, -1.125, 1.125), "iq2_xxs": (6, -43, 43), "iq2_xs": (6, -43, 43),
    "iq2_s": (6, -43, 43), "iq3_xxs": (16, -62, 62), "iq3_s": (16, -15, 15), "iq4_nl": (16, -127, 113),
    "iq4_xs": (16, -127, 113), "tq1_0": (3, -1, 1), "tq2_0": (4, -1, 2), "mxfp4": (15, -12, 12), "nvfp4": (15, -12, 12),
}


class Rows(Protocol):
    """A tensor's rows as float32, from whatever file."""

    def rows(self, i0: int, i1: int) -> F32:
        """Rows ``i0`` to ``i1`` (exclusive): float32 (i1 - i0, n_cols)."""
        ...


def group_size(tensor: Tensor) -> int:
    """Columns that one cell of a map stands for: the block, or `PLAIN_GROUP` columns of plain numbers."""
    if tensor.type.block_size > 1:
        return tensor.type.block_size
    return PLAIN_GROUP if tensor.n_cols % PLAIN_GROUP == 0 else tensor.n_cols


@dataclass
class TensorMaps:
    """What `measure` finds. Maps are float32 (n_rows, groups a row); see `group_size`.

    ``widths``: weights of each group of a row, float64; of a ragged row the last has fewer than ``group``.
    ``scale``: magnitude of each sub-block's scale, (n_rows, sub-blocks a row); None for plain numbers. ``peak``:
    largest magnitude of each group. ``power``:
    mean square. ``error``: mean square of the difference from the reference (None without one). ``signal``: sum of
    squares of the reference. ``codes``: code to how often it occurs. Sums are float64 over finite weights.
    """

    group: int
    widths: F64
    n_weights: int
    scale: F32 | None
    peak: F32
    power: F32
    error: F32 | None
    codes: dict[float, int] = field(default_factory=dict)
    scales: Spread | None = None
    mins: Spread | None = None
    n_non_finite: int = 0
    n_zero: int = 0
    n_saturated: int = 0
    low: float = np.inf
    high: float = -np.inf
    total: float = 0.0
    squares: float = 0.0
    fourth: float = 0.0
    signal: float = 0.0
    largest_error: float = 0.0
    product: float = 0.0
    histogram: NDArray[np.int64] | None = None
    edges: F64 | None = None

    @property
    def mean(self) -> float:
        """Mean of the finite weights."""
        return self.total / max(1, self.n_weights - self.n_non_finite)

    @property
    def rms(self) -> float:
        """Root of the mean square."""
        return float(np.sqrt(self.squares / max(1, self.n_weights - self.n_non_finite)))

    @property
    def kurtosis(self) -> float:
        """Mean fourth power over the squared mean square: 3 for a normal distribution around 0."""
        n = max(1, self.n_weights - self.n_non_finite)
        return self.fourth / n / (self.squares / n) ** 2 if self.squares else 0.0

    @property
    def row_norms(self) -> F64:
        """Euclidean norm of each row: float64 (n_rows,)."""
        norms: F64 = np.sqrt(self.power.astype(np.float64) @ self.widths)
        return norms

    @property
    def nmse(self) -> float | None:
        """Sum of squared errors over the sum of squares of the reference; None without a reference."""
        if self.error is None:
            return None
        return float((self.error.astype(np.float64) @ self.widths).sum() / self.signal) if self.signal else 0.0


@dataclass
class Spread:
    """Statistics of a set of scales or mins."""

    n: int = 0
    n_zero: int = 0
    n_negative: int = 0
    n_non_finite: int = 0
    low: float = np.inf
    high: float = -np.inf
    magnitude: float = 0.0

    def add(self, values: F32) -> None:
        """Count ``values`` in."""
        finite = values[np.isfinite(values)]
        self.n += values.size
        self.n_non_finite += values.size - finite.size
        self.n_zero += int((finite == 0).sum())
        self.n_negative += int((finite < 0).sum())
        if finite.size:
            self.low, self.high = min(self.low, float(finite.min())), max(self.high, float(finite.max()))
            self.magnitude += float(np.abs(finite).sum(dtype=np.float64))

    @property
    def mean_magnitude(self) -> float:
        """Mean of the absolute values."""
        return self.magnitude / max(1, self.n - self.n_non_finite)


def measure(tensor: Tensor, reference: Rows | None = None, progress: Callable[[int, int], None] | None = None
            ) -> TensorMaps:
    """Read a whole tensor once (twice for the histogram of values) and describe it.

    ``reference``: rows of the same shape, to measure errors against. ``progress``: called with (rows done, rows).
    """
    group = group_size(tensor)
    shape = (tensor.n_rows, -(-tensor.n_cols // group))
    widths = np.full(shape[1], float(group))
    widths[-1] = tensor.n_cols - (shape[1] - 1) * group
    block, row = tensor.type, tensor.row
    n_scales = sum(row.type_of(i).n_sub_blocks for i in range(row.n_blocks)) if block.unpack else 0
    out = TensorMaps(
        group, widths, tensor.n_weights,
        np.zeros((tensor.n_rows, n_scales), np.float32) if block.unpack else None,
        np.zeros(shape, np.float32), np.zeros(shape, np.float32),
        np.zeros(shape, np.float32) if reference is not None else None,
    )
    counts = np.zeros(256, np.int64)
    floats: dict[float, int] = {}
    for i0, i1 in row_chunks(tensor):
        weights = tensor.rows(i0, i1)
        _weights(out, i0, i1, weights)
        if block.unpack is not None:
            column = 0
            for kind, part in row.parts(tensor.raw_rows(i0, i1)):
                column = _codes(out, kind, i0, i1, column, part, counts, floats)
        if reference is not None:
            _errors(out, i0, i1, weights, reference.rows(i0, i1))
        if progress is not None:
            progress(i1, tensor.n_rows)
    if counts.any():
        # Codes were counted as bytes; those of signed types above 127 are negative.
        signed = LEVELS[block.name][1] < 0
        floats = {float(c - 256 if signed and c > 127 else c): int(counts[c]) for c in np.flatnonzero(counts)}
    out.codes = dict(sorted(floats.items()))
    _histogram(out, tensor)
    return out


def row_chunks(tensor: Tensor) -> Iterator[tuple[int, int]]:
    """Spans of rows of at most `CHUNK_WEIGHTS` weights; whole panels, where as much fits."""
    step = max(1, CHUNK_WEIGHTS // max(1, tensor.n_cols))
    step = step // panels.ROWS * panels.ROWS or step
    for i0 in range(0, tensor.n_rows, step):
        yield i0, min(tensor.n_rows, i0 + step)


def _weights(out: TensorMaps, i0: int, i1: int, weights: F32) -> None:
    finite = np.isfinite(weights)
    if not finite.all():
        out.n_non_finite += int(weights.size - finite.sum())
        weights = np.where(finite, weights, np.float32(0))
    grouped = _grouped(out, weights)
    out.low, out.high = min(out.low, float(weights.min())), max(out.high, float(weights.max()))
    peak = np.abs(grouped).max(axis=2)
    with np.errstate(over="ignore"):
        squares = np.square(grouped, dtype=np.float64)
        out.peak[i0:i1], out.power[i0:i1] = peak, squares.sum(axis=2) / out.widths
        out.total += float(weights.sum(dtype=np.float64))
        out.squares += float(squares.sum())
        out.fourth += float(np.square(squares).sum())
    out.n_zero += int((peak == 0).sum())


def _grouped(out: TensorMaps, values: NDArray[Any]) -> NDArray[Any]:
    """(n, n_cols) as (n, groups, group), the last group filled up with zeros."""
    missing = out.widths.size * out.group - values.shape[1]
    return (np.pad(values, ((0, 0), (0, missing))) if missing else values).reshape(len(values), -1, out.group)


def _codes(out: TensorMaps, block: BlockType, i0: int, i1: int, column: int, raw: NDArray[np.uint8],
           counts: NDArray[np.int64], floats: dict[float, int]) -> int:  # fmt: skip
    """Count in blocks of one type; ``column``: of their first scale in a row. Returns the column after the last."""
    assert block.unpack is not None and out.scale is not None
    with np.errstate(all="ignore"):
        parts = block.unpack(np.ascontiguousarray(raw).reshape(-1, block.block_bytes))
        magnitude = np.abs(parts.scales).reshape(i1 - i0, -1)
    end = column + magnitude.shape[1]
    out.scale[i0:i1, column:end] = np.where(np.isfinite(magnitude), magnitude, 0)
    out.scales = out.scales or Spread()
    out.scales.add(parts.scales)
    if parts.mins is not None:
        out.mins = out.mins or Spread()
        out.mins.add(parts.mins)
    codes = parts.codes.reshape(-1, block.block_size)
    _, low, high = LEVELS[block.name]
    extreme = (codes <= low) | (codes >= high)
    if LEVELS[block.name][0] > 4:  # with two, three or four levels every block would be
        out.n_saturated += int((extreme.mean(axis=1) >= SATURATED).sum())
    if codes.dtype == np.float32:
        for value, n in zip(*np.unique(codes, return_counts=True), strict=True):
            floats[float(value)] = floats.get(float(value), 0) + int(n)
    else:
        counts += np.bincount(np.ascontiguousarray(codes).view(np.uint8).ravel(), minlength=256)
    return end


def _errors(out: TensorMaps, i0: int, i1: int, weights: F32, wanted: F32) -> None:
    assert out.error is not None
    with np.errstate(all="ignore"):
        difference = weights.astype(np.float64) - wanted
        squares = np.where(np.isfinite(difference), np.square(difference), np.inf)
        out.error[i0:i1] = _grouped(out, squares).sum(axis=2) / out.widths
        out.signal += float(np.square(wanted, dtype=np.float64).sum())
        out.product += float((weights.astype(np.float64) * wanted).sum())
        out.largest_error = max(out.largest_error, float(np.sqrt(squares.max())))


def _histogram(out: TensorMaps, tensor: Tensor) -> None:
    if out.n_non_finite == out.n_weights or not np.isfinite([out.low, out.high]).all():
        return
    # float64, or the edges would be float32 as the weights are, and those of a narrow range all the same
    low, high = np.float64(out.low), np.float64(out.high)
    if low == high:
        spread = max(1.0, abs(low) / 2)
        low, high = low - spread, high + spread
    edges = np.linspace(low, high, BINS + 1)
    counts = np.zeros(BINS, np.int64)
    for i0, i1 in row_chunks(tensor):
        weights: Any = tensor.rows(i0, i1)
        if out.n_non_finite:
            weights = weights[np.isfinite(weights)]
        counts += np.histogram(weights, BINS, (low, high))[0]
    out.histogram, out.edges = counts, edges
