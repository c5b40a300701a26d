"""Tensors of a file as the engine's kernels read them: panels of 16 rows.

A type that has no kernel of its own is decoded once, when it is loaded, to float32 panels: correct, and as large as
that; the caller is told.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..format import panels
from ..format.reader import Tensor
from ..kernels import families, fields
from .memory import address, buffer, floats
from .store import kernels
from .team import Team

@dataclass
class Weight:
    """A matrix of ``n_rows`` by ``n_cols`` that will be packed; ``data`` is empty until then."""

    tensor: Tensor
    family: str
    n_rows: int
    n_cols: int
    data: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8), repr=False)

    @property
    def n_panels(self) -> int:
        return -(-self.n_rows // panels.ROWS)

    @property
    def n_blocks(self) -> int:
        return -(-self.n_cols // families.family(self.family).block)

    @property
    def panel_bytes(self) -> int:
        return panels.ROWS * self.n_blocks * panels.block_bytes(self.family)

    @property
    def is_float(self) -> bool:
        return isinstance(families.family(self.family), families.FloatFamily)

    def resolve(self) -> int:
        return address(self.data)


def describe(tensor: Tensor) -> Weight:
    """How ``tensor`` will be held. A tensor of more than two dimensions is seen as rows."""
    name = tensor.type.name
    return Weight(tensor, name if name in families.FAMILIES else "f32", tensor.n_rows, tensor.n_cols)


def pack(weights: list[Weight], team: Team) -> None:
    """Fills ``data`` of every weight, on all threads of ``team``, one tensor after the other."""
    repack = kernels(["repack"])["repack"]
    for w in weights:
        if w.data.size:
            continue
        rows: npt.NDArray[Any] = w.tensor.raw
        if w.family != w.tensor.type.name:
            rows = w.tensor.dequantize().reshape(w.n_rows, w.n_cols).view(np.uint8)
        w.data = buffer(w.n_panels * w.panel_bytes)
        units = panels.UNITS[w.family]
        table = np.zeros(1 + 2 * len(units), np.int64)       # eight zero bytes first: see the kernel
        table[1:] = np.array(units).reshape(-1)
        row = np.zeros(fields.ROW, np.int64)
        row[fields.KERNEL] = repack
        row[fields.A:fields.A + 8] = (rows.ctypes.data, rows.shape[1], w.n_rows, w.n_blocks, panels.block_bytes(w.family),
                                      address(table) + 8, len(units), address(w.data))
        team.run(address(row), 1)
        w.tensor.release()


def vector(tensor: Tensor, pad: int = 32) -> npt.NDArray[np.float32]:
    """A one-dimensional tensor as float32, padded with zeros to a multiple of ``pad``."""
    values = tensor.dequantize().reshape(-1)
    out = floats(-(-values.size // pad) * pad)
    out[:values.size] = values
    return out
