"""A tensor in words and numbers: layout, scales, codes, values, rows, outliers, and errors against a reference."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..blocks import BlockType
from ..format.reader import Tensor
from . import words
from .maps import LEVELS, SATURATED, Rows, Spread, TensorMaps, measure

#: Blocks and rows that are named.
NAMED = 8
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class BlockRank:
    """A block that stands out: its row, its place in the row, and by how much (see `TensorReport`)."""

    row: int
    block: int
    value: float


@dataclass(frozen=True)
class TensorReport:
    """A tensor described. ``outliers``: blocks with the largest magnitude, as a multiple of the tensor's RMS.

    ``worst_blocks``, ``worst_rows``: largest mean squared error against the reference, over the reference's mean
    square; empty without one.
    """

    tensor: Tensor
    maps: TensorMaps
    outliers: tuple[BlockRank, ...]
    worst_blocks: tuple[BlockRank, ...]
    worst_rows: tuple[BlockRank, ...]

    @property
    def snr_db(self) -> float | None:
        """Signal over error in decibels; infinite for no error, None without a reference."""
        nmse = self.maps.nmse
        if nmse is None:
            return None
        return float("inf") if nmse == 0 else -10 * float(np.log10(nmse))


def tensor_report(tensor: Tensor, reference: Rows | None = None, progress: Any = None) -> TensorReport:
    """Describe a tensor; reads all of it. ``reference`` and ``progress`` as for `maps.measure`."""
    maps = measure(tensor, reference, progress)
    scale = maps.rms or 1.0
    worst_blocks: tuple[BlockRank, ...] = ()
    worst_rows: tuple[BlockRank, ...] = ()
    if maps.error is not None:
        unit = maps.signal / maps.n_weights or 1.0
        worst_blocks = _largest(maps.error / unit)
        by_row = maps.error.astype(np.float64) @ maps.widths / tensor.n_cols / unit
        order = np.argsort(-by_row, kind="stable")[:NAMED]
        worst_rows = tuple(BlockRank(int(r), 0, float(by_row[r])) for r in order if by_row[r] > 0)
    return TensorReport(tensor, maps, _largest(maps.peak / scale), worst_blocks, worst_rows)


def _largest(values: Any) -> tuple[BlockRank, ...]:
    flat = np.asarray(values).ravel()
    n = min(NAMED, flat.size)
    top = np.argpartition(-flat, n - 1)[:n]
    top = top[np.argsort(-flat[top], kind="stable")]
    width = values.shape[1]
    return tuple(BlockRank(int(i) // width, int(i) % width, float(flat[i])) for i in top if flat[i] > 0)


def report_document(report: TensorReport) -> dict[str, Any]:
    """A tensor as JSON: ``spec/json/tensor.schema.json``."""
    t, m = report.tensor, report.maps
    norms = m.row_norms
    document: dict[str, Any] = {
        "schema": "ggblock/tensor/1",
        "name": words.json_text(t.name), "type": t.type.name, "shape": list(t.shape), "n_weights": t.n_weights,
        "n_bytes": t.n_bytes, "offset_bytes": t.offset_bytes, "path": words.json_text(t.path),
        "bits_per_weight": 8 * t.n_bytes / t.n_weights, "order": "panels" if t.in_panels else "rows",
        "layout": _layout(t.type),
        "tail": None if t.row.tail is None else {
            "block_size": t.row.tail.block_size, "block_bytes": t.row.tail.block_bytes, "layout": _layout(t.row.tail),
        },
        "scales": _spread(m.scales), "mins": _spread(m.mins),
        "codes": [{"code": words.json_number(code), "count": n} for code, n in m.codes.items()],
        "levels": LEVELS[t.type.name][0] if t.type.name in LEVELS else None,
        "group": m.group, "n_groups": m.peak.size, "n_zero": m.n_zero, "n_saturated": m.n_saturated,
        "values": {
            "low": words.json_number(m.low), "high": words.json_number(m.high), "mean": words.json_number(m.mean),
            "rms": words.json_number(m.rms), "kurtosis": words.json_number(m.kurtosis),
            "n_non_finite": m.n_non_finite,
            "edges": [] if m.edges is None else [float(e) for e in m.edges],
            "histogram": [] if m.histogram is None else [int(n) for n in m.histogram],
        },
        "row_norms": {
            "low": words.json_number(float(norms.min())), "median": words.json_number(float(np.median(norms))),
            "high": words.json_number(float(norms.max())), "low_row": int(norms.argmin()),
            "high_row": int(norms.argmax()),
        },
        "outliers": [_rank(each) for each in report.outliers],
        "error": None,
    }  # fmt: skip
    if m.error is not None:
        assert m.nmse is not None and report.snr_db is not None
        document["error"] = {
            "nmse": words.json_number(m.nmse), "snr_db": words.json_number(report.snr_db),
            "largest": words.json_number(m.largest_error),
            "worst_blocks": [_rank(each) for each in report.worst_blocks],
            "worst_rows": [{"row": each.row, "value": words.json_number(each.value)} for each in report.worst_rows],
        }  # fmt: skip
    return document


def _layout(block: BlockType) -> list[dict[str, Any]]:
    return [
        {"name": f.name, "offset": f.offset, "n_bytes": f.n_bytes, "count": f.count, "bits": f.bits, "kind": f.kind,
         "plane": f.plane, "meaning": f.meaning}
        for f in block.layout
    ]  # fmt: skip


def _rank(each: BlockRank) -> dict[str, Any]:
    return {"row": each.row, "block": each.block, "value": words.json_number(each.value)}


def _spread(spread: Spread | None) -> dict[str, Any] | None:
    if spread is None:
        return None
    return {
        "n": spread.n, "n_zero": spread.n_zero, "n_negative": spread.n_negative,
        "n_non_finite": spread.n_non_finite, "low": words.json_number(spread.low),
        "high": words.json_number(spread.high), "mean_magnitude": words.json_number(spread.mean_magnitude),
    }  # fmt: skip


def lines(report: TensorReport) -> Iterator[str]:
    """A tensor as text."""
    t, m = report.tensor, report.maps
    yield (
        f"{words.readable(t.name)}: {t.type.label}, {words.shape(t.shape)} (rows first), "
        f"{words.count(t.n_weights)} weights"
    )
    interleaved = ", 16 rows interleaved in a panel" if t.in_panels else ""
    yield f"{t.n_bytes} bytes at {t.offset_bytes} of {words.readable(t.path)}; {t.row_bytes} bytes a row{interleaved}"
    yield ""
    yield f"layout of a block of {words.plural(t.type.block_size, 'weight')}, {t.type.bits_per_weight:g} bits each"
    for f in t.type.layout:
        yield f"  bytes {f.offset:>3} to {f.end - 1:<3}  {f.name:<9} {f.count:>4} x {f.kind:<7} {f.meaning}"
    if t.row.tail is not None:
        yield (
            f"the last of the {t.row.n_blocks} blocks of a row is a tail of {t.row.tail.block_size} weights in "
            f"{t.row.tail.block_bytes} bytes:"
        )
        for f in t.row.tail.layout:
            yield f"  bytes {f.offset:>3} to {f.end - 1:<3}  {f.name:<9} {f.count:>4} x {f.kind:<7} {f.meaning}"
    yield ""
    for name, spread in (("scales", m.scales), ("mins", m.mins)):
        if spread is not None:
            yield (
                f"{name:<8} {spread.n}, {words.real(spread.low)} to {words.real(spread.high)}, mean magnitude "
                f"{words.real(spread.mean_magnitude)}; {spread.n_zero} zero, {spread.n_negative} negative"
                + (f", {spread.n_non_finite} NOT FINITE" if spread.n_non_finite else "")
            )
    if m.codes:
        yield from _codes(report)
    yield (
        f"values   {words.real(m.low)} to {words.real(m.high)}, mean {words.real(m.mean)}, RMS {words.real(m.rms)}, "
        f"kurtosis {m.kurtosis:.2f} (normal: 3)" + (f"; {m.n_non_finite} NOT FINITE" if m.n_non_finite else "")
    )
    if m.histogram is not None and m.edges is not None:
        yield f"         {words.real(m.low)} {sparkline(m.histogram)} {words.real(m.high)}"
    norms = m.row_norms
    yield (
        f"rows     norms {words.real(norms.min())} (row {int(norms.argmin())}) to {words.real(norms.max())} "
        f"(row {int(norms.argmax())}), median {words.real(float(np.median(norms)))}"
    )
    yield ""
    yield f"outliers: blocks of {m.group} with the largest magnitude, in multiples of the RMS"
    yield "  " + (_ranks(report.outliers) or "none")
    if m.error is not None:
        yield from _errors(report)


def _codes(report: TensorReport) -> Iterator[str]:
    m, (possible, low, high) = report.maps, LEVELS[report.tensor.type.name]
    used = f"{len(m.codes)} of {possible} levels used"
    share = sum(n for code, n in m.codes.items() if code <= low or code >= high) / max(1, m.n_weights)
    saturated = f"; {m.n_saturated} saturated ({100 * SATURATED:.0f}% of the codes at the ends)" if possible > 4 else ""
    yield (
        f"codes    {used}; {100 * share:.2f}% at the lowest or highest; of {m.peak.size} blocks {m.n_zero} all zero"
        f"{saturated}"
    )
    if possible <= 64:
        codes = list(m.codes)
        yield f"         {codes[0]:g} {sparkline(list(m.codes.values()))} {codes[-1]:g}"


def _errors(report: TensorReport) -> Iterator[str]:
    m = report.maps
    yield ""
    yield (
        f"against the reference: signal over error {report.snr_db:.2f} dB, normalised squared error "
        f"{words.real(m.nmse or 0.0)}, largest error {words.real(m.largest_error)}"
    )
    yield "  worst blocks (squared error over the mean square): " + (_ranks(report.worst_blocks) or "none")
    rows = ", ".join(f"row {each.row}: {each.value:.3g}" for each in report.worst_rows)
    yield "  worst rows: " + (rows or "none")


def _ranks(ranks: tuple[BlockRank, ...]) -> str:
    return ", ".join(f"row {each.row} block {each.block}: {each.value:.3g}" for each in ranks)


def sparkline(counts: Any) -> str:
    """Counts as a row of bars; what is not zero has at least the lowest one."""
    values = np.asarray(counts, np.float64)
    top = values.max() or 1
    return "".join(" " if v == 0 else _BARS[min(7, int(8 * v / top))] for v in values)
