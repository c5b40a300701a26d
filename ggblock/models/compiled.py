"""A model that runs: plans, weights and KV cache of one file.

The architecture's file writes the rows of the layers; everything else is the same for all: embedding of ids, batches
of at most ``BATCH`` tokens, the head, and what of the last layer is computed for the tokens that ask for logits alone
(``last_layer``).
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import errors
from ..engine.memory import Arena, buffer, floats
from ..engine.placement import Offload, layer_of, parse
from ..engine.plan import BATCH, Builder, Plan, Rows, bits_of, multiplies_words, round_up
from ..engine.store import Notify, default_threads, kernels
from ..engine.team import Team
from ..engine.weights import Weight, describe, packing_kernels, sketch_of, vector
from ..format import GgufFile
from ..format.reader import Tensor
from ..kernels import fields, shapes
from . import ACTIVATIONS, ARCHITECTURES, KV_TYPES
from .config import Config, Source, read_config
from .head import LOGIT_ROWS, DrawnHead, Head, draw_head
from .last_layer import LastLayer, Place
from .rope import RopeTable

DEFAULT_CONTEXT = 8192
LOG2_E = 1.4426950408889634  # attention's softmax is in powers of two
SIEVED_WEIGHTS = 1 << 24  # of an output matrix from which on it has a sketch, or is kept in two parts
SKETCH_SHARE = 0.22 # of the file that a sketch may take: memory is to be 1.25 times the file, and what else is needed


class KvCache:
    """Keys and values of one layer; layout in ``kernels.rope``. ``keys`` and ``values`` begin with those of position 0.
    """

    def __init__(self, arena: Arena, n_kv_heads: int, head_bytes: int, run_bytes: int) -> None:
        self.head_bytes = head_bytes
        self.data = arena.take(n_kv_heads * head_bytes)
        self.keys, self.values = self.data, self.data[run_bytes:]


class Layers:
    """What an architecture's ``layers`` function writes with: the builder, the residual stream and the pieces of a
    layer.

    ``x`` is the residual stream: rows of ``n_embd`` floats, already holding the (scaled) embeddings.
    """

    def __init__(self, source: Source, config: Config, builder: Builder, n_ctx: int, kv_type: str) -> None:
        self.source, self.config, self.builder, self.n_ctx, self.kv_type = source, config, builder, n_ctx, kv_type
        self.x = builder.rows(config.n_embd)
        c = config
        self.q, self.k, self.v = (builder.rows(n * c.head) for n in (c.n_heads, c.n_kv_heads, c.n_kv_heads))
        self.attended, self.y = builder.rows(c.n_heads * c.head), builder.rows(c.n_embd)
        self.gated, self.up = builder.rows(c.n_ff), builder.rows(c.n_ff)
        self.tables: list[RopeTable] = []
        self.caches: list[KvCache] = []
        run = shapes.run(kv_type)
        self.run_bytes = run // 16 * shapes.panel_bytes(config.head, kv_type)
        second = run // 16 * shapes.second_bytes(config.head, kv_type)
        self._head_bytes = 2 * -(-n_ctx // run) * (self.run_bytes + second)
        self._arena = Arena(config.n_layers * config.n_kv_heads * self._head_bytes)
        group = c.n_heads // c.n_kv_heads
        self._turned = floats(builder.capacity, c.n_heads * shapes.padded(c.head))
        self._scratch_bytes = shapes.scratch_bytes(group, c.head)
        self._scratch = buffer(self._scratch_bytes * builder.n_threads)
        self._chunks = shapes.n_chunks(n_ctx)
        self._parts = floats(c.n_kv_heads * self._chunks * shapes.part_floats(group, c.head))
        self._tops = floats(c.n_heads, shapes.n_tops(n_ctx)) if kv_type == "q12" else None
        builder.keep += [self._turned, self._scratch, self._parts, self._tops]
        self.last = Place()

    def each(self) -> Iterator[int]:
        """The layers, 0-based: the rows that are written before the next one is taken are the layer's."""
        for i in range(self.config.n_layers):
            self.last.first = self.builder.n_rows
            yield i

    def matrix(self, name: str, n_rows: int, n_cols: int) -> Weight:
        return describe(self.source.tensor(name, n_rows, n_cols))

    def vector(self, name: str, n: int) -> Any:
        v = vector(self.source.tensor(name, n))
        self.builder.keep.append(v)
        return v

    def optional_vector(self, name: str, n: int) -> Any:
        return self.vector(name, n) if self.source.has(name) else None

    def attention(
        self,
        table: RopeTable | None,
        pairs: str,
        scale: float,
        window: int = 0,
        q_norm: Any = None,
        k_norm: Any = None,
    ) -> None:
        """q, k and v are in their buffers: turns them, stores keys and values, leaves the result in ``attended``.

        ``table`` None: a layer without positions, nothing is turned. While one token's context is a single chunk,
        threads go through all three operations with KV heads of their own and wait for nobody."""
        c, b = self.config, self.builder
        cache = KvCache(self._arena, c.n_kv_heads, self._head_bytes, self.run_bytes)
        self.caches.append(cache)
        if table is not None and table not in self.tables:
            self.tables.append(table)
        barrier = fields.EARLY if shapes.chunk(c.n_kv_heads, 0) < shapes.CHUNK else fields.DEEP
        norms = "none" if q_norm is None and k_norm is None else "norm"
        b.op(
            f"rope/{pairs}/{self.kv_type}/{norms}",
            barrier,
            self.q.data,
            self.q.stride,
            c.n_heads,
            self.k.data,
            self.k.stride,
            c.n_kv_heads,
            self.v.data,
            self.v.stride,
            c.head,
            0 if table is None else c.n_rot,
            0 if table is None else table.data,
            self._turned,
            bits_of(scale * LOG2_E, c.eps),
            cache.keys,
            cache.head_bytes,
            cache.values,
            cache.head_bytes,
            self._scratch,
            self._scratch_bytes,
            0 if q_norm is None else q_norm,
            0 if k_norm is None else k_norm,
        )
        self.last.rope = b.n_rows - 1
        group = c.n_heads // c.n_kv_heads
        places = [cache.keys, cache.head_bytes, cache.values, cache.head_bytes]
        tops = [] if self._tops is None else [self._tops, self._tops.strides[0]]
        b.op(
            f"attention/{group}/{c.head}/{self.kv_type}" + self._products(),
            barrier,
            self._turned,
            c.n_kv_heads,
            *places,
            window,
            self.attended.data,
            self.attended.stride,
            self._scratch,
            self._scratch_bytes,
            self._parts,
            self._chunks,
            b.shares(),
            *tops,
        )
        b.op(
            f"combine/{group}/{c.head}" + ("" if self._tops is None else f"/{self.kv_type}"),
            fields.ALWAYS,
            c.n_kv_heads,
            window,
            self.attended.data,
            self._parts,
            self._chunks,
            *([] if self._tops is None else [self._turned, *places, *tops]),
        )

    def _products(self) -> str:
        """Where activations are int8 anyway, attention over many tokens multiplies numbers of 16 bits, if the machine
        does that faster."""
        short = self.kv_type in ("f16", "q12") and self.builder.modes[1] == "1+" and multiplies_words()
        return "/words" if short else ""


