"""What happens between matrix products, on the device: normalize, gate, and write activations for the next product.

Formulas and quantization are those of ``kernels.activations``; the layout of the results is in ``products``. A block of
threads takes one token.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from ...kernels.fields import SCALES
from . import jit
from .words import as_bits

THREADS = 256
CHUNK = 2048  # values of a token that are in shared memory at a time; a multiple of 8 * THREADS
UNITS = CHUNK // 8
MAGIC = np.float32(12582912.0)  # 1.5 * 2**23: adding it and taking it off rounds to whole numbers, ties to even

KINDS = ("norm", "residual", "silu", "gelu", "copy")
FORMS = ("1", "2", "f", "h")  # one or two terms of int8, float32, bfloat16


@jit.device
def bfloat16(value):  # type: ignore[no-untyped-def]
    """A float32 rounded to the nearest bfloat16, as its 16 bits; NaN stays NaN."""
    bits = np.int64(as_bits(np.float32(value)))
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.uint16(rounded if value == value else 0x7FC0)


@jit.device
def total_of(value, shared):  # type: ignore[no-untyped-def]
    """The sum of ``value`` over the block's threads (a power of two of them, at most ``THREADS``)."""
    me = cuda.threadIdx.x
    cuda.syncthreads()
    shared[me] = value
    cuda.syncthreads()
    half = cuda.blockDim.x >> 1
    while half > 0:
        if me < half:
            shared[me] += shared[me + half]
        cuda.syncthreads()
        half >>= 1
    return shared[0]


def threads(k: int) -> int:
    """Threads for a token of ``k`` values: a power of two."""
    n = 32
    while n < THREADS and 4 * n < k:
        n *= 2
    return n


