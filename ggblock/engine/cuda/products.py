"""Matrix products, and weights as floats, generated from the families' descriptions (``lanes``).

``product``: ``y (+)= x @ w.T (+ bias)`` for up to ``tokens`` tokens at once. A block of threads holds one panel of 16
rows: thread ``16 * worker + lane`` is row ``lane``, and worker ``i`` takes every ``n_workers``-th block of the panel's
columns; their sums meet in shared memory. The arithmetic is that of ``kernels.matmul``: integer dot products of a
sub-block's codes with int8 activations (one or two terms), then ``sum += dot * (scale * d) + offset * s``.

``tile``: weights of a range of panels as bfloat16, transposed (columns, rows), for a library's matrix product.
``rows``: single rows as float32, for embeddings.

Activations (written by ``activations``): q, q2 uint32 (n_tokens, words), four signed bytes a word; meta float32
(n_tokens, words / 8, 4): d, s, s of the first 16, s of the last 16; floats float32 (n_tokens, 4 * words).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from ...blocks import by_name, tails
from ...format import panels
from ...kernels import families
from ...kernels.fields import SCALES
from . import jit, words
from .lanes import VIEWS, Lanes, Value

ROWS = panels.ROWS
MAX_WORKERS = 8
FEW = 8  # tokens that one launch takes together

_NAMES = {"np": np, "cuda": cuda, **{f: getattr(words, f) for f in ("dp4a", "permute", "as_float", "as_bits")}}


class Generated(jit.Kernel):
    """A generated kernel: ``views`` names the views of the panels that it takes first; ``source`` is its text.

    ``body``: its lines. ``arguments``: their names after the views; ``signature``: their types.
    """

    def __init__(self, name: str, body: Lanes, arguments: str, signature: str) -> None:
        self.views = tuple(v for v in VIEWS if v in body.views)
        self.source = "\n".join([f"def kernel({', '.join(self.views)}, {arguments}):", *body.lines, ""])
        first = "".join(VIEWS[v] for v in self.views)
        super().__init__(name, first + signature, jit.from_source(name, self.source, _NAMES))


class Part:
    """The blocks of a family, or the tails of its rows: the description, its units, and bytes of a panel block."""

    def __init__(self, family: str, is_tail: bool) -> None:
        base, m = families.split(family)
        self.family = families.tail(family) if is_tail else families.family(family)
        self.units = panels.units(tails.tail(by_name(base), m)) if is_tail else families.units(base)
        self.n_bytes = ROWS * sum(n for _, n, _ in self.units)
        self.block = int(self.family.block)


def parts(family: str) -> list[Part]:
    """What a row of ``family`` consists of: blocks, then maybe one tail."""
    return [Part(family, False)] + ([Part(family, True)] if families.split(family)[1] else [])


def _start(e: Lanes, of: list[Part], i: int, panel: str, block: str, lane: str) -> None:
    """Where this lane's elements of a panel block are, in each width; of the tail for ``i`` = 1."""
    size = of[0].n_bytes
    row = f"(n_blocks * {size} + {of[1].n_bytes})" if len(of) > 1 else f"n_blocks * {size}"
    e.begin(of[i].units)
    e.line(f"base = np.int64({panel}) * {row} + {block} * {size}")
    for width in (1, 2, 4):
        e.line(f"at{width} = base // {width} + {lane}")


