"""What all quantizers share: where things lie in a thread's scratch, rounding, halves, and packing codes into bytes.

A quantizer works on 16 blocks at once, one a lane: "weight k" is a vector of the 16 blocks' weight ``k``. So every
search is the same scalar recurrence in 16 lanes, and nothing is ever added up across lanes.

Only additions, multiplications, divisions, square roots, comparisons and integer operations are used, and all helpers
are compiled strictly: the result is the same to the bit on every machine and for any number of threads.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ..blocks.base import Field
from ..simd.jit import inline_strict
from ..simd.vec import (
    bitcast,
    convert,
    less,
    load,
    select,
    shift_left,
    shift_right,
    splat,
    store,
    vabs,
    vmax,
    vmin,
    zero,
)

F, I = "f32x16", "i32x16"

# a thread's scratch, in bytes
TABLE = 0                   # 16 addresses of blocks, then 16 of their importance
X = 256                     # weights: 256 vectors
W = X + 256 * 64            # what their squared errors count: 256 vectors
CODES = W + 256 * 64        # 256 vectors of bytes
SMALL = CODES + 256 * 16    # codes of scales, 64 vectors of bytes
FLOATS = SMALL + 64 * 16    # 128 vectors: scales, mins and what else a search keeps
OUT = FLOATS + 128 * 64     # bytes of the blocks, byte by byte: 224 vectors of bytes
ROWS = OUT + 224 * 16       # the same, block by block
SCRATCH = ROWS + 224 * 16

MAGIC = np.float32(12582912)      # 1.5 * 2**23: adding it rounds to a whole number, halves to even, below 2**22
HUGE = np.float32(3e38)


@inline_strict
def nearest(v):
    """Whole numbers nearest to ``v``, halves to even; ``|v|`` below 2**22."""
    magic = splat(MAGIC, F)
    return (v + magic) - magic


@inline_strict
def clamp(v, low, high):
    """``v`` between two numbers."""
    return vmin(vmax(v, splat(low, F)), splat(high, F))


@inline_strict
def reciprocal(v):
    """1 / v, and 0 where that is infinite."""
    inverse = splat(np.float32(1), F) / v
    return select(less(vabs(inverse), splat(HUGE, F)), inverse, zero(F))


@inline_strict
def half_bits(v):
    """IEEE halves nearest to ``v``, ties to even, as 16 bits in int32; at most the largest number, never infinity."""
    bits = bitcast(v, I)
    magnitude = bits & splat(np.int32(0x7FFFFFFF), I)
    top = splat(np.int32(0x477FE000), I)                           # 65504
    magnitude = select(less(top, magnitude), top, magnitude)
    odd = shift_right(magnitude, 13) & splat(np.int32(1), I)
    normal = shift_right(magnitude + splat(np.int32((-112 << 23) + 0xFFF), I) + odd, 13)
    # denormal halves: adding 0.5 lets the float adder round at 2**-24
    small = bitcast(bitcast(magnitude, F) + splat(np.float32(0.5), F), I) - splat(np.int32(0x3F000000), I)
    half = select(less(magnitude, splat(np.int32(113 << 23), I)), small, normal)
    return half | (shift_right(bits, 16) & splat(np.int32(0x8000), I))


@inline_strict
def half_value(half):
    """The float32 of 16 bits of a finite half."""
    rest = bitcast(shift_left(half & splat(np.int32(0x7FFF), I), 13), F) * splat(np.float32(2.0**112), F)
    return bitcast(bitcast(rest, I) | shift_left(half & splat(np.int32(0x8000), I), 16), F)


@inline_strict
def as_half(v):
    """``v`` rounded to a half and back: what a reader will see."""
    return half_value(half_bits(v))


@inline_strict
def super_scale(top, limit):
    """``top / limit`` as an exact half, for a super-scale whose multiples up to ``limit`` must reach ``top``.

    Among the smallest halves, 2**-24 apart, rounding down would cut the largest sub-blocks off, or lose them all; a
    hundredth of a step is allowed, so that multiples of an exact super-scale find it again.
    """
    d = top / splat(limit, F)
    size = vabs(d)
    steps = size * splat(np.float32(2.0**24), F) - splat(np.float32(0.01), F)
    whole = nearest(vmin(steps, splat(np.float32(4096), F)))
    whole = whole + select(less(whole, steps), splat(np.float32(1), F), zero(F))
    up = vmax(whole, splat(np.float32(1), F)) * splat(np.float32(2.0**-24), F)
    up = select(less(d, zero(F)), zero(F) - up, up)
    tiny = less(size, splat(np.float32(2.0**-17), F)) & less(zero(F), size)
    return select(tiny, up, as_half(d))


@inline_strict
def put_byte(to, v):
    """The low bytes of an int32 vector."""
    store(to, convert(v, "i8x16"))


@inline_strict
def put_half(to, v):
    """Halves of float32 values, two bytes each."""
    bits = half_bits(v)
    put_byte(to, bits)
    put_byte(to + 16, shift_right(bits, 8))


def make_pack(field: Field, low: int = 0) -> Any:
    """``pack(codes, out)``: writes a ``uint`` field (see ``blocks.Field``) from codes, vectors of bytes.

    The field takes its bits from bit ``low`` of each code on.
    """
    per, plane = 8 // field.bits, field.plane
    step = min(plane, 4) * 16
    name = f"i8x{step}"
    mask = np.int8((1 << field.bits) - 1)
    n_groups, width, start = field.n_bytes // plane, plane * 16, field.offset * 16
    bits, offset, n_steps = field.bits, low, width // step

    @inline_strict
    def part(at):
        v = load(at, name)
        if offset:
            v = shift_right(v, offset)
        return v & splat(mask, name)

    @inline_strict
    def pack(codes, out):
        for g in range(n_groups):
            for t in range(n_steps):
                i = t * step
                at = codes + g * per * width + i
                v = part(at)
                if bits == 4:
                    v = v | shift_left(part(at + width), 4)
                elif bits == 2:
                    v = v | shift_left(part(at + width), 2) | shift_left(part(at + 2 * width), 4) \
                        | shift_left(part(at + 3 * width), 6)
                elif bits == 1:
                    v = v | shift_left(part(at + width), 1) | shift_left(part(at + 2 * width), 2) \
                        | shift_left(part(at + 3 * width), 3) \
                        | shift_left(part(at + 4 * width), 4) | shift_left(part(at + 5 * width), 5) \
                        | shift_left(part(at + 6 * width), 6) | shift_left(part(at + 7 * width), 7)
                store(out + start + g * width + i, v)
    return pack