class CompiledModel:
    """A loaded model. ``forward`` appends to the KV cache; one call at a time.

    ``n_vocab``, ``n_ctx`` (tokens the cache holds), ``n_ctx_train``, ``config``.
    """

    def __init__(
        self,
        file: GgufFile,
        config: Config,
        n_ctx: int,
        team: Team,
        plan: Any,
        head: Head,
        drawn: _Drawn,
    ) -> None:
        self.config, self.n_vocab, self.n_ctx, self.n_ctx_train = config, config.n_vocab, n_ctx, config.n_ctx_train
        self._team, self._layers, self._plan, self._head = team, drawn.layers, plan, head
        self._embedding = drawn.embedding
        # None where a device computes some of it
        self._last_layer = LastLayer(drawn.builder, drawn.layers, plan, head.plan) if type(plan) is Plan else None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def n_threads(self) -> int:
        return self._team.n_threads

    def forward(
        self,
        ids: Sequence[int] | npt.NDArray[Any],
        position: int,
        all_logits: bool = False,
        best: int = 0,
    ) -> npt.NDArray[np.float32]:
        """Runs ``ids`` at ``position`` (0-based) and on; keys and values from there on are overwritten.

        Returns the logits after the last token, float32 (1, n_vocab), or after every token, (n, n_vocab). ``best``:
        only so many of the largest after the last token are asked for, which may take less time; the others are then
        below these, but may be inexact. 0: all. Raises ``ContextOverflow`` when the tokens do not fit,
        ``SettingError`` for an id outside the vocabulary.
        """
        tokens = np.asarray(ids, np.int64)
        n = len(tokens)
        if n == 0:
            raise errors.SettingError("there are no tokens to run", where="ids")
        if position < 0 or position + n > self.n_ctx:
            raise errors.ContextOverflow(
                "the tokens do not fit the context", expected=f"at most {self.n_ctx}", actual=position + n
            )
        lowest, highest = (int(tokens[0]),) * 2 if n == 1 else (int(tokens.min()), int(tokens.max()))
        if lowest < 0 or highest >= self.n_vocab:
            bad = lowest if lowest < 0 else highest
            raise errors.SettingError(
                "token id outside the vocabulary", where="ids", expected=f"0 to {self.n_vocab - 1}", actual=bad
            )
        with self._lock:
            if self._closed:
                raise errors.SettingError("the model is closed")
            for table in self._layers.tables:
                table.ensure(position + n)
            if self._last_layer is not None and (n == 1 or not all_logits):
                return self._last_logits(self._last_layer, tokens, position, best)
            out = np.empty((n if all_logits else 1, self.n_vocab), np.float32)
            for start in range(0, n, BATCH):
                batch = tokens[start : start + BATCH]
                self._embedding.put(batch, self._layers.x)
                self._plan.run(len(batch), position + start)
                if all_logits:
                    for first in range(0, len(batch), LOGIT_ROWS):
                        count = min(LOGIT_ROWS, len(batch) - first)
                        rows = self._head.rows(first, count)
                        out[start + first : start + first + count] = rows[:, : self.n_vocab]
            if not all_logits:
                out[:] = self._head.rows(len(batch) - 1, 1)[:, : self.n_vocab]
        return out

    def _last_logits(
        self, layer: LastLayer, tokens: npt.NDArray[np.int64], position: int, best: int
    ) -> npt.NDArray[np.float32]:
        """Logits after the last of ``tokens``, which alone goes through all of the last layer."""
        for start in range(0, len(tokens), BATCH):
            batch = tokens[start : start + BATCH]
            self._embedding.put(batch, self._layers.x)
            if len(batch) > 1:
                layer.until.run(len(batch), position + start)
        if len(batch) > 1:
            layer.bring(len(batch) - 1)
        plan = layer.step if len(batch) == 1 else layer.alone
        return self._head.last(plan, position + len(tokens) - 1, best)[:, : self.n_vocab]

    def close(self) -> None:
        """Ends the threads and lets go of the weights."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._team.close()
                del self._plan, self._head, self._last_layer, self._layers, self._embedding


class Embedding:
    """Where a step's tokens get their vectors: from the panels of ``weight`` by a row of the plan, or, where those are
    not in memory, from the rows of the file.

    ``scale``: factor on the vectors, float32 (1,); an architecture says it when its layers are written.
    """

    def __init__(self, tensor: Tensor, weight: Weight | None, batch: int) -> None:
        self._tensor, self.weight = tensor, weight
        self.ids, self.scale = buffer(8 * batch).view(np.int64), floats(1)

    def put(self, ids: npt.NDArray[np.int64], x: Rows) -> None:
        """Lets the next run of the plan begin with tokens ``ids``; ``x`` is its residual stream."""
        if self.weight is not None:
            self.ids[: len(ids)] = ids
            return
        tensor = self._tensor
        x.data[: len(ids), : x.width] = tensor.row.decode(tensor.gather(ids)) * self.scale


@dataclass
class _Drawn:
    """The plans of a model before anything is compiled or read: the layers, and the heads that follow them, for one
    token and for many."""

    layers: Layers
    builder: Builder
    head: DrawnHead
    heads: DrawnHead
    embedding: Embedding

    def kernel_names(self, every: bool) -> list[str]:
        """The kernels that running the plans takes, in the order in which they are first met; ``every``: also those of
        logits of many tokens."""
        builders = [self.builder, self.head.builder, *([self.heads.builder] if every else [])]
        packing = packing_kernels([w for b in builders for w in b.weights])
        return list(dict.fromkeys(["team", "post", *packing, *(name for b in builders for name in b.kernel_names())]))


def _draw(
    source: Source, config: Config, n_ctx: int, n_threads: int, kv_type: str, activations: str, offloading: Any = None
) -> _Drawn:
    modes, head_modes = ACTIVATIONS[activations]

    def new_builder(modes: tuple[str, str], batch: int) -> Builder:
        if offloading is None:
            return Builder(modes, n_threads, batch)
        from ..engine.cuda.plan import MixedBuilder

        return MixedBuilder(modes, n_threads, batch, offloading)

    builder = new_builder(modes, min(BATCH, round_up(n_ctx, 16)))
    layers = Layers(source, config, builder, n_ctx, kv_type)
    output = layers.matrix(_output_name(source), config.n_vocab, config.n_embd)
    if offloading is None and head_modes[0] == "2" and output.n_rows * output.n_cols >= SIEVED_WEIGHTS:
        output = _sieved(source, output)
    embedding = _embedding(source, output, builder.batch, offloading)
    if embedding.weight is not None:
        builder.embed(embedding.ids, embedding.weight, embedding.scale, layers.x)
    written = importlib.import_module(f".{config.architecture}", __package__).layers(layers)
    if offloading is not None:
        offloading.tables = layers.tables
    heads = draw_head(new_builder(head_modes, LOGIT_ROWS), config, written, layers.x, output)
    head = heads
    if offloading is None:  # one token's: by kernels that the layers have already, where they are alike
        head = draw_head(Builder((head_modes[0], modes[1]), n_threads, 1), config, written, layers.x, output)
    embedding.scale[0] = written.embedding_scale
    return _Drawn(layers, builder, head, heads, embedding)


def _sieved(source: Source, output: Weight) -> Weight:
    """An output matrix of which few logits can be had: with a sketch, or in parts where that takes too much memory."""
    sketch = sketch_of(output)
    if sketch and sketch.n_bytes <= SKETCH_SHARE * sum(t.n_bytes for t in source.file.tensors.values()):
        output.sketch = sketch
        return output
    return describe(output.tensor, in_parts=True)


def _embedding(source: Source, output: Weight, batch: int, offloading: Any) -> Embedding:
    """From panels where the host has them: those of a shared output matrix, or of a file in panels."""
    tensor = source.tensor("token_embd.weight", output.n_rows, output.n_cols)
    if output.tensor is not tensor:
        return Embedding(tensor, describe(tensor) if tensor.in_panels else None, batch)
    on_device = offloading is not None and offloading.placement.has(tensor.name)
    return Embedding(tensor, None if on_device else output, batch)


def _output_name(source: Source) -> str:
    return "output.weight" if source.has("output.weight") else "token_embd.weight"


def _offloading(
    offload: Offload, source: Source, config: Config, n_ctx: int, kv: str, asked_kv: str | None, notify: Notify | None
) -> Any:
    """What a device computes (``engine.cuda.plan.Offloading``), or None."""
    if offload.kind == "none":
        return None
    from ..engine.cuda.start import start

    output = _output_name(source)
    matrices = {
        name: describe(tensor)
        for name, tensor in source.file.tensors.items()
        if name == output or (len(tensor.shape) == 2 and layer_of(name) is not None)
    }
    sizes = {name: w.n_panels * w.panel_bytes for name, w in matrices.items()}
    per_position = config.n_kv_heads * shapes.padded(config.head) * (4 if kv == "f32" else 2)
    found = start(offload, sizes, config.n_layers, 2 * round_up(n_ctx, 64) * per_position, n_ctx, notify)
    if found is not None and asked_kv in ("q8_0", "q12") and notify is not None:
        notify(f"layers on the GPU keep keys and values as f16, which is larger than {asked_kv}")
    return found


def _source_of(file: GgufFile) -> Source:
    architecture = file.metadata["general.architecture"] if "general.architecture" in file.metadata else None
    if not isinstance(architecture, str):
        raise errors.MissingKey("the file names no architecture", file=file.path, where="general.architecture")
    if architecture not in ARCHITECTURES:
        raise errors.UnknownArchitecture(
            "this architecture cannot be run",
            file=file.path,
            where="general.architecture",
            expected=" or ".join(ARCHITECTURES),
            actual=architecture,
        )
    return Source(file, architecture)


def default_kv(activations: str) -> str:
    """The type of KV cache where none is asked for. The one of 12 bits loses less than 8-bit activations do, but more
    than the other two ways to hold them, and wants a machine that multiplies int16 fast."""
    return "q12" if activations == "fast" and multiplies_words() else "f16"


def _checked(reference: bool, activations: str | None, kv_type: str | None) -> tuple[str, str]:
    """(activations, type of the KV cache) with what was not said filled in."""
    if reference and activations not in (None, "exact"):
        raise errors.SettingError(
            "contradicts the reference mode", where="activations", expected="exact", actual=activations
        )
    how = activations or ("exact" if reference else "fast")
    kv = kv_type or ("f32" if reference else default_kv(how))
    if how not in ACTIVATIONS:
        raise errors.SettingError(
            "no such way to hold activations", where="activations", expected=" or ".join(ACTIVATIONS), actual=how
        )
    if kv not in KV_TYPES:
        raise errors.SettingError("unknown type of KV cache", where="kv", expected=" or ".join(KV_TYPES), actual=kv)
    return how, kv


def kernels_of(file: GgufFile, *, kv_type: str | None, reference: bool, activations: str | None) -> list[str]:
    """See ``models.kernels_of``."""
    how, kv = _checked(reference, activations, kv_type)
    source = _source_of(file)
    return _draw(source, read_config(source), 1, 1, kv, how).kernel_names(every=True)


def compile_model(
    file: GgufFile,
    *,
    threads: int | None,
    context: int | None,
    kv_type: str | None,
    reference: bool,
    activations: str | None,
    offload: Any,
    notify: Notify | None,
) -> CompiledModel:
    """See ``models.build``."""
    source = _source_of(file)
    how, kv = _checked(reference, activations, kv_type)
    wanted = parse(offload)
    config = read_config(source)
    n_ctx = min(config.n_ctx_train, DEFAULT_CONTEXT) if context is None else context
    if n_ctx < 1 or n_ctx > 1 << 22:
        raise errors.SettingError("out of range", where="context", expected="1 to 4194304", actual=n_ctx)
    n_threads = default_threads() if threads is None else threads
    offloading = _offloading(wanted, source, config, n_ctx, kv, kv_type, notify)
    drawn = _draw(source, config, n_ctx, n_threads, kv, how, offloading)
    kernels(drawn.kernel_names(every=False), notify)
    team = Team(n_threads)
    try:
        plan = drawn.builder.finish(team)
        head = Head(drawn.head, drawn.heads, team, notify)
    except BaseException:
        team.close()
        raise
    return CompiledModel(file, config, n_ctx, team, plan, head, drawn)
