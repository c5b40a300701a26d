"""The two products of attention over many tokens by dot products of bfloat16, from a cache of halves.

A block of keys and values is rounded to bfloat16 once for all queries of an item, into scratch: pairs of neighbours in
a lane of 32 bits, dimensions of a key and positions of a value, so that one instruction does two steps of the
microkernel ``attention.outer``, at the speed of one of float32. Queries and softmax weights are rounded likewise; sums
are float32.

Rounding to bfloat16 is off by at most 2**-9 of a number: less than int8 activations lose, and no more loss is seen in
the KL of a model that has them. More exact modes, one token and other caches keep float32.

Scratch: keys as the cache's panels, (padded head / 2, 16 positions, 2); values (positions / 2, padded head, 2).
"""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit
from ..simd.jit import inline
from ..simd.vec import MACHINE, Vec, load, store
from . import shapes

F = "f32x16"


@intrinsic
def pairs(typingctx, first, second):
    """16 halves at each of two addresses as pairs of bfloat16, the first in the low half of a lane."""

    def codegen(c, builder, s, a):
        e = Emit(builder, MACHINE)
        return e.pairs_bf16(e.half_load(a[0], 0), e.half_load(a[1], 0))

    return Vec("i32", 16)(types.int64, types.int64), codegen


@intrinsic
def rounded(typingctx, x):
    """16 floats as bfloat16."""
    return Vec("i16", 16)(x), lambda c, b, s, a: Emit(b, MACHINE).f32_to_bf16(a[0])


@inline
def write_query(x, to, size):
    """``size`` floats (a multiple of 16) at ``x`` as bfloat16."""
    for i in range(0, size, 16):
        store(to + 2 * i, rounded(load(x + 4 * i, F)))


def make_prepare(size: int) -> Any:
    """``prepare(keys, values, n_keys, to)``: ``n_keys`` keys and values (a multiple of 16) as the products read them;
    values go ``shapes.bf16_bytes(size)`` behind keys."""
    padded = shapes.padded(size)
    panel, behind = padded * 32, shapes.bf16_bytes(size)

    @inline
    def prepare(keys, values, n_keys, to):
        for j in range(0, n_keys // 16 * panel, 64):
            store(to + j, pairs(keys + j, keys + j + 32))
        for j in range(0, n_keys, 2):
            first, at = values + j * padded * 2, to + behind + j * padded * 2
            for i in range(0, padded * 2, 32):
                store(at + 2 * i, pairs(first + i, first + padded * 2 + i))

    return prepare
