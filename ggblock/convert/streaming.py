"""Carry out a plan: stream rows from the mapped source through the encoder into the writer.

Memory stays at some tens of megabytes whatever the model: rows pass in pieces of `CHUNK_WEIGHTS`, and the pages of a
tensor that is done are given back. Nothing appears under the target's name before everything is on the disk.
"""
from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import blocks, errors
from ..format import panels
from ..format.writer import GgufWriter
from . import original
from .plan import Plan, Step
from .sources import SourceTensor

#: Weights a piece: 16 MB of float32, large enough for the encoder's threads.
CHUNK_WEIGHTS = 1 << 22
#: Weights a piece that are decoded again to measure the error.
SAMPLE_WEIGHTS = 1 << 15
#: The largest float16; also the largest weight of types with shared scales.
MAX_HALF = 65504.0

#: Called with (tensor's name, bytes of weights done, bytes in all) after every piece.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Written:
    """What became of one tensor.

    ``error``: root of the squared error over the squared weights, measured on a sample of its rows; None where bytes
    were copied. ``replaced``: weights that were not finite and could not be kept.
    """

    step: Step
    error: float | None
    replaced: int


@dataclass(frozen=True)
class Result:
    """A finished conversion: the plan, what became of each tensor, and the time it took."""

    plan: Plan
    tensors: tuple[Written, ...]
    elapsed_s: float


def execute(plan: Plan, progress: Progress | None = None, notify: Callable[[str], None] | None = None) -> Result:
    """Write the files of ``plan``. ``notify`` hears a line when quantizers must be compiled first.

    Raises `errors.NonFiniteWeight` (unless the options allow it), `errors.DiskFull`, `errors.CannotWrite`, and
    `errors.Truncated` when a source file has shrunk. After any exception no output file is there, and an older one
    under the same name is as it was.
    """
    from .encode import prepare  # here and below: what only reads checkpoints does without the engine

    start = time.perf_counter()
    total = sum(step.n_bytes for step in plan.steps)
    done: list[Written] = []
    prepare({step.type.name for step in plan.steps if not step.copies and step.type.unpack is not None}, notify)
    writers = plan.writers()
    with _Together(writers) as together:
        n_bytes = 0
        for part, writer in enumerate(writers):
            for step in (s for s in plan.steps if s.part == part):
                _still_there(step)

                def report(rows: int, step: Step = step, before: int = n_bytes) -> None:
                    if progress is not None:
                        progress(step.name, before + min(step.n_bytes, rows * step.row.n_bytes), total)

                written = _write(plan, step, writer, report)
                n_bytes += step.n_bytes
                done.append(written)
        together.finish()
    return Result(plan, tuple(done), time.perf_counter() - start)


class _Together:
    """Several writers that become files together, or not at all."""

    def __init__(self, writers: list[GgufWriter]) -> None:
        self._writers = writers
        self._stack = ExitStack()
        self._finished: list[str] = []

    def __enter__(self) -> _Together:
        with ExitStack() as on_error:
            for writer in self._writers:
                on_error.enter_context(writer)
            self._stack = on_error.pop_all()
        return self

    def finish(self) -> None:
        for writer in self._writers:
            new = not os.path.exists(writer.path)
            writer.finish()
            if new:
                self._finished.append(writer.path)
        self._finished.clear()

    def __exit__(self, *fault: Any) -> None:
        try:
            self._stack.__exit__(*fault)
        finally:
            for path in self._finished:  # a later part failed: half a model helps nobody
                with suppress(OSError):
                    os.unlink(path)


def _still_there(step: Step) -> None:
    """Refuse a source file that has lost bytes since it was mapped: touching them would end the process."""
    if step.source is None:
        return
    try:
        size = os.stat(step.source.path).st_size
    except OSError as fault:
        raise errors.CannotRead(
            f"the source has vanished: {fault.strerror or fault}", file=step.source.path, where=step.name
        ) from None
    needed = step.source.end_bytes
    if size < needed:
        raise errors.Truncated(
            "the source has become shorter", file=step.source.path, where=step.name, expected=f"{needed} bytes",
            actual=size,
        )


