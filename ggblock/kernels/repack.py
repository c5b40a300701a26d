"""Rows of blocks to panels of 16 rows (``format.panels`` has the definition and a NumPy reference)."""

from __future__ import annotations

import numpy as np

from ..simd.vec import load, store
from .args import arg, smaller


def make_repack():
    """Columns: source, bytes of a source row, rows, blocks a row, bytes a block, table of runs, runs, destination.

    A run is three int64: where it begins in the block, bytes, and unit width; eight zero bytes lie before the table.
    Rows of float types may be shorter than their blocks: bytes past the end of a row become zero. Split by panels.
    """

    def repack(op, thread, n_threads):
        source, row_bytes, n_rows, n_blocks = arg(op, 0), arg(op, 1), arg(op, 2), arg(op, 3)
        size, runs, n_runs, out = arg(op, 4), arg(op, 5), arg(op, 6), arg(op, 7)
        n_panels = (n_rows + 15) // 16
        for panel in range(n_panels * thread // n_threads, n_panels * (thread + 1) // n_threads):
            rows = smaller(np.int64(16), n_rows - 16 * panel)
            for block in range(n_blocks):
                to = out + (panel * n_blocks + block) * 16 * size
                start = block * size
                for i in range(n_runs):
                    n_bytes, width = load(runs + 24 * i + 8, "i64"), load(runs + 24 * i + 16, "i64")
                    o = start + load(runs + 24 * i, "i64")
                    end = o + n_bytes
                    while o < end:
                        for r in range(16):
                            p = source + (16 * panel + r) * row_bytes + o
                            inside = r < rows and o + width <= row_bytes
                            if width == 4:
                                v4 = load(p, "i32") if inside else load(runs - 8, "i32")
                                store(to + 4 * r, v4)
                            elif width == 2:
                                v2 = load(p, "i16") if inside else load(runs - 8, "i16")
                                store(to + 2 * r, v2)
                            else:
                                v1 = load(p, "i8") if inside else load(runs - 8, "i8")
                                store(to + r, v1)
                        to += 16 * width
                        o += width

    return repack