def _weights(e: Lanes, fam: Any, use: Any) -> None:
    """Every weight of the block as a float: calls ``use(column, text)``, where ``column`` may hold ``j``."""
    if isinstance(fam, families.FloatFamily):
        for k in range(fam.block):
            use(e, str(k), fam.weights(e, "block", k).text)
        return
    shared = fam.prepare(e, "block")
    for s in range(fam.block // fam.sub):
        scale, offset = fam.scale(e, "block", shared, s)
        for k in range(fam.sub // 4):
            codes = fam.codes(e, "block", s, k)
            e.line("for j in range(4):")
            e.indent += 1
            e.line(f"code = np.int32({codes.text} >> 8 * j & 255)")
            if fam.signed:
                e.line("code = np.int32((code ^ 128) - 128)")
            text = f"np.float32(code) * {scale.text}"
            use(e, f"{s * fam.sub + 4 * k} + j", text if offset is None else f"{text} + {offset.text}")
            e.indent -= 1


def _integers(e: Lanes, fam: Any, size: int, tokens: int, terms: int) -> None:
    """Dot products of a block with ``tokens`` tokens of int8 activations, added to ``sums``.

    ``size``: weights of a whole block.
    """
    groups = fam.sub // 4
    shared = fam.prepare(e, "block")
    for s in range(fam.block // fam.sub):
        codes = [fam.codes(e, "block", s, k) for k in range(groups)]
        scale, offset = fam.scale(e, "block", shared, s)
        e.line(f"for t in range({tokens}):")
        e.indent += 1
        e.line(f"x = (token + t) * words + block * {size // 4} + {s * groups}")
        for term in ("q", "q2")[:terms]:
            e.line(f"dot_{term} = np.int32(0)")
            for k, c in enumerate(codes):
                e.line(f"dot_{term} = dp4a({_word(c)}, {term}[np.uint64(x + {k})], dot_{term})")
        total = "dot_q" if terms == 1 else "dot_q * 256 + dot_q2"
        e.line(f"m = (x // 8) * {SCALES}")
        e.line(f"add = np.float32({total}) * np.float32({scale.text} * meta[np.uint64(m)])")
        if offset is not None:
            which = 1 if fam.sub == 32 else 2 + s % 2
            e.line(f"add = np.float32(add + {offset.text} * meta[np.uint64(m + {which})])")
        e.line("sums[t] += add")
        e.indent -= 1


def _word(value: Value) -> str:
    return f"np.uint32({value.text})" if value.text.isdigit() else value.text


@cache
def product(family: str, form: str, tokens: int) -> Generated:
    """The kernel of ``family``. ``form``: "1" or "2" terms of int8, "f" for float activations.

    Arguments: views, q (or floats), q2, meta, y, bias, n_rows, n_blocks, words, y_stride, has_bias, accumulate.
    Grid: (n_panels, n_tokens / ``tokens``); block: 16 threads for each worker, at most ``MAX_WORKERS``.
    """
    of = parts(family)
    is_float = form == "f" or isinstance(of[0].family, families.FloatFamily)
    e = Lanes(1)
    e.lines += [
        "    lane = cuda.threadIdx.x & 15",
        "    worker = cuda.threadIdx.x >> 4",
        "    n_workers = cuda.blockDim.x >> 4",
        "    panel = cuda.blockIdx.x",
        f"    token = cuda.blockIdx.y * {tokens}",
        f"    parts = cuda.shared.array({MAX_WORKERS * ROWS * tokens}, np.float32)",
        f"    sums = cuda.local.array({tokens}, np.float32)",
        f"    for t in range({tokens}):",
        "        sums[t] = np.float32(0)",
    ]

    def use(e: Lanes, column: str, text: str) -> None:
        e.line(f"w = np.float32({text})")
        e.line(f"for t in range({tokens}):")
        e.line(f"    x = (token + t) * 4 * words + block * {of[0].block} + {column}")
        e.line("    sums[t] += w * q[np.uint64(x)]")

    for i, part in enumerate(of):
        if i:
            e.line("block = np.int64(n_blocks)")
            e.line("if worker == block % n_workers:")
        else:
            e.line("for block in range(worker, n_blocks, n_workers):")
        e.indent += 1
        _start(e, of, i, "panel", "block", "lane")
        if is_float:
            _weights(e, part.family, use)
        else:
            _integers(e, part.family, of[0].block, tokens, int(form))
        e.indent -= 1
    e.lines += [
        f"    for t in range({tokens}):",
        f"        parts[t * {MAX_WORKERS * ROWS} + cuda.threadIdx.x] = sums[t]",
        "    cuda.syncthreads()",
        f"    for i in range(cuda.threadIdx.x, {ROWS * tokens}, cuda.blockDim.x):",
        "        row = panel * 16 + (i & 15)",
        "        if row < n_rows:",
        f"            at = (i >> 4) * {MAX_WORKERS * ROWS} + (i & 15)",
        "            total = np.float32(0)",
        "            for other in range(n_workers):",
        "                total += parts[at + other * 16]",
        "            if has_bias:",
        "                total += bias[row]",
        "            to = np.int64(token + (i >> 4)) * y_stride + row",
        "            if accumulate:",
        "                total += y[to]",
        "            y[to] = total",
    ]
    names = "q, q2, meta, y, bias, n_rows, n_blocks, words, y_stride, has_bias, accumulate"
    return Generated(f"product/{family}/{form}/{tokens}", e, names, ("f" if is_float else "u") + "ufffiiiiii")


def _each(e: Lanes, of: list[Part], panel: str, lane: str, use: Any) -> None:
    """Every weight of block ``block`` of a row; block ``n_blocks`` is the tail."""
    for i, part in enumerate(of):
        e.line("if block == n_blocks:" if i else "if block < n_blocks:")
        e.indent += 1
        _start(e, of, i, panel, "block", lane)
        _weights(e, part.family, use)
        e.indent -= 1


@cache
def tile(family: str) -> Generated:
    """Weights as bfloat16. Arguments: views, out uint16 (n_cols, width), n_blocks, first panel, width.

    Row ``r`` of the range is column ``r`` of ``out``. Grid: (panels, ceil(blocks and tail / workers)).
    """
    of = parts(family)
    e = Lanes(1)

    def use(e: Lanes, at: str, text: str) -> None:
        e.line(f"bits = as_bits(np.float32({text}))")
        e.line("rounded = np.uint32((np.int64(bits) + 0x7FFF + (bits >> 16 & 1)) >> 16)")
        e.line(f"out[np.uint64((block * {of[0].block} + {at}) * width + column)] = np.uint16(rounded)")

    e.line("lane = cuda.threadIdx.x & 15")
    e.line("column = cuda.blockIdx.x * 16 + lane")
    e.line("block = np.int64(cuda.blockIdx.y * (cuda.blockDim.x >> 4) + (cuda.threadIdx.x >> 4))")
    _each(e, of, "(first + cuda.blockIdx.x)", "lane", use)
    return Generated(f"tile/{family}", e, "out, n_blocks, first, width", "siii")


@cache
def rows(family: str) -> Generated:
    """Rows as float32, times ``factor``. Arguments: views, ids int32 (n,), out, out_stride, n_blocks, n_cols, factor.

    Grid: (n, ceil(blocks and tail / threads)); one thread a block of a row.
    """
    of = parts(family)
    e = Lanes(1)

    def use(e: Lanes, at: str, text: str) -> None:
        e.line(f"w = np.float32({text})")
        e.line(f"c = block * {of[0].block} + {at}")
        e.line("if c < n_cols:")
        e.line("    out[np.uint64(cuda.blockIdx.x * out_stride + c)] = np.float32(w * factor)")

    e.line("row = np.int64(ids[cuda.blockIdx.x])")
    e.line("block = np.int64(cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x)")
    _each(e, of, "(row // 16)", "row % 16", use)
    return Generated(f"rows/{family}", e, "ids, out, out_stride, n_blocks, n_cols, factor", "jfiiie")


def block_of(family: str) -> int:
    """Weights of a block of ``family``."""
    return int(families.family(family).block)


@jit.kernel("add_bias", "fifi")
def ADD_BIAS(y, y_stride, bias, n_rows):  # type: ignore[no-untyped-def]
    """``y += bias`` for every token. Grid: (n_tokens, ceil(n_rows / threads))."""
    row = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if row < n_rows:
        y[np.int64(cuda.blockIdx.x) * y_stride + row] += bias[row]


def workers(n_blocks: int) -> int:
    """Workers for a row of so many blocks: a power of two, no more than there is work for."""
    n = 1
    while n < MAX_WORKERS and n < n_blocks:
        n *= 2
    return min(n, jit.SIMULATED_WORKERS) if jit.SIMULATED else n