def _write(plan: Plan, step: Step, writer: GgufWriter, report: Callable[[int], None]) -> Written:
    measure = _Error(step)
    importance = plan.options.importance.get(step.name)
    replaced = 0
    per_chunk = max(1, CHUNK_WEIGHTS // step.n_cols)
    if step.in_panels:
        per_chunk = -(-per_chunk // panels.ROWS) * panels.ROWS
    for i0 in range(0, step.n_rows, per_chunk):
        i1 = min(step.n_rows, i0 + per_chunk)
        if step.copies and step.source is not None:
            raw = step.source.raw_rows(i0, i1)
            if step.type.unpack is None and step.type.name in ("f32", "f16", "bf16", "f64"):
                _checked(plan, step, step.source.rows(i0, i1), i0)
        else:
            rows = _rows(step, i0, i1, plan.options.threads)
            rows, n = _checked(plan, step, rows, i0)
            replaced += n
            raw = _encoded(step, rows, importance, plan.options.threads)
            measure.add(rows, raw)
        writer.write_rows(step.name, raw)
        report(i1)
    if step.source is not None:
        step.source.release()
    return Written(step, measure.value(), replaced)


def _rows(step: Step, i0: int, i1: int, threads: int | None) -> NDArray[np.float32]:
    """Rows ``i0`` to ``i1`` of the result before encoding: float32 (i1 - i0, n_cols)."""
    from .encode import decode_rows

    def decode(source: SourceTensor, a: int, b: int) -> NDArray[np.float32]:
        if source.type.name in ("f16", "bf16"):
            return decode_rows(source.raw_rows(a, b), source.type.name, threads)
        return source.rows(a, b)

    return original.rows(step, i0, i1, decode)


def _checked(plan: Plan, step: Step, rows: NDArray[np.float32], i0: int) -> tuple[NDArray[np.float32], int]:
    """``rows``, and how many weights had to be replaced to make them fit the type."""
    low, high = float(rows.min()), float(rows.max())
    limit = MAX_HALF if step.type.unpack is not None or step.type.name == "f16" else math.inf
    if -limit <= low and high <= limit and math.isfinite(low) and math.isfinite(high):
        return rows, 0
    bad = ~(np.isfinite(rows) & (np.abs(rows) <= limit))
    if not plan.options.allow_nonfinite:
        row, column = np.argwhere(bad)[0]
        raise errors.NonFiniteWeight(
            f"a weight that {step.type.label} cannot hold; --allow-nonfinite goes on regardless",
            file=step.source.path if step.source is not None else None,
            where=f"{step.name}, row {i0 + row}, column {column}", actual=float(rows[row, column]),
        )
    if step.type.unpack is None:
        return rows, 0
    return np.nan_to_num(np.clip(rows, -MAX_HALF, MAX_HALF), nan=0.0), int(np.count_nonzero(bad))


def _encoded(
    step: Step, rows: NDArray[np.float32], importance: NDArray[np.float32] | None, threads: int | None
) -> NDArray[np.uint8]:
    from .encode import encode_rows

    if importance is not None and importance.shape != (step.n_cols,):
        raise errors.ShapeMismatch(
            "the importance matrix is of another model", where=step.name, expected=f"{step.n_cols} columns",
            actual=importance.shape,
        )
    if step.type.unpack is None:  # plain numbers: one rounding, and `_checked` has decided what may pass
        return blocks.quantize(rows, step.type)
    rows = np.ascontiguousarray(rows, np.float32)
    return encode_rows(rows, step.type.name, importance, threads, ragged=step.in_panels)


class _Error:
    """Relative error of a tensor, on the first rows of every piece."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._error = self._square = 0.0
        self._n = 0

    def add(self, rows: NDArray[np.float32], raw: NDArray[np.uint8]) -> None:
        n = max(1, SAMPLE_WEIGHTS // self._step.n_cols)
        part = rows[:n].astype(np.float64)
        back = self._step.row.decode(raw[:n])
        with np.errstate(invalid="ignore", over="ignore"):
            self._error += float(np.square(back.reshape(part.shape) - part).sum())
            self._square += float(np.square(part).sum())
        self._n += 1

    def value(self) -> float | None:
        if not self._n:
            return None
        if not self._square or not math.isfinite(self._error) or not math.isfinite(self._square):
            return 0.0 if not self._error else math.inf
        return math.sqrt(self._error / self._square)
