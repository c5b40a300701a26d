"""A plan of which parts run on a device: the builder that writes it and the plan that walks it.

The models write the rows they always write. The builder notes beside each row where it runs: a product where its
matrix is, what prepares activations where the product is that needs them, attention where the layer's KV cache is.
``finish`` cuts the rows into runs of one place. Before a run, the float rows that it reads and that were last written
elsewhere are copied: at the boundary between two layers that is the residual stream and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...kernels import fields
from ..memory import address
from ..placement import Placement
from ..plan import Activations, Builder, Plan, Rows, round_up
from ..store import Notify, kernels
from ..team import Team
from ..weights import Weight, pack
from . import attention
from .device import Device, Graph
from .gemm import Gemm
from .steps import AttendStep, Memory, Pass, ProductStep, RopeStep, Step, WriteStep
from .upload import Uploader

CPU, DEVICE = "cpu", "device"

ACCUMULATE = 11  # operand of matmul


class Offloading:
    """What the two plans of a model share: the device, its memory, and where every buffer's newest content is."""

    def __init__(self, device: Device, placement: Placement, n_ctx: int, gemm: Gemm | None) -> None:
        self.device, self.placement, self.n_ctx = device, placement, round_up(n_ctx, 64)
        self.memory = Memory(device, gemm)
        self.valid: dict[int, set[str]] = {}  # id of a host array -> places; no entry: the CPU
        self.tables: list[Any] = []  # rope tables that the device reads
        self._sent: dict[int, int] = {}
        self._state = device.pinned(4 * attention.N_STATE).view(np.int32)

    def update(self, position: int, n_tokens: int) -> None:
        """Brings state and rope tables on the device up to date for a pass."""
        self._state[attention.N_TOKENS], self._state[attention.POSITION] = n_tokens, position
        self.memory.state.copy_to_device(self._state, stream=self.device.stream)
        for table in self.tables:
            sent, n = self._sent.get(id(table), 0), min(len(table.data), position + n_tokens)
            if n > sent:
                n = min(len(table.data), max(n, sent + 512))
                table.ensure(n)
                width = table.data[0].size
                flat = table.data.reshape(-1)[sent * width : n * width]
                self.device.send(flat, self.memory.of(table.data)[sent * width : n * width])
                self._sent[id(table)] = n


@dataclass
class Copy:
    """Float rows of the current pass from one place to the other."""

    host: npt.NDArray[np.float32]
    to_device: bool


@dataclass
class Run:
    """Rows ``first`` to ``first + count`` of the CPU's table, or ``steps`` on the device; after ``copies``."""

    copies: list[Copy] = field(default_factory=list)
    first: int = 0
    count: int = 0
    steps: list[Step] = field(default_factory=list)
    graphs: dict[int, Graph | None] = field(default_factory=dict)  # by number of tokens


