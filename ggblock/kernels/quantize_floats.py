"""Float32 to F16 and BF16, rounded to nearest even, and back. NaN and infinity stay; NaN becomes quiet."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..simd.jit import inline_strict
from ..simd.vec import (
    atomic_add,
    bitcast,
    convert,
    less,
    load,
    select,
    shift_left,
    shift_right,
    splat,
    store,
    sum_of,
    zero,
)
from .args import arg
from .quantize_vectors import F, I, half_bits, half_value

CHUNK = 1 << 14          # weights that a thread draws at a time


@inline_strict
def to_half(v):
    bits = bitcast(v, I)
    magnitude, sign = bits & splat(np.int32(0x7FFFFFFF), I), shift_right(bits, 16) & splat(np.int32(0x8000), I)
    # 65520 and more round to infinity; half_bits stops at 65504
    half = select(less(magnitude, splat(np.int32(0x477FF000), I)), half_bits(v), sign | splat(np.int32(0x7C00), I))
    nan = sign | splat(np.int32(0x7E00), I) | (shift_right(bits, 13) & splat(np.int32(0x1FF), I))
    return select(less(splat(np.int32(0x7F800000), I), magnitude), nan, half)


@inline_strict
def to_bf16(v):
    bits = bitcast(v, I)
    magnitude, high = bits & splat(np.int32(0x7FFFFFFF), I), shift_right(bits, 16)
    rounded = shift_right(bits + splat(np.int32(0x7FFF), I) + (high & splat(np.int32(1), I)), 16)
    return select(less(splat(np.int32(0x7F800000), I), magnitude), high | splat(np.int32(0x40), I), rounded)


@inline_strict
def from_half(bits):
    special = less(splat(np.int32(0x7BFF), I), bits & splat(np.int32(0x7FFF), I))      # infinity and NaN
    wide = bitcast(half_value(bits), I)
    kept = shift_left(bits & splat(np.int32(0x3FF), I), 13) | (wide & splat(np.int32(-1 << 31), I))
    return bitcast(select(special, kept | splat(np.int32(0x7F800000), I), wide), F)


@inline_strict
def from_bf16(bits):
    return bitcast(shift_left(bits, 16), F)


@inline_strict
def read_f32(at):
    return load(at, F)


@inline_strict
def read_f16(at):
    return from_half(convert(load(at, "i16x16"), I) & splat(np.int32(0xFFFF), I))


@inline_strict
def read_bf16(at):
    return from_bf16(convert(load(at, "i16x16"), I))


#: Number type: function that reads 16 of them as float32, and bytes of one.
READERS = {"f32": (read_f32, 4), "f16": (read_f16, 2), "bf16": (read_bf16, 2)}


@inline_strict
def each_vector(counter, n, step, source, out, bad):
    """``bad = step(source, out, at, bad)`` for 16 numbers from ``at`` on, until all ``n`` are done (at least 16).

    Threads draw chunks by the counter. The last 16 numbers overlap those before.
    """
    while True:
        first = atomic_add(counter, 1) * CHUNK
        if first >= n:
            break
        for i in range((min(CHUNK, n - first) + 15) // 16):
            bad = step(source, out, min(first + 16 * i, n - 16), bad)
    return bad


@inline_strict
def note(bad, faults):
    """Where a lane is bad, there is a fault."""
    if sum_of(convert(bad, I)) != 0:
        store(faults, np.int64(1))


def make_convert(name: str, source: str = "f32") -> Any:
    """As ``quantize.make_quantize``, for "f16" and "bf16": a block is a weight, and there are at least 16.

    Faults: a number that is not finite, or becomes infinite.
    """
    one = to_half if name == "f16" else to_bf16
    bad_from = np.int32(0x477FF000 if name == "f16" else 0x7F7F8000)
    read, width = READERS[source]

    @inline_strict
    def step(rows, out, at, bad):
        v = read(rows + width * at)
        store(out + 2 * at, convert(one(v), "i16x16"))
        return bad | less(splat(np.int32(bad_from - 1), I), bitcast(v, I) & splat(np.int32(0x7FFFFFFF), I))

    def convert_floats(op, thread, n_threads):
        note(each_vector(arg(op, 5), arg(op, 3), step, arg(op, 0), arg(op, 2), zero("b1x16")), arg(op, 8))
    return convert_floats


def make_widen(name: str) -> Any:
    """Columns: numbers of type "f16" or "bf16", 0, float32 out, how many (at least 16), 0, counter. Exact."""
    read, _ = READERS[name]

    @inline_strict
    def step(source, out, at, bad):
        store(out + 4 * at, read(source + 2 * at))
        return bad

    def widen(op, thread, n_threads):
        each_vector(arg(op, 5), arg(op, 3), step, arg(op, 0), arg(op, 2), zero("b1x16"))
    return widen


def make_scan(name: str) -> Any:
    """Columns: numbers of type "f32", "f16" or "bf16", 0, 0, how many (at least 16), 0, counter, 0, 0, faults.

    Faults: a number that is not finite. A copy needs no more than this look at the exponents.
    """
    half = name != "f32"
    kind, width = ("i16x16", 2) if half else (I, 4)
    mask = {"f32": np.int32(0x7F800000), "f16": np.int16(0x7C00), "bf16": np.int16(0x7F80)}[name]
    below = mask - type(mask)(1)

    @inline_strict
    def step(source, out, at, bad):
        return bad | less(splat(below, kind), load(source + width * at, kind) & splat(mask, kind))

    def scan(op, thread, n_threads):
        note(each_vector(arg(op, 5), arg(op, 3), step, arg(op, 0), arg(op, 2), zero("b1x16")), arg(op, 8))
    return scan