@cache
def writer(kind: str, form: str) -> Any:
    """The kernel that computes values of ``kind`` and writes them in ``form``.

    norm: ``a`` normalized, times ``weight``. residual: first ``out = a + norm(b) * post``, then as norm, of ``out``.
    silu, gelu: ``act(a) * b``. copy: ``a``. Arguments: a, a_stride, b, b_stride, weight, post, out, out_stride, eps, k,
    first (the row of a, b and out where token 0 is), q (uint32; float32 for "f", uint16 for "h"), q2, meta, words.
    Grid: n_tokens; strides in floats.
    """
    is_norm, is_residual = kind in ("norm", "residual"), kind == "residual"
    is_silu, is_gelu = kind == "silu", kind == "gelu"
    in_bytes, two = form in ("1", "2"), form == "2"
    is_float = form == "f"

    output = "u" if in_bytes else "f" if is_float else "s"

    @jit.kernel(f"write/{kind}/{form}", f"fififffieii{output}ufi")
    def kernel(  # type: ignore[no-untyped-def]
        a, a_stride, b, b_stride, weight, post, out, out_stride, eps, k, first, q, q2, meta, words
    ):
        t = cuda.blockIdx.x
        me = cuda.threadIdx.x
        n = cuda.blockDim.x
        values = cuda.shared.array(CHUNK, np.float32)
        shared = cuda.shared.array(THREADS, np.float32)
        a0 = np.int64(first + t) * a_stride
        b0 = np.int64(first + t) * b_stride
        out0 = np.int64(first + t) * out_stride
        factor = np.float32(1)
        if is_norm:
            total = np.float32(0)
            if is_residual:
                for i in range(me, k, n):
                    total += b[b0 + i] * b[b0 + i]
                g = np.float32(1) / np.float32(math.sqrt(np.float32(total_of(total, shared) / np.float32(k) + eps)))
                total = np.float32(0)
                for i in range(me, k, n):
                    v = np.float32(a[a0 + i] + np.float32(b[b0 + i] * g) * post[i])
                    out[out0 + i] = v
                    total += v * v
            else:
                for i in range(me, k, n):
                    total += a[a0 + i] * a[a0 + i]
            factor = np.float32(1) / np.float32(math.sqrt(np.float32(total_of(total, shared) / np.float32(k) + eps)))
        padded = (k + 31) // 32 * 32
        for start in range(0, padded, CHUNK):
            size = min(CHUNK, padded - start)
            cuda.syncthreads()
            for i in range(me, size, n):
                j = start + i
                v = np.float32(0)
                if j < k:
                    if is_residual:  # written by this very thread: CHUNK is a multiple of the number of threads
                        v = np.float32(np.float32(out[out0 + j] * factor) * weight[j])
                    elif is_norm:
                        v = np.float32(np.float32(a[a0 + j] * factor) * weight[j])
                    elif is_silu:
                        v = a[a0 + j]
                        v = np.float32(np.float32(v / (np.float32(1) + np.float32(math.exp(-v)))) * b[b0 + j])
                    elif is_gelu:
                        v = a[a0 + j]
                        u = np.float32(1) + np.float32(0.044715) * v * v
                        u = np.float32(np.float32(1.5957691216057308) * v * u)
                        v = np.float32(np.float32(v / (np.float32(1) + np.float32(math.exp(-u)))) * b[b0 + j])
                    else:
                        v = a[a0 + j]
                if in_bytes:
                    values[i] = v
                elif is_float:
                    q[np.int64(t) * words * 4 + j] = v
                else:
                    q[np.int64(t) * words * 4 + j] = bfloat16(v)
            if in_bytes:
                quantize(values, size, start, t, q, q2, meta, words)

    @jit.device
    def quantize(values, size, start, t, q, q2, meta, words):  # type: ignore[no-untyped-def]
        """``size`` values of token ``t`` from ``start`` on; four threads share the 32 values of a scale."""
        me = cuda.threadIdx.x
        n = cuda.blockDim.x
        peaks = cuda.shared.array(UNITS, np.float32)
        sums = cuda.shared.array(UNITS, np.float32)
        units = size // 8
        cuda.syncthreads()
        for u in range(me, units, n):
            peak = np.float32(0)
            for i in range(8):
                v = abs(values[8 * u + i])
                if v > peak or v != v:  # NaN goes through
                    peak = v
            peaks[u] = peak
        cuda.syncthreads()
        for u in range(me, units, n):
            peak = np.float32(0)
            for i in range(4):
                v = peaks[u // 4 * 4 + i]
                if v > peak or v != v:
                    peak = v
            inverse = np.float32(0)
            if peak > np.float32(127 / 3e38):  # zeros, or a denormal scale: zero for every purpose
                inverse = np.float32(np.float32(127) / peak)
            total, total2 = 0, 0
            for w in range(2):
                word, word2 = np.int64(0), np.int64(0)
                for i in range(4):
                    x = np.float32(values[8 * u + 4 * w + i] * inverse)
                    r = np.float32(np.float32(x + MAGIC) - MAGIC)
                    c = np.int32(r if r == r else np.float32(0))
                    total += c
                    word |= np.int64(c & 255) << (8 * i)
                    if two:
                        s = np.float32(np.float32(x - r) * np.float32(256))
                        s = np.float32(np.float32(s + MAGIC) - MAGIC)
                        s = min(max(s, np.float32(-127)), np.float32(127))
                        c = np.int32(s if s == s else np.float32(0))
                        total2 += c
                        word2 |= np.int64(c & 255) << (8 * i)
                at = np.int64(t) * words + start // 4 + 2 * u + w
                q[at] = np.uint32(word)
                if two:
                    q2[at] = np.uint32(word2)
            sums[u] = np.float32(total * 256 + total2 if two else total)
        cuda.syncthreads()
        for g in range(me, units // 4, n):
            peak = np.float32(0)
            for i in range(4):
                v = peaks[4 * g + i]
                if v > peak or v != v:
                    peak = v
            d = np.float32(peak * np.float32(1 / 127))
            if two:
                d = np.float32(d * np.float32(1 / 256))
            low, high = sums[4 * g] + sums[4 * g + 1], sums[4 * g + 2] + sums[4 * g + 3]
            at = (np.int64(t) * words // 8 + start // 32 + g) * SCALES
            meta[at] = d
            meta[at + 1] = np.float32(d * (low + high))
            meta[at + 2] = np.float32(d * low)
            meta[at + 3] = np.float32(d * high)

    return kernel