class MixedBuilder(Builder):
    """A `Builder` whose rows run where ``offloading.placement`` puts them."""

    def __init__(self, modes: tuple[str, str], n_threads: int, batch: int, offloading: Offloading) -> None:
        super().__init__(modes, n_threads, batch)
        self.offloading = offloading
        self._places: list[str] = []
        self._n_ropes = 0

    def _row(self, kernel: str, barrier: int, *operands: Any) -> list[Any]:
        self._places.append(self.place)
        return super()._row(kernel, barrier, *operands)

    def matmul(self, a: Activations, w: Weight, y: Rows, accumulate: bool = False, bias: Any = None) -> None:
        self.place = DEVICE if self.offloading.placement.has(w.tensor.name) else CPU
        super().matmul(a, w, y, accumulate, bias)

    def op(self, kernel: str, barrier: int, *operands: Any) -> None:
        if kernel.startswith("rope/"):
            self.place = DEVICE if self.offloading.placement.attention(self._n_ropes) else CPU
            self._n_ropes += 1
        super().op(kernel, barrier, *operands)

    def kernel_names(self) -> list[str]:
        """Those that the CPU runs."""
        return list(dict.fromkeys(row[0] for row, place in zip(self._rows, self._places) if place == CPU))

    def finish(self, team: Team, notify: Notify | None = None) -> Plan:
        """Uploads the device's weights, packs the others, cuts the rows into runs."""
        placement, memory = self.offloading.placement, self.offloading.memory
        code = kernels(self.kernel_names(), notify)
        uploader = Uploader(self.offloading.device, team)
        for w in self.weights:
            if placement.has(w.tensor.name) and w.tensor.name not in memory.panels:
                memory.panels[w.tensor.name] = uploader.send(w)
        pack([w for w in self.weights if not placement.has(w.tensor.name)], team)
        uploader.finish()
        on_cpu = [row for row, place in zip(self._rows, self._places) if place == CPU]
        return MixedPlan(
            self.table(on_cpu, code), self.state, [self._rows, self.weights, self.keep, self._buffers], team,
            self._runs(), self.offloading, self.batch,
        )  # fmt: skip

    def _runs(self) -> list[Run]:
        runs: list[Run] = []
        n_cpu, last = 0, ""
        valid = self.offloading.valid
        for row, place in zip(self._rows, self._places):
            kind, operands = row[0].partition("/")[0], row[fields.A :]
            reads = [operands[i] for i in fields.READS.get(kind, ())]
            if kind == "matmul" and operands[ACCUMULATE]:
                reads += [operands[i] for i in fields.WRITES[kind]]
            missing = [
                host for host in reads if isinstance(host, np.ndarray) and place not in valid.get(id(host), {CPU})
            ]
            if place != last or missing:
                runs.append(Run([Copy(host, place == DEVICE) for host in missing], n_cpu))
                last = place
            for host in missing:
                valid.setdefault(id(host), {CPU}).add(place)
            for i in fields.WRITES.get(kind, ()):
                if isinstance(operands[i], np.ndarray):
                    valid[id(operands[i])] = {place}
            if place == CPU:
                n_cpu += 1
                runs[-1].count += 1
            else:
                step = self._step(kind, row[0], operands)
                runs[-1].steps += [step] if step else []
        return [run for run in runs if run.count or run.steps]

    def _step(self, kind: str, name: str, operands: list[Any]) -> Step | None:
        o = self.offloading
        if kind == "matmul":
            return ProductStep(o.memory, name, operands, self._slots)
        if kind == "rope":
            return RopeStep(o.memory, name, operands, o.n_ctx)
        if kind == "attention":
            return AttendStep(o.memory, name, operands, o.n_ctx)
        if kind == "combine":
            return None  # AttendStep has done it
        return WriteStep(o.memory, name, operands, self._slots)

    @property
    def _slots(self) -> int:
        """Tokens that activations on the device have room for: whole groups of ``products.FEW``."""
        return round_up(self.capacity, 64)


class MixedPlan(Plan):
    """Finished rows for two places."""

    def __init__(
        self, rows: npt.NDArray[np.int64], state: npt.NDArray[np.int64], keep: list[Any], team: Team, runs: list[Run],
        offloading: Offloading, batch: int,
    ) -> None:  # fmt: skip
        super().__init__(rows, state, keep, team)
        self.runs, self._offloading, self._batch, self._first = runs, offloading, batch, 0

    def start_at(self, first: int) -> None:
        self._first = first
        if self.runs[0].count:  # the row that reads them is the plan's first
            super().start_at(first)

    def run(self, n_tokens: int, position: int) -> None:
        self.state[fields.N_TOKENS] = n_tokens
        self.state[fields.POSITION] = position
        device = self._offloading.device
        device.enter()
        if any(run.steps for run in self.runs):
            self._offloading.update(position, n_tokens)
        for run in self.runs:
            for copy in run.copies:
                self._copy(copy, n_tokens)
            if run.count:
                self._team.run(address(self.rows[run.first :]), run.count)
            else:
                self._launch(run, Pass(n_tokens, self._first, device.stream))

    def fetch(self, rows: Rows, n_tokens: int) -> npt.NDArray[np.float32]:
        """The first ``n_tokens`` of ``rows``, wherever they were last written: float32 (n_tokens, stride)."""
        if CPU not in self._offloading.valid.get(id(rows.data), {CPU}):
            self._copy(Copy(rows.data, False), n_tokens, 0)
        return rows.data[:n_tokens]

    def _copy(self, copy: Copy, n_tokens: int, first: int | None = None) -> None:
        start = self._first if first is None else first
        width = copy.host.shape[1]
        flat = copy.host.reshape(-1)[start * width : (start + n_tokens) * width]
        there = self._offloading.memory.rows(copy.host, start, n_tokens)
        device = self._offloading.device
        if copy.to_device:
            device.send(flat, there)
        else:
            device.fetch(there, flat)

    def _launch(self, run: Run, p: Pass) -> None:
        """Launches every step; as a captured graph where the same number of tokens comes again."""

        def steps() -> None:
            for step in run.steps:
                step.launch(p)

        graph = run.graphs.get(p.n)
        if graph is not None and p.first == 0:
            graph.launch()
            return
        steps()
        if p.n in (1, self._batch) and p.first == 0 and p.n not in run.graphs:
            run.graphs[p.n] = self._offloading.device.capture(steps)
