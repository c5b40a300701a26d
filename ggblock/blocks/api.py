"""Whole arrays to blocks and back: `ggblock.dequantize`, and the reference quantizer, `ggblock.blocks.quantize`."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import errors
from . import tails
from .base import CHUNK_WEIGHTS, F32, U8, BlockType
from .registry import REGISTRY, by_name

#: The largest magnitude that `quantize` accepts for types with shared scales: the largest float16.
MAX_WEIGHT = 65504


def dequantize(data: NDArray[np.uint8] | bytes | bytearray | memoryview, type: str | BlockType,
               shape: Sequence[int] | int, *, ragged: bool = False) -> F32:
    """Decode blocks to float32.

    ``data``: the bytes of whole rows, one after another: a buffer, or uint8 of any shape, C order.
    ``type``: a block type or its name. ``shape``: shape of the result, rows first; the last dimension is the
    row and a multiple of the block size; with ``ragged``, of the sub-block, and the last block of a row is cut down to
    the weights in use, as in GGB files. Returns float32 of that shape, C order, bit-exact with ggml.
    Needs the result's memory and a few megabytes.

    Raises `errors.UnknownType` (`errors.RemovedType`) for a bad name, `errors.BadShape` when the row is no
    whole number of blocks or ``data`` has another length than ``shape`` needs.
    """
    block = type if isinstance(type, BlockType) else by_name(type)
    dims = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
    if not dims or min(dims) < 0:
        raise errors.BadShape("not a shape", expected="dimensions of 0 or more", actual=dims)
    row = row_of(block, dims[-1], ragged)
    raw = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    if raw.dtype != np.uint8:
        raise errors.BadShape("blocks are bytes", expected="uint8", actual=raw.dtype)
    n_rows = math.prod(dims[:-1])
    n_bytes = n_rows * row.n_bytes
    if raw.size != n_bytes:
        raise errors.BadShape(
            f"wrong number of bytes for {block.label} of shape {dims}", expected=n_bytes, actual=raw.size
        )
    return row.decode(np.ascontiguousarray(raw).reshape(n_rows, row.n_bytes)).reshape(dims)


def row_of(block: BlockType, n_cols: int, ragged: bool) -> tails.Row:
    """`tails.row`, or `errors.BadShape`."""
    try:
        return tails.row(block, n_cols, ragged)
    except ValueError:
        what, unit = ("sub-blocks", tails.step(block)) if ragged else ("blocks", block.block_size)
        raise errors.BadShape(f"a {block.label} row is a whole number of {what}", expected=f"a multiple of {unit}",
                              actual=n_cols) from None


def quantize(
    array: ArrayLike, type: str | BlockType, importance: ArrayLike | None = None, *, ragged: bool = False
) -> U8:
    """Encode an array with the NumPy reference quantizer of a block type.

    ``array``: any real numbers, shape (..., n_cols), rows last; one dimension is one row. ``type``: a block
    type or its name. ``importance``: float (n_cols,), non-negative weights of the squared errors of each
    column, or None; types without a search ignore it. Returns uint8 (n_rows, row_bytes) with all leading
    dimensions counted as rows. ``ragged``: as in `dequantize`.

    Informative: the codes are good, not promised; only what `dequantize` makes of them is specified.
    `ggblock.quantize`, which is compiled, is faster and finds better codes. On one Zen 5 core the types with a search
    take 2 to 10 million weights a second, the others over 100 million.

    Raises `errors.UnknownType`, `errors.NoEncoder` (readable types that this cannot write), `errors.BadShape`
    (row or importance length), `errors.NonFiniteWeight` (NaN, infinity or more than `MAX_WEIGHT` in a type that
    shares scales).
    """
    block = type if isinstance(type, BlockType) else by_name(type)
    if block.encode is None:
        known = " ".join(name for name, other in REGISTRY.items() if other.encode is not None)
        raise errors.NoEncoder(f"{block.label} can be read but not written", expected=f"one of {known}")
    weights = np.asarray(array)
    n_cols = weights.shape[-1] if weights.ndim else 0
    if n_cols == 0:
        raise errors.BadShape("a row has weights", expected="at least 1", actual=n_cols)
    layout = row_of(block, n_cols, ragged)
    rows = weights.reshape(-1, n_cols)
    given = None if importance is None else _importance(importance, n_cols)
    out = np.empty((len(rows), layout.n_bytes), np.uint8)
    per_chunk = max(1, CHUNK_WEIGHTS // n_cols)
    for start in range(0, len(rows), per_chunk):
        piece = np.ascontiguousarray(rows[start : start + per_chunk], np.float32)
        if block.unpack is not None:
            _check_range(piece, block, start)
        column = 0
        for kind, to in layout.parts(out[start : start + per_chunk]):
            end = n_cols if kind.is_tail else layout.n_whole * kind.block_size
            spread = None
            if given is not None:
                spread = np.ascontiguousarray(np.broadcast_to(given, piece.shape)[:, column:end])
                spread = spread.reshape(-1, kind.block_size)
            assert kind.encode is not None
            encoded = kind.encode(np.ascontiguousarray(piece[:, column:end]).reshape(-1, kind.block_size), spread)
            to[...] = encoded.reshape(len(piece), -1)
            column = end
    return out


def _check_range(piece: F32, block: BlockType, first_row: int) -> None:
    """Refuse what a type with shared scales cannot hold; NaN fails the comparison too."""
    fits = np.abs(piece) <= np.float32(MAX_WEIGHT)
    if not fits.all():
        row, column = np.argwhere(~fits)[0]
        raise errors.NonFiniteWeight(
            f"{block.label} holds only weights up to {MAX_WEIGHT} in size",
            where=f"row {first_row + row}, column {column}", actual=piece[row, column],
        )


def _importance(importance: ArrayLike, n_cols: int) -> NDArray[Any]:
    values = np.asarray(importance, np.float32)
    if values.shape != (n_cols,):
        raise errors.BadShape("importance is one number a column", expected=(n_cols,), actual=values.shape)
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise errors.SettingError("importance is finite and not negative")
    return values
