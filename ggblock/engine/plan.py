"""Plans: rows of int64 that the executor walks, and the builder with which a model file writes them.

A builder knows nothing of architectures: it offers the operations that kernels exist for. Rows are collected with
references in place of addresses; ``finish`` compiles or loads the kernels, packs the weights and puts the addresses in.
Activations come in two forms, int8 and float (``kernels.matmul``): the builder writes whichever the next matrix needs.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..kernels import fields
from ..kernels.families import family, form_of, in_groups, levels, loud, mode_of_many, mode_of_one, modes_of
from ..simd.host import TILE_TOKENS, WORD_MACHINES, host
from .memory import address, buffer, floats
from .store import Notify, kernels
from .team import Team
from .weights import Sketch, Weight, pack

Array = npt.NDArray[Any]

BATCH = 512  # tokens of a prefill step
TABLES_L1 = 16 * 1024  # half of a first level of cache: see tabled_blocks
UNPACKED_BYTES = 160 * 1024  # of unpacked panels that stay in a second level of cache while tiles go through them
PIECE_BYTES = 32 * 1024  # of weights that threads take at a time: 2 us; 16 and 64 KB were no better
SLICED_PANELS = 32  # the same where rows are in slices: what lies together in one is to be read in long runs
PIECES = 8  # a share of fewer is not divided: its end costs a look at another core's line, 0.1 us
SPLIT = 1024  # columns from which on threads share the work of one token's gate: 2 us of SiLU against a barrier of 0.4


def tile_tokens() -> int:
    return TILE_TOKENS[host().machine]


def multiplies_words() -> bool:
    """Whether this machine multiplies pairs of int16 faster than floats."""
    return host().machine in WORD_MACHINES


def tabled_blocks(mode: str, k: int) -> int:
    """Of rows of ``k`` columns, how many blocks one token multiplies by tables in a mode of ``fields.SLICED``.

    As many as leave what a row is multiplied with in half of a first level of cache: 5.5 bytes a column with tables, 2
    without. What comes from the second keeps the hardware from fetching weights ahead. One core of Zen 4 read Q1_0 from
    memory at 28 GB/s with tables of 2,048 columns; rows of 4,096 at 13 with no tables, 19 with half, 9 to 13 with
    all of them; rows of 8,192 at 11.7, with tables of 2,048 columns at 10.5.
    """
    _, columns, size = fields.TABLED[mode]
    return max(0, min(k // columns, (TABLES_L1 - 2 * k) // (size - columns)))


def tabled_slice(mode: str, k: int) -> int:
    """Columns of the slices in which a matrix of ``k`` columns is packed for a mode of ``fields.SLICED``, so that all
    have tables: about equal ones of 2,048 at most; ``k`` where one has room for all.

    GB/s of Q1_0, 8,192 columns to 2,048 rows, whole and in slices, on one core of Zen 4 and on two whose memory gives
    33 to 37: AVX-512 13.7 and 27.8, 26 and 33; AVX2 8.4 and 18, 16.6 and 28. Slices of 2,816 are as fast with AVX-512,
    a fifth slower with AVX2. Panels that threads take at a time, all slices of them: eight 27.4, sixteen 28.0, 32 29.8
    (``SLICED_PANELS``; two cores, AVX-512, memory of 32).
    """
    columns = fields.TABLED[mode][1]
    n_blocks = k // columns
    if tabled_blocks(mode, k) == n_blocks:
        return k
    return -(-n_blocks // -(-n_blocks // (2048 // columns))) * columns


def tables_of(mode: str, k: int) -> tuple[str, int, int]:
    """(kernel, how many at most, bytes) of the tables of one token's ``k`` activations in a mode of ``fields.TABLED``.
    """
    kernel, columns, size = fields.TABLED[mode]
    return kernel, k // columns, k // columns * size


def round_up(n: int, to: int) -> int:
    return -(-n // to) * to


def form_of_modes(modes: tuple[str, str]) -> str:
    """Activations in ``modes`` as they lie: "f" and "w" as of these of many tokens, "i" of bytes."""
    return modes[1] if modes in (("f", "f"), ("f", "w")) else "i"


def bits_of(value: float, upper: float = 0.0) -> int:
    """A float32 (and a second one above it) as the int64 that holds its bits."""
    return int(struct.unpack("<q", struct.pack("<ff", value, upper))[0])


def floats_of(bits: int) -> tuple[float, float]:
    """The two float32 that ``bits_of`` put into a column."""
    low, high = struct.unpack("<ff", struct.pack("<q", bits))
    return float(low), float(high)


@dataclass
class Rows:
    """Float rows of a batch: (capacity, stride) float32; the stride is padded to 32 and the padding stays zero."""

    data: npt.NDArray[np.float32]
    width: int

    @property
    def stride(self) -> int:
        return int(self.data.shape[1]) * 4


@dataclass
class Activations:
    """An operation that writes activations of width ``k``; its row is emitted once for each place and form.

    ``split``: threads share one token's work and wait for each other, instead of each doing all of it.
    """

    kernel: str
    k: int
    operands: list[Any]
    split: bool = False
    emitted: dict[tuple[str, str], list[Any]] = field(default_factory=dict)  # its rows, by place and form
    tables: dict[str, list[Any]] = field(default_factory=dict)  # rows that write tables of them, by kernel


@dataclass
class _Buffers:
    q: Array
    q2: Array
    meta: Array
    thread_q: int
    thread_meta: int
    tile_q: int
    tile_meta: int


def _rows_of(n: int) -> npt.NDArray[np.int64]:
    """Room for ``n`` rows of a plan."""
    return buffer(8 * fields.ROW * n).view(np.int64).reshape(n, fields.ROW)


class Plan:
    """Finished rows: run them with ``team``."""

    def __init__(self, rows: npt.NDArray[np.int64], state: npt.NDArray[np.int64], keep: list[Any], team: Team) -> None:
        self.rows, self.state, self._keep, self._team = rows, state, keep, team
        self._address, self._n_rows = address(rows), len(rows)
        self._begin = rows[:1].copy()

    def then(self, other: Plan) -> Plan:
        """One plan that runs both, this one first, each with its own ``state``: threads meet once a token less."""
        rows = _rows_of(self._n_rows + other._n_rows)
        rows[:] = np.concatenate((self.rows, other.rows))
        rows[self._n_rows - 1, fields.BARRIER] = fields.ALWAYS
        return Plan(rows, self.state, [self, other], self._team)

    def only(self, kept: list[int]) -> Plan:
        """The rows ``kept``, in their order, as a plan with the same ``state``: threads also wait where rows that are
        left out between them would have made them."""
        rows = _rows_of(len(kept))
        rows[:] = self.rows[kept]
        for i, (at, following) in enumerate(itertools.pairwise(kept)):
            if fields.ALWAYS in self.rows[at:following, fields.BARRIER]:
                rows[i, fields.BARRIER] = fields.ALWAYS
        return Plan(rows, self.state, [self], self._team)

    def start_at(self, first: int) -> None:
        """Lets the first row, a norm, read and write its float rows from row ``first`` on."""
        for operand in (*fields.READS["norm"], *fields.WRITES["norm"]):
            column = fields.A + operand
            self.rows[0, column] = self._begin[0, column] + first * self._begin[0, column + 1]

    def end_at(self, n_rows: int, data: Array) -> None:
        """Lets the last ``n_rows`` rows, a product and what goes with it, write where ``data`` is."""
        self.rows[-n_rows:, fields.A + fields.WRITES["matmul"][0]] = address(data)

    def fetch(self, rows: Rows, n_tokens: int) -> npt.NDArray[np.float32]:
        """The first ``n_tokens`` of ``rows`` after a run: float32 (n_tokens, stride)."""
        return rows.data[:n_tokens]

    def run(self, n_tokens: int, position: int) -> None:
        self.state[fields.N_TOKENS] = n_tokens
        self.state[fields.POSITION] = position
        self._team.run(self._address, self._n_rows)


class Builder:
    """Collects the rows of one plan. ``modes``: activations for one token and for many (``kernels.matmul``).

    ``place``: where the next rows run; ``engine.cuda`` knows another one.
    """

    place = "cpu"

    def __init__(self, modes: tuple[str, str], n_threads: int, batch: int = BATCH) -> None:
        self.modes, self.n_threads, self.batch = modes, n_threads, batch
        self.tile = tile_tokens()
        self.capacity = round_up(max(batch, 1), self.tile)
        self.state = buffer(8 * fields.N_STATE).view(np.int64)
        self._rows: list[list[Any]] = []
        self._buffers: dict[tuple[str, int], _Buffers] = {}
        self._zeros = floats(16)
        self._shares = buffer(0)
        self._rooms: dict[int, Array] = {}
        self.weights: list[Weight] = []
        self.keep: list[Any] = [self._zeros]

    # --- buffers
    def rows(self, width: int) -> Rows:
        """A buffer for ``capacity`` rows of ``width`` floats."""
        return Rows(floats(self.capacity, round_up(width, 32)), width)

    def _activations(self, form: str, k: int) -> _Buffers:
        key = (form, k)
        if key not in self._buffers:
            k32 = round_up(k, 256)
            one, size = {"f": (4, 4), "w": (4, 2), "i": (1, 1)}[form]  # bytes of a number of one token, of many
            thread_q, thread_meta = round_up(k32 * one, 64) + 64, fields.META * fields.word_stride(k32 // 32)
            tables = sum(n_bytes for _, _, n_bytes in (tables_of(mode, k) for mode in fields.TABLED))
            n_q = max(self.capacity * k32 * size, self.n_threads * (thread_q + tables))
            n_meta = max(self.capacity * k32 // 32 * fields.META_STEP, self.n_threads * thread_meta)
            empty = buffer(64)
            exact = round_up(k, 32)
            self._buffers[key] = _Buffers(
                buffer(n_q + 4096),
                buffer(n_q + 4096) if form == "i" else empty,
                empty if form == "f" else buffer(n_meta),
                thread_q,
                thread_meta,
                exact * self.tile * size,
                exact // 32 * fields.META_STEP * self.tile,
            )
        return self._buffers[key]

    # --- rows
    @property
    def n_rows(self) -> int:
        return len(self._rows)

    def _row(self, kernel: str, barrier: int, *operands: Any) -> list[Any]:
        row = [kernel, barrier, self.state, *operands]
        assert len(row) <= fields.ROW, kernel
        self._rows.append(row)
        return row

    def barrier(self) -> None:
        """All threads wait here for each other."""
        self._rows[-1][fields.BARRIER] = fields.ALWAYS

    def embed(self, ids: Array, w: Weight, scale: Array, x: Rows) -> None:
        """``x`` = rows ``ids`` (int64, one a token) of ``w`` times ``scale`` (float32, one number)."""
        assert len(w.slices) == 1, w.tensor.name
        w.by_rows = True
        self.weights.append(w)
        self.keep += [ids, scale]
        at = (w, w.n_panels, w.n_blocks, w.panel_bytes, ids, scale, x.data, x.stride)
        self._row(f"embed/{w.family}", fields.ALWAYS, *at)

    def floats_of_norm(self, row: int) -> list[Array]:
        """The float rows that ``row``, a norm, reads: x, and y where it has a residual."""
        kernel, at = self._rows[row][fields.KERNEL], self._rows[row][fields.A :]
        assert kernel.startswith("norm/"), kernel
        return [at[i] for i in fields.READS["norm"] if isinstance(at[i], np.ndarray)]

    def products_to(self, y: Rows, first: int, end: int) -> list[int]:
        """Which of the rows ``first`` to ``end - 1`` are matrix products that write ``y``."""
        rows, y_at = range(first, end), fields.A + fields.WRITES["matmul"][0]
        return [i for i in rows if self._rows[i][0].startswith("matmul/") and self._rows[i][y_at] is y.data]

    def norm(self, x: Rows, weight: Array, eps: float, residual: tuple[Rows, Array, Rows] | None = None) -> Activations:
        """RMS norm of x. ``residual`` = (y, its norm's weight, out): first ``out = x + norm(y)``, then norm of out."""
        y, w_post, out = residual or (None, None, None)
        more = [
            y.data if y else 0,
            y.stride if y else 0,
            w_post if y else 0,
            out.data if out else 0,
            out.stride if out else 0,
        ]
        return Activations("norm", x.width, [x.data, x.stride, weight, bits_of(eps), *more])

    def gate(self, kind: str, gate: Rows, up: Rows) -> Activations:
        """``act(gate) * up``; ``kind`` is "silu" or "gelu"."""
        split = gate.width >= SPLIT and self.n_threads > 1
        return Activations(f"gate/{kind}", gate.width, [gate.data, gate.stride, up.data, up.stride], split)

    def copy(self, x: Rows) -> Activations:
        return Activations("copy", x.width, [x.data, x.stride])

    def matmul(self, a: Activations, w: Weight, y: Rows, accumulate: bool = False, bias: Array | None = None) -> None:
        """``y (+)= a @ w.T (+ bias)``. Put a ``barrier`` after the last product that reads ``a``."""
        assert a.k == w.n_cols, (w.tensor.name, a.k, w.n_cols)
        modes = modes_of(w.family, self.modes, host().machine if self.place == "cpu" else "")
        b, read = self._activated(a, modes)
        self.weights.append(w)
        if bias is not None:
            self.keep.append(bias)
        one = self._mode_of_one(w, modes, bias is not None)
        tables = self._tables(one, a, b, *read[3:], w) if one in fields.TABLED else (0, 0, 0)
        many = mode_of_many(w.family, modes, host()) if self.place == "cpu" else modes[1]
        written = a.emitted[self.place, form_of_modes(modes)]
        if many == "1p":
            at = fields.A + fields.LEVELS
            written[at] = bits_of(*map(min, floats_of(written[at]), levels(family(w.family))))
        if self.place == "cpu" and in_groups(family(w.family), host().machine, many):
            written[fields.A + fields.TOGETHER] = fields.ALIKE
        self._row(
            f"matmul/{w.family}/{one}/{many}",
            fields.NEVER,
            w,
            w.n_panels,
            w.n_blocks,
            w.panel_bytes,
            *read,
            y.data,
            y.stride,
            int(accumulate),
            self._zeros if bias is None else bias,
            0 if bias is None else 64,
            b.tile_q,
            b.tile_meta,
            *tables,
            self.shares(),
            self._panels_a_piece(w),
            *self._unpacking(w, many),
            max(1, w.slices[0][1]),
        )

    def _activated(
        self, a: Activations, modes: tuple[str, str]
    ) -> tuple[_Buffers, tuple[Array, Array, Array, int, int]]:
        """(where ``a`` lies in the form of ``modes``, operands that say so: q, q2, meta, a thread's own bytes of q and
        of meta), after the row that writes it there."""
        form = form_of_modes(modes)
        b = self._activations(form, a.k)
        thread_q, thread_meta = (0, 0) if a.split else (b.thread_q, b.thread_meta)
        read = b.q, b.q2, b.meta, thread_q, thread_meta
        if (self.place, form) not in a.emitted:
            a.emitted[self.place, form] = self._row(
                f"{a.kernel}/{modes[0]}/{modes[1]}",
                fields.ALWAYS if a.split else fields.BATCH,
                a.k,
                *read,
                b.tile_q,
                b.tile_meta,
                *a.operands,
                *[0] * (fields.TOGETHER - 8 - len(a.operands)),
                1,
                bits_of(fields.MOST_LEVELS, fields.MOST_LEVELS),
            )
        return b, read

    def _mode_of_one(self, w: Weight, modes: tuple[str, str], is_biased: bool) -> str:
        """How one token is multiplied by ``w``, whose panels will be packed as is best for that."""
        if self.place != "cpu" or w.is_parted:
            return "0" if w.is_parted else modes[0]
        is_free = w.is_free and not is_biased
        if is_free:
            w.family = form_of(w.family, modes, host().machine)
        one = mode_of_one(w.family, modes, host().machine)
        if one in fields.SLICED and is_free:
            w.slice_columns(tabled_slice(one, w.n_cols))
        return one

    def largest(self, a: Activations, w: Weight, y: Rows) -> int:
        """``matmul`` of a weight in two parts or with a sketch, whose rows are words: of one token's logits only the
        largest are exact where word ``fields.BEST`` of the state says so (``kernels.sieve``, ``kernels.sketch``).
        Returns how many rows of the plan write ``y``. Put a ``barrier`` after it.
        """
        if w.sketch:
            return self._by_sketch(a, w, w.sketch, y)
        self.matmul(a, w, y)
        columns = self._rows[-1][fields.A : fields.A + 10]
        if self.batch == 1:
            del self._rows[-1]  # it leaves one token alone
        size = round_up(8 * fields.MOST + 4 * w.n_blocks, 64)
        lists, highest = buffer(size * self.n_threads), floats(round_up(w.n_panels, 16))
        self.keep += [lists, highest]
        rest = lists, size, highest, w.n_rows, self.shares(), self._panels_a_piece(w)
        for kernel, barrier in (("upper", fields.ALWAYS), ("rest", fields.NEVER)):
            self._row(kernel, barrier, *columns, *rest)
        return 2 if self.batch == 1 else 3

    def _by_sketch(self, a: Activations, w: Weight, sketch: Sketch, y: Rows) -> int:
        assert self.batch == 1, "a sketch is of one token's use"
        self.matmul(a, w, y)
        product = self._rows.pop()
        one = product[fields.KERNEL].split("/")[2]
        _, read = self._activated(a, self.modes)
        size = round_up(fields.before_pieces(sketch.n_blocks) + 8 * (w.n_panels + 1), 64)
        lists, bounds = buffer(size * self.n_threads), floats(2 * round_up(w.n_panels, 16) + 16)
        self.keep += [lists, bounds, sketch]
        found = lists, size, bounds, w.n_rows
        share = loud(family(w.family)) if one in fields.MIXED else 0.0
        pieces = self.shares(), max(1, PIECE_BYTES // sketch.panel_bytes) if self.n_threads > 1 else 0
        at = sketch, sketch.n_panels, sketch.n_blocks, sketch.panel_bytes
        self._row(
            f"rough/{sketch.bits}",
            fields.ALWAYS,
            *at,
            *read,
            y.data,
            *found,
            *pieces,
            sketch.centers,
            max(1, int(family(w.family).block) // 32),
            bits_of(share),
            bits_of(sketch.reach(one == "f")),
        )
        columns = product[fields.A :]
        columns[14:16], columns[21:23] = found[:2], found[2:]
        for which, barrier in ((0, fields.ALWAYS), (1, fields.NEVER)):
            self._row(f"largest/{w.family}/{one}", barrier, *columns[:23], which)
        return 3

    def _tables(
        self, one: str, a: Activations, b: _Buffers, thread_q: int, thread_meta: int, w: Weight
    ) -> tuple[Any, int, int]:  # fmt: skip
        """(tables of one token's activations in mode ``one``, a thread's share, how many ``w`` takes), behind the
        threads' second terms, each kind in a place of its own; their row is written once, for the most of them."""
        kernel, n, size = tables_of(one, a.k)
        if one in fields.SLICED and len(w.slices) == 1:
            n = tabled_blocks(one, a.k)
        modes = list(fields.TABLED)
        before = sum(tables_of(mode, a.k)[2] for mode in modes[: modes.index(one)])
        at = b.q2[self.n_threads * (b.thread_q + before) :]
        barrier = fields.NEVER
        if one in fields.SLICED and a.split:
            barrier, size = fields.ALWAYS, 0  # one for all threads, each of which writes its share
        if n and kernel not in a.tables:
            a.tables[kernel] = self._row(kernel, barrier, n, b.q, b.q2, b.meta, thread_q, thread_meta, at, size, a.k)
        if n:
            a.tables[kernel][fields.A] = max(n, a.tables[kernel][fields.A])
        return at, size, n

    def shares(self) -> Array:
        """What a row needs whose items threads take from each other (``kernels.shares``): beside that of other rows,
        since memory on a page of its own is slower to reach.
        """
        size = fields.SHARE_LINE * self.n_threads
        if len(self._shares) < size:
            self._shares = buffer(64 * size)
        self._shares, found = self._shares[size:], self._shares[:size]
        return found

    def _panels_a_piece(self, w: Weight) -> int:
        """Panels that threads take at a time of one token's product; 0 where each does its share and no more."""
        if self.n_threads == 1 or w.n_panels * w.panel_bytes < self.n_threads * PIECES * PIECE_BYTES:
            return 0
        return max(1, PIECE_BYTES // w.panel_bytes) if len(w.slices) == 1 else SLICED_PANELS

    def _unpacking(self, w: Weight, mode: str) -> tuple[Any, int, int]:
        """(room for unpacked panels, a thread's share of it in bytes, how many panels tiles of tokens go through at a
        time), so that activations come from the third level of cache once for all of them.

        Two at least: over rows of 8,192 columns a loop in C did 101 G multiply-adds a second with one and 167 with two,
        on one core of Zen 4.
        """
        share = max(1, w.n_panels // self.n_threads)
        if mode == "f":
            return 0, 0, min(share, max(1, UNPACKED_BYTES // w.panel_bytes))
        together = min(share, max(2, UNPACKED_BYTES // w.unpacked_bytes(mode)))
        size = round_up(together * w.unpacked_bytes(mode), 64)
        if size not in self._rooms:
            self._rooms[size] = buffer(size * self.n_threads)
        return self._rooms[size], size, together

    def op(self, kernel: str, barrier: int, *operands: Any) -> None:
        """Any other kernel, with its columns in order."""
        self._row(kernel, barrier, *operands)

    def kernel_names(self) -> list[str]:
        return list(dict.fromkeys(row[0] for row in self._rows))

    def finish(self, team: Team, notify: Notify | None = None) -> Plan:
        """Compiles or loads kernels, packs weights, resolves addresses."""
        code = kernels(self.kernel_names(), notify)
        pack(self.weights, team)
        table = self.table(self._rows, code)
        return Plan(table, self.state, [self._rows, self.weights, self.keep, self._buffers], team)

    def table(self, rows: list[list[Any]], code: dict[str, int]) -> npt.NDArray[np.int64]:
        """``rows`` with addresses in place of kernels' names, arrays and weights: int64 (n_rows, ROW)."""
        table = _rows_of(len(rows))
        for i, row in enumerate(rows):
            for j, value in enumerate(row):
                table[i, j] = (
                    code[value]
                    if j == 0
                    else address(value)
                    if isinstance(value, np.ndarray)
                    else value.resolve()
                    if isinstance(value, (Weight, Sketch))
                    else value
                )
        return table
