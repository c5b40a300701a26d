"""Rows of weights to rows of blocks, by the compiled quantizers: what conversion and `ggblock.quantize` call.

The bytes are the same for any number of threads and on every machine. `ggblock.blocks.quantize` is the NumPy reference:
it needs no compiler, is slower, and its codes are not the same.
"""
from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import blocks, errors
from ..blocks import BlockType, by_name, tails
from ..blocks.api import row_of
from ..blocks.base import F32, U8
from ..engine.memory import address, buffer
from ..engine.store import Notify, default_threads, kernels
from ..engine.team import Team
from ..kernels import fields
from ..kernels.quantizers import MODULES, SCRATCH_BYTES

#: The largest magnitude that a type with shared scales holds: the largest float16.
MAX_WEIGHT = 65504

#: Importances this much smaller than the largest of their row count no less: a column is never quite free.
LEAST_IMPORTANCE = np.float32(2.0**-30)


@functools.cache
def _team(n_threads: int) -> Team:
    return Team(n_threads)


def kernel_names(type_name: str, source: str = "f32") -> list[str]:
    """The kernels that take numbers of type ``source`` ("f32", "f16", "bf16") to a type."""
    if type_name == source:
        return [f"scan/{source}"]
    if type_name == "f32":
        return [f"scan/{source}", f"widen/{source}"]
    return [f"quantize/{type_name}" + ("" if source == "f32" else f"/{source}")] if type_name in MODULES else []


def prepare(names: Iterable[str], notify: Notify | None = None) -> None:
    """Compiles or loads what `encode_rows` (``"q4_k"``) and `encode_stored` (``"q4_k/f16"``) need; ``notify`` hears a
    line when that takes a while."""
    pairs = [name.partition("/") for name in names]
    kernels([kernel for name, _, source in pairs if (name, source) != ("f32", "")
             for kernel in kernel_names(name, source or "f32")], notify)


def encode_rows(
    rows: F32, type_name: str, importance: F32 | None = None, threads: int | None = None, *,
    allow_nonfinite: bool = False, ragged: bool = False,
) -> U8:
    """Encodes float32 (n_rows, n_cols) as uint8 (n_rows, row_bytes).

    ``ragged``: rows may be any multiple of the sub-block; the last super-block is cut down to what is in use, and
    searched with nothing else in view. ``importance``: float32 (n_cols,), not negative: how much the squared error of
    each column counts, or None for all the same. ``threads``: None for one a processor. ``allow_nonfinite`` lets F32,
    F16 and BF16 keep NaN and infinity; types with scales have no room for them. Needs the result's memory and 64 KB a
    thread; F32 is a view of ``rows``.

    Raises `errors.UnknownType`, `errors.NoEncoder`, `errors.BadShape` (a row that is no whole number of blocks, a wrong
    number of importances), `errors.SettingError` (importances that are negative or not finite, threads out of range),
    `errors.NonFiniteWeight` (names row and column).
    """
    block = by_name(type_name)
    rows = np.ascontiguousarray(rows, np.float32)
    n_rows, n_cols = rows.shape
    if block.name == "f32" and n_cols:
        if not (allow_nonfinite or np.isfinite(rows).all()):
            _refuse(rows, rows, block)
        return rows.astype("<f4", copy=False).view(np.uint8)
    raw = rows.view(np.uint8) if rows.size else np.empty((n_rows, 4 * n_cols), np.uint8)
    return encode_stored(raw, "f32", type_name, importance, threads, allow_nonfinite=allow_nonfinite, ragged=ragged)


