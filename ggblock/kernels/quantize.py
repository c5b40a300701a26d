"""Quantizers: float32 rows to rows of blocks, 16 blocks at a time. Informative: only decoders are normative.

Every type has one kernel, ``quantize/<type>``, for weights with and without importance; ``quantize/<type>/<source>``
reads the weights as "f16" or "bf16" and does the same with them. ``quantize_vectors`` says how it works; the searches
are in ``quantize_search``; a family's file says what is searched and how it is packed.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ..blocks import by_name
from ..simd.jit import inline_strict
from ..simd.transpose import gather_columns, transpose_bytes
from ..simd.vec import atomic_add, bitcast, convert, less, load, splat, store, sum_of, zero
from . import quantize_direct, quantize_floats, quantize_pairs, quantize_ranges, quantize_scales, quantize_signed
from .args import arg
from .quantize_vectors import OUT, ROWS, TABLE, F, I, W, X
from .quantizers import MODULES

FAMILIES = {module.__name__.rpartition(".")[2]: module for module in (
    quantize_direct, quantize_pairs, quantize_ranges, quantize_scales, quantize_signed)}

LARGEST = np.float32(65504)        # what every type with scales can hold


@inline_strict
def copy_bytes(source, to, n_bytes):
    for i in range(n_bytes >> 3):
        store(to + 8 * i, load(source + 8 * i, "i64"))
    for i in range(n_bytes & -8, n_bytes):
        store(to + i, load(source + i, "i8"))


def make_quantize(name: str, source: str = "f32") -> Any:
    """Columns: weights, importance or 0, blocks out, number of blocks, blocks a row, counter, scratch, bytes of
    scratch a thread, faults, 0.

    ``weights``: numbers of type ``source`` of consecutive rows. ``importance``: float32 of one row, finite and
    positive. ``counter``: int64, 0 at the start, from which threads draw groups of 16 blocks; ``faults``: int64, set to
    1 where a weight is NaN or larger in size than ``LARGEST`` (the block's bytes are then of no use).
    """
    if name in ("f16", "bf16"):
        return quantize_floats.make_convert(name, source)
    block = by_name(name)
    size, n_bytes = block.block_size, block.block_bytes
    n_tiles = -(-n_bytes // 16)
    encode = FAMILIES[MODULES[name]].make_encode(block)
    limit = np.int32(LARGEST.view(np.int32))
    kind, width = source + "x16", 4 if source == "f32" else 2

    def quantize(op, thread, n_threads):
        rows, importance, out, n_blocks, per_row = arg(op, 0), arg(op, 1), arg(op, 2), arg(op, 3), arg(op, 4)
        counter, p, faults = arg(op, 5), arg(op, 6) + thread * arg(op, 7), arg(op, 8)
        n_groups = (n_blocks + 15) // 16
        bad = zero("b1x16")
        while True:
            group = atomic_add(counter, 1)
            if group >= n_groups:
                break
            first = 16 * group
            for i in range(16):
                b = min(first + i, n_blocks - 1)       # the last group repeats the last block
                store(p + TABLE + 8 * i, rows + b * (width * size))
                store(p + TABLE + 128 + 8 * i, importance + b % per_row * (4 * size))
            for k in range(size // 16):
                gather_columns(p + TABLE, 16 * width * k, p + X + 1024 * k, kind)
            for k in range(size):
                bits = bitcast(load(p + X + 64 * k, F), I) & splat(np.int32(0x7FFFFFFF), I)
                bad = bad | less(splat(limit, I), bits)
            if importance != 0:
                for k in range(size // 16):
                    gather_columns(p + TABLE + 128, 64 * k, p + W + 1024 * k, F)
            encode(p, importance != 0, arg(op, 9))
            for t in range(n_tiles):
                transpose_bytes(p + OUT + 256 * t, p + ROWS + 16 * t, 16 * n_tiles)
            for i in range(min(16, n_blocks - first)):
                copy_bytes(p + ROWS + i * (16 * n_tiles), out + (first + i) * n_bytes, n_bytes)
        if sum_of(convert(bad, I)) != 0:
            store(faults, np.int64(1))
    return quantize
