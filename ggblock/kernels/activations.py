"""What happens between matrix products: normalize, gate, and write activations in the layout that ``matmul`` reads.

With one token every thread does all of the work into buffers of its own, so that no barrier is needed before the
matrix product; with more, the threads share the tiles of tokens.

Formulas: RMS norm ``x * w / sqrt(mean(x**2) + eps)`` (Zhang & Sennrich 2019); SiLU ``x / (1 + exp(-x))``; GELU in its
tanh form (Hendrycks & Gimpel 2016). Quantization of 32 values: ``d = max|x| / 127``, ``q = round(x / d)``; with two
terms ``x = (256 q + q2) d / 256``, ``q2 = round((x / d - q) * 256)`` cut to [-127, 127]. Tiles of tokens may have fewer
levels than 127 in most of the columns (``winograd``), and steps that are multiples of one for 256 columns
(``narrow``): operands ``fields.LEVELS`` and ``fields.TOGETHER`` of every row.

Mode "w" (many tokens): one number of 16 bits (``float_words``).

Mode "1+" (many tokens): one term, and four of 32 columns with more bits (``activation_apart``) where that saves more
than ``APART`` of the rounding error of a tile's tokens, the sum of their ``d**2``. Few columns of a trained model's
residual stream are far larger than the others: one block of 18 holds 62 % of the error of SmolLM2's q, k and v and 43 %
of its gate and up. Blocks whose error is not above the average are not looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..simd.jit import inline
from ..simd.vec import (
    lane_at,
    lanes_of,
    less,
    load,
    rolled,
    select,
    splat,
    stack,
    store,
    sum_of,
    vabs,
    vexp,
    vsqrt,
    zero,
)
from .activation_apart import quantize_apart
from .activation_blocks import BLOCKS, quantize_blocks
from .activation_tiles import BYTES, GROUP_BYTES, META_BYTES, TILE, choose_steps, quantize_tile
from .args import arg, arg_f32, larger, smaller, state, word_stride
from .fields import APART, LEVELS, N_TOKENS, TOGETHER
from .float_words import Q_STEP, quantize_words

F = "f32x16"


@inline
def write_floats(a, b, x, tokens):
    """32 float values of one token into the float layout."""
    stride = 4 * tokens
    if tokens == 1:
        store(x, a)
        store(x + 64, b)
    else:
        for i in range(16):
            store(x + i * stride, lane_at(a, i))
            store(x + (i + 16) * stride, lane_at(b, i))


@inline
def squares(d):
    """Sum of the squares of the ``TILE`` scales at ``d``."""
    total = np.float32(0)
    for t in range(TILE):
        total += load(d + 4 * t, "f32") * load(d + 4 * t, "f32")
    return total


def _writer(begin: Any, value: Any, one: str, many: str) -> Any:
    """A kernel that writes rows of activations.

    ``begin(op, t)`` prepares token ``t`` and returns a float32; ``value(op, t, i, f)`` gives its values ``i .. i +
    15``.
    Columns 0-7 of all these kernels: K, q, q2, meta, thread stride of q and of meta (one token: every thread writes a
    copy of its own, or, where the strides are 0, its share of the only one), bytes of a tile of q, of meta.
    """
    one_two, one_floats = int(one == "2"), one == "f"
    mixed, floats, in_words, two = many == "1+", many == "f", many == "w", int(many == "2")

    @inline
    def half(op, n32, k, j, f):
        """16 values of the only token, the ``j``-th behind block ``k``; zeros behind the row."""
        return value(op, 0, 32 * k + 16 * j, f) if k + j // 2 < n32 else zero(F)

    @inline
    def write_blocks(op, n32, k, f, q, q2, meta):
        """``BLOCKS`` blocks of the only token, from ``k`` on."""
        quantize_blocks(
            half(op, n32, k, 0, f),
            half(op, n32, k, 1, f),
            half(op, n32, k, 2, f),
            half(op, n32, k, 3, f),
            half(op, n32, k, 4, f),
            half(op, n32, k, 5, f),
            half(op, n32, k, 6, f),
            half(op, n32, k, 7, f),
            q + 32 * k,
            q2 + 32 * k,
            meta + 4 * k,
            word_stride(n32),
            one_two,
        )

    @inline
    def fill(op, tile, n_tokens, first, n, factors, x):
        """``n`` times 32 columns of a tile's values, float32 (n, TILE, 32), at ``x``."""
        for k in range(first, first + n):
            at = x + (k - first) * BYTES
            for slot in range(rolled(TILE)):
                t = tile * TILE + slot
                if t < n_tokens:
                    f = lane_at(factors, slot)
                    store(at + 128 * slot, value(op, t, 32 * k, f))
                    store(at + 128 * slot + 64, value(op, t, 32 * k + 16, f))
                else:
                    store(at + 128 * slot, zero(F))
                    store(at + 128 * slot + 64, zero(F))

    @inline
    def set_apart(op, tile, n32, n_tokens, factors, levels, together, x):
        """What stands apart in a tile in mode "1+"; ``factors``: ``begin``'s results, a lane a token."""
        q, q2 = arg(op, 1) + tile * arg(op, 6), arg(op, 2) + tile * arg(op, 6)
        meta = arg(op, 3) + tile * arg(op, 7)
        whole = np.float32(0)
        for k in range(n32):
            whole += squares(meta + k * META_BYTES)
        least, average = np.float32(APART) * whole, np.float32(1) / np.float32(n32) * whole
        k = np.int64(0)
        while k < n32:
            n, at = smaller(together, n32 - k), meta + k * META_BYTES
            most = np.float32(0)
            for i in range(n):
                most = larger(most, squares(at + i * META_BYTES))
            if most > larger(least, average):
                fill(op, tile, n_tokens, k, n, factors, x)
                quantize_apart(x, q + k * 32 * TILE, q2 + k * 32 * TILE, at, levels, least, n, together)
            k += n

    def write(op, thread, n_threads):
        n32 = (arg(op, 0) + 31) // 32
        n_tokens = state(op, N_TOKENS)
        if n_tokens == 1:
            q, q2, meta = (
                arg(op, 1) + thread * arg(op, 4),
                arg(op, 2) + thread * arg(op, 4),
                arg(op, 3) + thread * arg(op, 5),
            )
            f = begin(op, 0)
            alone = arg(op, 4) != 0
            first = np.int64(0) if alone else n32 * thread // n_threads
            last = n32 if alone else n32 * (thread + 1) // n_threads
            if one_floats:
                for k in range(first, last):
                    write_floats(value(op, 0, 32 * k, f), value(op, 0, 32 * k + 16, f), q + k * 128, 1)
            else:
                for k in range(first, last, BLOCKS):  # the last takes some that are done again, to the same result
                    write_blocks(op, n32, larger(np.int64(0), smaller(k, last - BLOCKS)), f, q, q2, meta)
        else:
            n_tiles, levels, together = (n_tokens + TILE - 1) // TILE, arg(op, LEVELS), arg(op, TOGETHER)
            x = stack(GROUP_BYTES)
            for tile in range(n_tiles * thread // n_threads, n_tiles * (thread + 1) // n_threads):
                q, q2 = arg(op, 1) + tile * arg(op, 6), arg(op, 2) + tile * arg(op, 6)
                meta = arg(op, 3) + tile * arg(op, 7)
                factors = zero(F)
                for slot in range(rolled(TILE)):
                    t = tile * TILE + slot
                    if t < n_tokens:
                        here = less(vabs(lanes_of(F) - splat(np.float32(slot), F)), splat(np.float32(0.5), F))
                        factors = select(here, splat(begin(op, t), F), factors)
                k = np.int64(0)
                while k < n32:
                    n = smaller(together, n32 - k)
                    fill(op, tile, n_tokens, k, n, factors, x)
                    if floats:
                        for slot in range(TILE):
                            a, b = load(x + 128 * slot, F), load(x + 128 * slot + 64, F)
                            write_floats(a, b, q + k * 128 * TILE + 4 * slot, TILE)
                    elif in_words:
                        quantize_words(x, q + k * Q_STEP * TILE, meta + k * META_BYTES)
                    else:
                        choose_steps(x, meta + k * META_BYTES, levels, n, together)
                        for i in range(n):
                            at, of_meta = (k + i) * 32 * TILE, meta + (k + i) * META_BYTES
                            quantize_tile(x + i * BYTES, q + at, q2 + at, of_meta, two)
                    k += n
                if mixed:
                    set_apart(op, tile, n32, n_tokens, factors, levels, together, x)

    return write


@inline
def rms_scale(x, k, eps):
    """``1 / sqrt(mean(x**2) + eps)`` over ``k`` floats at ``x``; the row is padded with zeros to 32."""
    s0, s1 = zero(F), zero(F)
    for i in range(0, (k + 31) // 32 * 128, 128):
        a, b = load(x + i, F), load(x + i + 64, F)
        s0 = s0 + a * a
        s1 = s1 + b * b
    return np.float32(1.0) / vsqrt(sum_of(s0 + s1) / np.float32(k) + eps)


def make_norm(one: str, many: str) -> Any:
    """Optional ``x + post_norm(y)``, then RMS norm, then activations.

    Further columns: 8 x, 9 bytes a token of x, 10 weight, 11 eps, 12 y or 0, 13 bytes a token of y, 14 weight of the
    post norm, 15 where ``x + post_norm(y)`` goes (all threads write the same values there; never x itself),
    16 bytes a token of that.
    """

    @inline
    def begin(op, t):
        k, eps = arg(op, 0), arg_f32(op, 11)
        x = arg(op, 8) + t * arg(op, 9)
        y = arg(op, 12)
        if y != 0:
            y += t * arg(op, 13)
            out = arg(op, 15) + t * arg(op, 16)
            f = splat(rms_scale(y, k, eps), F)
            for i in range(0, (k + 15) // 16 * 64, 64):
                store(out + i, load(x + i, F) + load(y + i, F) * f * load(arg(op, 14) + i, F))
            x = out
        return rms_scale(x, k, eps)

    @inline
    def value(op, t, i, f):
        x = arg(op, 8) + t * arg(op, 9)
        if arg(op, 12) != 0:
            x = arg(op, 15) + t * arg(op, 16)
        return load(x + 4 * i, F) * splat(f, F) * load(arg(op, 10) + 4 * i, F)

    return _writer(begin, value, one, many)


@inline
def begin_nothing(op, t):
    return np.float32(0)


def make_gate(kind: str, one: str, many: str) -> Any:
    """``act(gate) * up``, ``kind`` "silu" or "gelu". Further columns: 8 gate, 9 bytes a token, 10 up, 11 bytes a
    token.
    """

    @inline
    def silu(g):
        return g / (splat(np.float32(1), F) + vexp(zero(F) - g))

    @inline
    def gelu(g):
        # 0.5 g (1 + tanh u) = g / (1 + exp(-2 u)), u = sqrt(2 / pi) (g + 0.044715 g**3)
        cubic = splat(np.float32(1), F) + splat(np.float32(0.044715), F) * g * g
        return g / (splat(np.float32(1), F) + vexp(zero(F) - g * splat(np.float32(1.5957691216057308), F) * cubic))

    act = {"silu": silu, "gelu": gelu}[kind]

    @inline
    def value(op, t, i, f):
        return act(load(arg(op, 8) + t * arg(op, 9) + 4 * i, F)) * load(arg(op, 10) + t * arg(op, 11) + 4 * i, F)

    return _writer(begin_nothing, value, one, many)


def make_copy(one: str, many: str) -> Any:
    """Float rows as they are. Further columns: 8 x, 9 bytes a token."""

    @inline
    def value(op, t, i, f):
        return load(arg(op, 8) + t * arg(op, 9) + 4 * i, F)

    return _writer(begin_nothing, value, one, many)