def encode_stored(
    raw: U8, source: str, type_name: str, importance: F32 | None = None, threads: int | None = None, *,
    allow_nonfinite: bool = False, ragged: bool = False, first_row: int = 0,
) -> U8:
    """`encode_rows` for rows that are stored as numbers of type ``source``: "f32", "f16" or "bf16", little-endian.

    ``raw``: uint8 (n_rows, n_cols * bytes of a number). The same bytes as of the rows in float32, without making those:
    the 1.07 B weights of a float16 model are quantized to Q6_K in three quarters of the time. Where both types are the
    same the result is ``raw`` itself, looked through for NaN and infinity. ``first_row``: what messages call the first.
    """
    block, stored = by_name(type_name), by_name(source)
    raw = np.ascontiguousarray(raw)
    n_rows, n_cols = len(raw), raw.shape[1] // stored.block_bytes
    if n_cols == 0:
        raise errors.BadShape("a row has weights", expected="at least 1", actual=n_cols)
    row = row_of(block, n_cols, ragged)
    given = None if importance is None else _importance(importance, n_cols)
    n = n_rows * n_cols
    if not n_rows:
        return np.empty((0, row.n_bytes), np.uint8)
    if n < 16 or block.name not in (*MODULES, "f32"):
        rows = stored.decode(raw.reshape(-1, stored.block_bytes)).reshape(n_rows, n_cols)
        out = raw if block is stored else blocks.quantize(rows, block, None, ragged=ragged)
        if not allow_nonfinite:
            _refuse(rows, out, block, first_row)
        return out
    team = _team(default_threads() if threads is None else threads)
    if block is stored or block.name == "f32":
        out = raw if block is stored else decode_rows(raw, source, threads).view(np.uint8)
        faults = not allow_nonfinite and _run(f"scan/{source}", team, raw, None, raw, n, 0)
    else:
        out = np.empty((n_rows, row.n_bytes), np.uint8)
        if row.tail is None:
            kernel = kernel_names(block.name, source)[0]
            faults = _run(kernel, team, raw, given, out, n_rows * row.n_whole, row.n_whole)
        else:
            faults = _ragged(row, team, decode_rows(raw, source, threads), given, out)
    if faults and not (allow_nonfinite and block.unpack is None):
        _refuse(decode_rows(raw, source, threads), out, block, first_row)
    return out


