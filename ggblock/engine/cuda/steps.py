"""One row of a plan on the device: what it launches for one token, for a few, and for many.

A step is made from a row's operands once and then launched for every pass. "one": a token, decoding. "few": products
take ``products.FEW`` tokens at a time through integer dot products. "many" (from ``MANY`` tokens on, where a library's
matrix product is at hand): weights are written out as bfloat16, a range of panels at a time, and multiplied there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...kernels import fields, shapes
from ..plan import floats_of, round_up
from . import activations, attention, jit, products
from .device import Device
from .gemm import Gemm
from .upload import Panels

MANY = 16
TILE_BYTES = 64 << 20  # of weights written out at a time
PART_FLOATS = 16 << 20  # of partial results of attention at a time
SLOTS = 64  # tokens of attention at a time


@dataclass
class Pass:
    """One walk over a plan: ``n`` tokens from row ``first`` of the float rows on, on ``stream``."""

    n: int
    first: int
    stream: Any


class Step(Protocol):
    def launch(self, p: Pass) -> None: ...


class Memory:
    """Arrays on the device by the host array, width or name that they stand for."""

    def __init__(self, device: Device, gemm: Gemm | None) -> None:
        self.device, self.gemm = device, gemm
        self.panels: dict[str, Panels] = {}
        self.state = device.zeros(attention.N_STATE, np.int32)
        self._by_host: dict[int, tuple[Any, Any]] = {}
        self._activations: dict[tuple[str, int], Any] = {}
        self._tile: Any = None
        self._rows: dict[tuple[int, int, int], Any] = {}
        self.none = {letter: device.zeros(1, dtype) for letter, dtype in (("u", np.uint32), ("f", np.float32))}

    def of(self, host: Any, constant: bool = False) -> Any:
        """The array on the device that stands for ``host`` (float32): zeros first, or a copy of a ``constant``."""
        if id(host) not in self._by_host:
            made = self.device.upload(host) if constant else self.device.zeros(host.size, np.float32)
            self._by_host[id(host)] = (host, made)
        return self._by_host[id(host)][1]

    def rows(self, host: Any, first: int, n: int) -> Any:
        """Rows ``first`` to ``first + n`` of what stands for ``host`` (capacity, stride), flat."""
        key = (id(host), first, n)
        if key not in self._rows:
            width = host.shape[1]
            if len(self._rows) > 1000:
                self._rows.clear()
            self._rows[key] = self.of(host)[first * width : (first + n) * width]
        return self._rows[key]

    def cache(self, host: Any, n: int, dtype: Any) -> Any:
        """Keys or values of a layer, ``n`` elements."""
        if id(host) not in self._by_host:
            self._by_host[id(host)] = (host, self.device.zeros(n, dtype))
        return self._by_host[id(host)][1]

    def activations(self, form: str, k: int, capacity: int) -> tuple[Any, Any, Any]:
        """(q or floats or bfloat16, q2, meta) for tokens of ``k`` values; padding to 256 values stays zero."""
        words = words_of(k) * capacity
        if form == "f":
            return self._one("f", k, 4 * words, np.float32), self.none["u"], self.none["f"]
        if form == "h":
            return self._one("h", k, 4 * words, np.uint16), self.none["u"], self.none["f"]
        q2 = self._one("q2", k, words, np.uint32) if form == "2" else self.none["u"]
        return (
            self._one("q", k, words, np.uint32), q2, self._one("meta", k, words // 8 * fields.SCALES, np.float32)
        )  # fmt: skip

    def _one(self, kind: str, k: int, n: int, dtype: Any) -> Any:
        found = self._activations.get((kind, k))
        if found is None or len(found) < n:
            found = self._activations[kind, k] = self.device.zeros(n, dtype)
        return found

    def shared(self, name: str, n: int) -> Any:
        """``n`` floats that all steps with that ``name`` and size share."""
        return self._one(name, n, n, np.float32)

    def tile(self, n: int) -> Any:
        """Room for ``n`` weights as bfloat16, shared by all products."""
        if self._tile is None or len(self._tile) < n:
            self._tile = self.device.empty(n, np.uint16)
        return self._tile


def words_of(k: int) -> int:
    """32-bit words of a token's int8 activations: padded to the largest block."""
    return round_up(k, 256) // 4


