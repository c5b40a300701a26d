"""Weights to the device, in panels: the layout of the engine and of ``.ggb`` files.

A file in panels is copied as it lies. Rows of a ``.gguf`` are interleaved by the engine's own ``repack`` kernel, on all
threads, straight into pinned memory. Two such buffers take turns: while one is on its way to the device, the next
piece is read and interleaved into the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ...format import panels
from ...kernels import families
from ..memory import address
from ..team import Team
from ..weights import Weight, pieces, repack
from .device import Device

PIECE = 32 << 20  # bytes of a pinned buffer


class Panels:
    """A matrix on the device: its panels, and views of them by element type (``lanes.VIEWS``)."""

    def __init__(self, weight: Weight, data: Any) -> None:
        self.family, self.name = weight.family, weight.tensor.name
        self.n_rows, self.n_cols = weight.n_rows, weight.n_cols
        self.n_panels, self.n_blocks = weight.n_panels, weight.n_blocks
        self.n_parts = self.n_blocks + (families.split(weight.family)[1] > 0)  # blocks, and a tail
        self.views = {
            "w8": data,
            "w16": data.view(np.uint16),
            "w32": data.view(np.uint32),
            "wh": data.view(np.float16),
            "wf": data.view(np.float32),
        }


class Uploader:
    """Sends matrices one after the other; ``finish`` waits for the last one."""

    def __init__(self, device: Device, team: Team) -> None:
        self._device, self._team = device, team
        self._buffers: list[npt.NDArray[np.uint8]] = []
        self._events: list[Any] = []
        self._turn = 0

    def _next(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        """The pinned buffer whose turn it is, free to be written."""
        if len(self._buffers) < 2:
            self._buffers.append(self._device.pinned(max(PIECE, n_bytes)))
            self._events.append(self._device.event())
            self._turn = len(self._buffers) - 1
        else:
            self._turn ^= 1
            self._events[self._turn].synchronize()
            if len(self._buffers[self._turn]) < n_bytes:
                self._buffers[self._turn] = self._device.pinned(n_bytes)
        return self._buffers[self._turn][:n_bytes]

    def send(self, w: Weight) -> Panels:
        """``w`` on the device. `DeviceError` where it has no room."""
        data = self._device.empty(w.n_panels * w.panel_bytes, np.uint8)
        for at, n_bytes, fill in self._pieces(w):
            staged = self._next(n_bytes)
            fill(staged)
            data[at : at + n_bytes].copy_to_device(staged, stream=self._device.stream)
            self._events[self._turn].record(self._device.stream)
        w.tensor.release()
        return Panels(w, data)

    def _pieces(self, w: Weight) -> Iterator[tuple[int, int, Any]]:
        """(byte in the panels, bytes, function that writes them)."""
        if w.tensor.in_panels and families.split(w.family)[0] == w.tensor.type.name:
            whole = w.tensor.panels.reshape(-1)
            for at in range(0, len(whole), PIECE):
                part = whole[at : at + PIECE]
                yield at, len(part), lambda to, part=part: np.copyto(to, part)
            return
        per_piece = max(1, PIECE // max(1, w.panel_bytes)) * panels.ROWS
        for first, rows in pieces(w, per_piece, self._team):
            n_panels = -(-len(rows) // panels.ROWS)
            yield (
                first // panels.ROWS * w.panel_bytes,
                n_panels * w.panel_bytes,
                lambda to, rows=rows: repack(w, rows, address(to), self._team),
            )

    def finish(self) -> None:
        self._device.synchronize()
        self._buffers, self._events = [], []