def _ragged(row: tails.Row, team: Team, rows: F32, given: F32 | None, out: U8) -> bool:
    """Encodes rows that end in a tail into ``out``: whether there was a fault."""
    block, short = row.block, row.tail
    assert short is not None
    kernel, n_rows = f"quantize/{block.name}", len(rows)
    body, body_bytes = row.n_whole * block.block_size, row.n_whole * block.block_bytes
    faults = False
    if body:
        whole = np.empty((n_rows, body_bytes), np.uint8)
        counts = None if given is None else np.ascontiguousarray(given[:body])
        faults = _run(kernel, team, np.ascontiguousarray(rows[:, :body]), counts, whole, n_rows * row.n_whole,
                      row.n_whole)
        out[:, :body_bytes] = whole
    counts = np.ones(short.block_size, np.float32) if given is None else given[body:]
    spread = tails.fill(block, counts[None], floor=LEAST_IMPORTANCE)[0]
    # where weights are repeated to fill the block, all count the same number of times
    spread[block.block_size // short.block_size * short.block_size :] = LEAST_IMPORTANCE
    filled = np.empty((n_rows, block.block_bytes), np.uint8)
    faults |= _run(kernel, team, tails.fill(block, rows[:, body:]), spread, filled, n_rows, 1)
    out[:, body_bytes:] = tails.shrink(short, block, filled)
    return faults


def decode_rows(raw: U8, type_name: str, threads: int | None = None) -> F32:
    """Decodes uint8 (n_rows, row_bytes) to float32 (n_rows, n_cols): as the type's decoder does, F16 and BF16 on all
    threads (they are what is converted most, and NumPy's conversion takes half as long as Q4_K's quantizer)."""
    block = by_name(type_name)
    if block.name not in ("f16", "bf16") or raw.size < 32:
        return block.decode(np.ascontiguousarray(raw).reshape(-1, block.block_bytes)).reshape(len(raw), -1)
    raw = np.ascontiguousarray(raw)
    out = np.empty((len(raw), raw.shape[1] // 2), np.float32)
    _run(f"widen/{block.name}", _team(default_threads() if threads is None else threads), raw, None, out, out.size, 0)
    return out


def _run(
    kernel: str, team: Team, source: NDArray[Any], given: F32 | None, out: NDArray[Any], n: int, per_row: int
) -> bool:
    """One pass of a kernel (``kernels.quantize.make_quantize`` names the columns): whether it met a fault."""
    scratch = buffer(SCRATCH_BYTES * team.n_threads)
    shared = np.zeros(32, np.int64)               # the counter; further on, on another cache line, the faults
    row = np.zeros(fields.ROW, np.int64)
    row[fields.KERNEL] = kernels([kernel])[kernel]
    row[fields.A:fields.A + 9] = (
        address(source), 0 if given is None else address(given), address(out), n, per_row,
        address(shared), address(scratch), SCRATCH_BYTES, address(shared) + 128)
    team.run(address(row), 1)
    return bool(shared[16])


def quantize(
    array: ArrayLike, type: str | BlockType, importance: ArrayLike | None = None, *, ragged: bool = False
) -> U8:
    """Encodes an array with the quantizer that `ggblock convert` uses: the same bytes.

    ``array``: any real numbers, shape (..., n_cols), rows last; one dimension is one row. ``type``: a block type or its
    name. ``importance``: float (n_cols,), not negative: how much the squared error of each column counts, or None.
    Returns uint8 (n_rows, row_bytes) with all leading dimensions counted as rows. F32, F16 and BF16 keep NaN and
    infinity. ``ragged``: rows of any multiple of the sub-block, as in GGB files; give it to `dequantize` too.

    The first use of a type compiles its quantizer, in some seconds, and keeps it on disk. Informative: the codes are
    good, not promised; only what `dequantize` makes of them is specified.

    Raises what `encode_rows` raises.
    """
    block = type if isinstance(type, BlockType) else by_name(type)
    weights = np.asarray(array)
    if not weights.ndim:
        raise errors.BadShape("a row has a length", actual="a single number")
    if block.name not in MODULES:
        return blocks.quantize(weights, block, importance, ragged=ragged)
    rows = weights.reshape(-1, weights.shape[-1]).astype(np.float32, copy=False)
    given = None if importance is None else np.asarray(importance, np.float32)
    return encode_rows(rows, block.name, given, allow_nonfinite=True, ragged=ragged)


def _importance(importance: NDArray[Any], n_cols: int) -> F32 | None:
    """Scaled by a power of two: the largest in [0.5, 1), none below `LEAST_IMPORTANCE`; None where all are 0."""
    values = np.ascontiguousarray(importance, np.float32)
    if values.shape != (n_cols,):
        raise errors.BadShape("importance is one number a column", expected=(n_cols,), actual=values.shape)
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise errors.SettingError("importance is finite and not negative")
    top = values.max()
    if top == 0:
        return None
    scaled: F32 = np.maximum(np.ldexp(values, -np.frexp(top)[1]), LEAST_IMPORTANCE).astype(np.float32)
    return scaled


def _refuse(rows: F32, out: NDArray[Any], block: BlockType, first_row: int = 0) -> None:
    """Raises for the first weight that the type cannot hold, if there is one."""
    for i, row in enumerate(rows):
        if block.unpack is not None:
            fits = np.abs(row) <= np.float32(MAX_WEIGHT)
        elif block.name in ("f16", "bf16"):       # what became infinite counts too
            exponent = np.uint16(0x7C00 if block.name == "f16" else 0x7F80)
            fits = out[i].view("<u2") & exponent != exponent
        else:
            fits = np.isfinite(row)
        if not fits.all():
            column = int(np.flatnonzero(~fits)[0])
            limit = "finite weights" if block.name in ("f32", "f64") else \
                "weights up to 3.39e38 in size" if block.name == "bf16" else f"weights up to {MAX_WEIGHT} in size"
            raise errors.NonFiniteWeight(f"{block.label} holds only {limit}",
                                         where=f"row {first_row + i}, column {column}", actual=row[column])