class Regimes:
    """Which form of activations a pass of ``n`` tokens takes, where the plan says ``one`` and ``many``."""

    def __init__(self, one: str, many: str, gemm: Gemm | None) -> None:
        # the CPU's second terms here and there ("1+") are second terms everywhere: few tokens wait for the weights
        self.forms = {"one": one, "few": "2" if many == "1+" else many}
        if gemm is not None and many in ("1", "1+"):
            self.forms["many"] = "h"

    def name(self, n: int) -> str:
        return "one" if n == 1 else "many" if n >= MANY and "many" in self.forms else "few"


class WriteStep:
    """Rows ``norm``, ``gate`` and ``copy``: activations of one width, in the form that the pass takes."""

    def __init__(self, memory: Memory, name: str, operands: list[Any], capacity: int) -> None:
        kind, *rest = name.split("/")
        one, many = rest[-2:]
        self._regimes = Regimes(one, many, memory.gemm)
        k, f, none = operands[0], operands[8:], memory.none["f"]  # 1 to 7: the host's buffers
        empty = (none, 0)
        b = empty
        weight, post, out, eps = none, none, empty, 0.0
        a = (memory.of(f[0]), f[1] // 4)
        if kind == "norm":
            weight, eps = memory.of(f[2], True), floats_of(f[3])[0]
            if isinstance(f[4], np.ndarray):
                kind = "residual"
                b, post, out = (memory.of(f[4]), f[5] // 4), memory.of(f[6], True), (memory.of(f[7]), f[8] // 4)
        elif kind == "gate":
            kind, b = rest[0], (memory.of(f[2]), f[3] // 4)
        self._arguments = (*a, *b, weight, post, *out, np.float32(eps), k)
        self._threads = jit.threads(activations.threads(k))
        self._words = words_of(k)
        self._outputs = {r: memory.activations(form, k, capacity) for r, form in self._regimes.forms.items()}
        self._kernels = {r: activations.writer(kind, form) for r, form in self._regimes.forms.items()}

    def launch(self, p: Pass) -> None:
        regime = self._regimes.name(p.n)
        self._kernels[regime][p.n, self._threads, p.stream](
            *self._arguments, p.first, *self._outputs[regime], self._words
        )


class ProductStep:
    """A row ``matmul``."""

    def __init__(self, memory: Memory, name: str, operands: list[Any], capacity: int) -> None:
        _, family, one, many = name.split("/")
        weight = operands[0]
        self._memory, self._panels = memory, memory.panels[weight.tensor.name]
        w, k = self._panels, weight.n_cols
        self._regimes = Regimes(one, many, memory.gemm)
        self._words = words_of(k)
        self._y, self._y_stride = memory.of(operands[9]), operands[10] // 4
        self._accumulate = int(operands[11])
        has_bias = int(operands[13] != 0)
        self._bias = memory.of(operands[12], True) if has_bias else None
        self._inputs = {r: memory.activations(form, k, capacity) for r, form in self._regimes.forms.items()}
        self._rest = (
            memory.none["f"] if self._bias is None else self._bias,
            w.n_rows, w.n_blocks, self._words, self._y_stride, has_bias, self._accumulate,
        )  # fmt: skip
        self._threads = products.ROWS * products.workers(w.n_parts)
        self._kernels = {
            r: products.product(family, form, 1 if r == "one" else products.FEW)
            for r, form in self._regimes.forms.items()
            if r != "many"
        }
        if "many" in self._regimes.forms:
            self._tile = products.tile(family)
            self._depth = max(k, w.n_blocks * products.block_of(family))
            self._width = max(1, min(w.n_panels, TILE_BYTES // (2 * self._depth * products.ROWS))) * products.ROWS
            memory.tile(self._depth * self._width)

    def launch(self, p: Pass) -> None:
        regime = self._regimes.name(p.n)
        if regime == "many":
            self._launch_many(p)
            return
        kernel = self._kernels[regime]
        tokens = 1 if regime == "one" else products.FEW
        views = [self._panels.views[v] for v in kernel.views]
        grid = (self._panels.n_panels, -(-p.n // tokens))
        kernel[grid, self._threads, p.stream](*views, *self._inputs[regime], self._y, *self._rest)

    def _launch_many(self, p: Pass) -> None:
        w, out = self._panels, self._memory.tile(0)
        gemm = self._memory.gemm
        assert gemm is not None
        views = [w.views[v] for v in self._tile.views]
        for first in range(0, w.n_panels * products.ROWS, self._width):
            n_panels = min(self._width // products.ROWS, w.n_panels - first // products.ROWS)
            grid = (n_panels, -(-w.n_parts // products.MAX_WORKERS))
            width = n_panels * products.ROWS
            self._tile[grid, products.ROWS * products.MAX_WORKERS, p.stream](
                *views, out, w.n_blocks, first // products.ROWS, width
            )
            gemm.product(
                out, self._inputs["many"][0], self._y, first, min(width, w.n_rows - first), p.n, w.n_cols, width,
                4 * self._words, self._y_stride, self._accumulate, p.stream,
            )  # fmt: skip
        if self._bias is not None:
            products.ADD_BIAS[(p.n, -(-w.n_rows // 128)), 128, p.stream](
                self._y, self._y_stride, self._bias, w.n_rows
            )


class RopeStep:
    """A row ``rope``."""

    def __init__(self, memory: Memory, name: str, operands: list[Any], n_ctx: int) -> None:
        _, pairs, cache, norms = name.split("/")
        o = operands
        size, n_rot = o[8], o[9]
        self._heads, kv_heads = o[2], o[5]
        cache = "f32" if cache == "f32" else "f16"
        keys, values = (memory.cache(o[i], *_cache_of(cache, kv_heads, n_ctx, size)) for i in (13, 15))
        factor, eps = floats_of(o[12])
        none = memory.none["f"]
        norm = [memory.of(o[i], True) if isinstance(o[i], np.ndarray) else none for i in (19, 20)]
        self._kernel = attention.rope(pairs, size, n_rot, norms == "norm", cache)
        self._threads = jit.threads(attention.head_threads(size))
        self._arguments = (
            memory.of(o[0]), o[1] // 4, memory.of(o[3]), o[4] // 4, memory.of(o[6]), o[7] // 4,
            memory.of(o[10]) if n_rot else none, memory.of(o[11]), keys, values, *norm,
            memory.state, self._heads, kv_heads, n_ctx, np.float32(factor), np.float32(eps),
        )  # fmt: skip
        self._grid_heads = self._heads + 2 * kv_heads

    def launch(self, p: Pass) -> None:
        self._kernel[(p.n, self._grid_heads), self._threads, p.stream](*self._arguments)


class AttendStep:
    """Rows ``attention`` and ``combine`` together: some tokens at a time, so that partial results have room."""

    def __init__(self, memory: Memory, name: str, operands: list[Any], n_ctx: int) -> None:
        _, group, size, cache, *_ = name.split("/")  # how the CPU multiplies does not matter here
        g, n = int(group), int(size)
        o = operands
        cache = "f32" if cache == "f32" else "f16"
        self._kv_heads, self._heads, window = o[1], o[1] * g, o[6]
        keys, values = (memory.cache(o[i], *_cache_of(cache, self._kv_heads, n_ctx, n)) for i in (2, 4))
        self._n_chunks = -(-n_ctx // attention.CHUNK)
        per_slot = self._kv_heads * self._n_chunks * g * shapes.padded(n)
        self._slots = max(1, min(SLOTS, PART_FLOATS // per_slot))
        parts = memory.shared("parts", self._slots * per_slot)
        tops = memory.shared("tops", self._slots * self._kv_heads * self._n_chunks * g * 2)
        self._attend, self._combine = attention.attend(g, n, cache), attention.combine(g, n)
        self._threads = jit.threads(attention.head_threads(n))
        self._attend_threads = jit.threads(attention.THREADS)
        self._first = (memory.of(o[0]), keys, values, parts, tops, memory.state)
        self._first_sizes = (self._kv_heads, n_ctx, self._n_chunks, window)
        self._second = (parts, tops, memory.of(o[7]), o[8] // 4, memory.state)
        self._second_sizes = (self._kv_heads, self._n_chunks, window)

    def launch(self, p: Pass) -> None:
        for first in range(0, p.n, self._slots):
            slots = min(self._slots, p.n - first)
            self._attend[(self._kv_heads, self._n_chunks, slots), self._attend_threads, p.stream](
                *self._first, first, *self._first_sizes
            )
            self._combine[(self._heads, slots), self._threads, p.stream](*self._second, first, *self._second_sizes)


def _cache_of(cache: str, kv_heads: int, n_ctx: int, size: int) -> tuple[int, Any]:
    """(elements, type) of the keys or values of a layer."""
    return kv_heads * n_ctx * shapes.padded(size), np.float32 if cache == "f32" else np.float16
