"""Rows of weights to rows of blocks, by the compiled quantizers: what conversion and `ggblock.quantize` call."""
from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import errors
from ..blocks import BlockType, by_name
from ..blocks.base import F32, U8
from ..engine.memory import address, buffer
from ..engine.store import kernels
from ..engine.team import Team, default_threads
from ..kernels import fields
from ..kernels.quantizers import MODULES, SCRATCH_BYTES


@functools.cache
def _team(n_threads: int) -> Team:
    return Team(n_threads)


def encode_rows(rows: F32, type_name: str, importance: F32 | None = None, threads: int | None = None) -> U8:
    block = by_name(type_name)
    n_rows, n_cols = rows.shape
    rows = np.ascontiguousarray(rows, np.float32)
    team = _team(threads or default_threads())
    out = np.empty((n_rows, block.row_bytes(n_cols)), np.uint8)
    code = kernels([f"quantize/{block.name}"])[f"quantize/{block.name}"]
    scratch = buffer(SCRATCH_BYTES * team.n_threads)
    shared = buffer(128).view(np.int64)      # the counter, and on another cache line the faults
    row = np.zeros(fields.ROW, np.int64)
    row[fields.KERNEL] = code
    imp = 0
    if importance is not None:
        importance = np.ascontiguousarray(importance, np.float32)
        importance = importance / importance.max()
        importance = np.maximum(importance, np.float32(2.0**-30))
        imp = address(importance)
    row[fields.A:fields.A + 9] = (address(rows), imp, address(out), n_rows * (n_cols // block.block_size), n_cols // block.block_size,
                                  address(shared), address(scratch), SCRATCH_BYTES, address(shared) + 64)
    team.run(address(row), 1)
    if shared[8]:
        raise errors.NonFiniteWeight("bad")
    return out
