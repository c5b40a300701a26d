"""Carry out a plan: stream rows from the mapped source through the encoder into the writer.

Memory stays at some tens of megabytes whatever the model: rows pass in pieces of `CHUNK_WEIGHTS`, as they are stored,
and the pages of a tensor that is done are given back. While a piece is encoded, the one before is hashed and written.
Nothing appears under the target's name before everything is on the disk.
"""
from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import blocks, errors
from ..blocks.base import U8
from ..format import panels
from ..format.writer import GgufWriter
from . import original
from .behind import Behind
from .plan import Plan, Step

#: Weights a piece: some megabytes of either side, large enough for the encoder's threads.
CHUNK_WEIGHTS = 1 << 22
#: Weights a piece that are decoded again to measure the error.
SAMPLE_WEIGHTS = 1 << 15

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
    done: list[tuple[Step, _Error, int]] = []
    prepare(_needed(plan), notify)
    writers = plan.writers()
    with _Together(writers) as together:
        with Behind() as behind:
            n_bytes = 0
            for part, writer in enumerate(writers):
                for step in (s for s in plan.steps if s.part == part):

                    def report(rows: int, step: Step = step, before: int = n_bytes) -> None:
                        if progress is not None:
                            ready = min(step.n_bytes, rows * step.row.n_bytes)
                            progress(step.name, before + ready, total)

                    done.append((step, *_write(plan, step, writer, behind, report)))
                    n_bytes += step.n_bytes
            behind.drain()
        together.finish()
    written = tuple(Written(step, measure.value(), replaced) for step, measure, replaced in done)
    return Result(plan, written, time.perf_counter() - start)


def _needed(plan: Plan) -> list[str]:
    """What `prepare` must load for ``plan``."""
    names = []
    for step in plan.steps:
        kind = step.source.type.name if step.source is not None and not step.add else "f32"
        if kind in original.PLAIN or not step.copies:
            kind = "f32" if kind not in original.PLAIN or step.row.tail is not None else kind
            names.append(f"{step.type.name}/{kind}")
    return sorted(set(names))


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


def _write(
    plan: Plan, step: Step, writer: GgufWriter, behind: Behind, report: Callable[[int], None]
) -> tuple[_Error, int]:
    """Have all rows of ``step`` written; their error, known when ``behind`` has done so, and how many were replaced."""
    measure, replaced = _Error(step), 0
    importance = plan.options.importance.get(step.name)
    if importance is not None and importance.shape != (step.n_cols,):
        raise errors.ShapeMismatch(
            "the importance matrix is of another model", where=step.name, expected=f"{step.n_cols} columns",
            actual=importance.shape,
        )
    per_chunk = max(1, CHUNK_WEIGHTS // step.n_cols)
    if step.in_panels:
        per_chunk = -(-per_chunk // panels.ROWS) * panels.ROWS
    for i0 in range(0, step.n_rows, per_chunk):
        i1 = min(step.n_rows, i0 + per_chunk)
        _still_there(step)
        numbers, kind = original.numbers(step, i0, i1)
        raw, n = (numbers, 0) if kind == "blocks" else _encoded(plan, step, numbers, kind, importance, i0)
        replaced += n
        # on the other thread: what hashes and writes a piece leaves the processors to the encoder half of the time
        behind.put(partial(_put, writer, step, raw, None if step.copies else measure, numbers, kind))
        report(i1)
    if step.source is not None:
        step.source.release()
    return measure, replaced


def _put(
    writer: GgufWriter, step: Step, raw: U8, measure: _Error | None, numbers: U8, kind: str
) -> None:
    writer.write_rows(step.name, raw)
    if measure is not None:
        measure.add(numbers, kind, raw)


def _encoded(
    plan: Plan, step: Step, numbers: U8, kind: str, importance: NDArray[np.float32] | None, i0: int
) -> tuple[U8, int]:
    """The blocks, and how many weights had to be replaced to make them fit the type."""
    from .encode import MAX_WEIGHT, decode_rows, encode_rows, encode_stored

    name, threads, allow = step.type.name, plan.options.threads, plan.options.allow_nonfinite
    if allow and step.copies:
        return numbers, 0
    ragged = step.in_panels
    try:
        return encode_stored(numbers, kind, name, importance, threads, allow_nonfinite=allow, ragged=ragged,
                             first_row=i0), 0
    except errors.NonFiniteWeight as fault:
        if not allow:
            fault.file = step.source.path if step.source is not None else None
            fault.where = f"{step.name}, {fault.where}"
            fault.message += "; --allow-nonfinite goes on regardless"
            raise
    rows = decode_rows(numbers, kind, threads)
    n_bad = int(np.count_nonzero(~(np.abs(rows) <= MAX_WEIGHT)))
    rows = np.nan_to_num(np.clip(rows, -MAX_WEIGHT, MAX_WEIGHT), nan=0.0)
    return encode_rows(rows, name, importance, threads, ragged=ragged), n_bad


class _Error:
    """Relative error of a tensor, on the first rows of every piece."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._error = self._square = 0.0
        self._n = 0

    def add(self, numbers: U8, kind: str, raw: U8) -> None:
        """``numbers``: the rows as numbers of type ``kind``; ``raw``: their blocks."""
        n = max(1, SAMPLE_WEIGHTS // self._step.n_cols)
        block = blocks.by_name(kind)
        part = block.decode(np.ascontiguousarray(numbers[:n]).reshape(-1, block.block_bytes)).reshape(-1)
        part = part.astype(np.float64)
        back = self._step.row.decode(raw[:n]).reshape(-1)
        with np.errstate(invalid="ignore", over="ignore"):
            self._error += float(np.square(back - part).sum())
            self._square += float(np.square(part).sum())
        self._n += 1

    def value(self) -> float | None:
        """None where nothing was measured."""
        if not self._n:
            return None
        if not self._square or not math.isfinite(self._error) or not math.isfinite(self._square):
            return 0.0 if not self._error else math.inf
        return math.sqrt(self._error / self._square)
