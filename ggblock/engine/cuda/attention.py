"""Rotary positions, the KV cache and attention on the device. Formulas: ``kernels.rope`` and ``kernels.attention``.

Cache of a layer: keys and values (n_kv_heads, n_ctx, padded), float16 or float32, ``padded`` the head's size rounded up
to 16; the padding stays zero. Queries come scaled by log2(e), so the softmax is in powers of two.

``attend`` takes one token, one KV head with its group of query heads, and a chunk of positions; ``combine`` merges the
chunks. Chunks lie at fixed positions. The number of tokens is in the grid, their position in ``state`` on the device,
so that a captured graph serves every token.
"""

from __future__ import annotations

import math
from functools import cache as once

import numpy as np
from numba import cuda

from ...kernels.shapes import padded as padded_size
from . import jit

CHUNK = 64  # positions of a chunk: at depth 4,096 and 8 KV heads 512 blocks of threads for one token
THREADS = 128
LN2 = np.float32(math.log(2))
LOWEST = np.float32(-3.0e38)

LETTERS = {"f16": "h", "f32": "f"}  # types of the cache, as ``jit.Kernel`` writes them
N_TOKENS, POSITION, N_STATE = 0, 1, 4  # int32 words of the state on the device


def head_threads(size: int) -> int:
    """Threads for one head in ``rope`` and ``combine``: a power of two."""
    n = 32
    while n < size and n < THREADS:
        n *= 2
    return n


@once
def rope(pairs: str, size: int, n_rot: int, with_norm: bool, cache: str) -> jit.Kernel:
    """Turns q and k, normalizes them first where ``with_norm``, writes keys and values into the cache.

    Arguments: q, q_stride, k, k_stride, v, v_stride, table, turned float32 (n_tokens, heads, padded), keys, values,
    q_norm, k_norm (float32, of one head), state, heads, kv_heads, n_ctx, factor on q, eps. Strides in floats.
    Grid: (n_tokens, heads + 2 * kv_heads).
    """
    neox = pairs == "neox"
    padded = padded_size(size)
    half = n_rot // 2

    @jit.kernel(f"rope/{pairs}/{size}/{n_rot}/{with_norm:d}/{cache}", "fififi" + "ff" + 2 * LETTERS[cache] + "ffjiiiee")
    def kernel(  # type: ignore[no-untyped-def]
        q, q_stride, k, k_stride, v, v_stride, table, turned, keys, values, q_norm, k_norm, state, heads, kv_heads,
        n_ctx, factor, eps,
    ):  # fmt: skip
        me = cuda.threadIdx.x
        n = cuda.blockDim.x
        t = np.int64(cuda.blockIdx.x)
        h = np.int64(cuda.blockIdx.y)
        at = state[POSITION] + t
        x = cuda.shared.array(padded, np.float32)
        sums = cuda.shared.array(THREADS, np.float32)
        is_query = h < heads
        is_value = h >= heads + kv_heads
        if is_value:
            h -= heads + kv_heads
            to = (h * n_ctx + at) * padded
            for i in range(me, size, n):
                values[to + i] = v[t * v_stride + h * size + i]
            return
        if not is_query:
            h -= heads
        for i in range(me, size, n):
            x[i] = q[t * q_stride + h * size + i] if is_query else k[t * k_stride + h * size + i]
        if with_norm:
            total = np.float32(0)
            for i in range(me, size, n):
                total += x[i] * x[i]
            # no shared helper: the simulator mixes up threads in helpers of other modules
            sums[me] = total
            cuda.syncthreads()
            step = n >> 1
            while step > 0:
                if me < step:
                    sums[me] += sums[me + step]
                cuda.syncthreads()
                step >>= 1
            g = np.float32(1) / np.float32(math.sqrt(np.float32(sums[0] / np.float32(size) + eps)))
            for i in range(me, size, n):
                x[i] = np.float32(np.float32(x[i] * g) * (q_norm[i] if is_query else k_norm[i]))
        cuda.syncthreads()
        for i in range(me, half, n):
            c = table[at * n_rot + i]
            s = table[at * n_rot + half + i]
            i0 = i if neox else 2 * i
            i1 = i0 + half if neox else i0 + 1
            a, b = x[i0], x[i1]
            x[i0] = np.float32(a * c - b * s)
            x[i1] = np.float32(a * s + b * c)
        cuda.syncthreads()
        if is_query:
            to = (t * heads + h) * padded
            for i in range(me, size, n):
                turned[to + i] = np.float32(x[i] * factor)
        else:
            to = (h * n_ctx + at) * padded
            for i in range(me, size, n):
                keys[to + i] = x[i]

    return kernel


@once
def attend(group: int, size: int, cache: str) -> jit.Kernel:
    """One token, one KV head and one chunk.

    Arguments: turned, keys, values, parts float32 (slots, kv_heads, n_chunks, group, padded), tops float32 (slots,
    kv_heads, n_chunks, group, 2): largest score and sum of weights; state, first (token of slot 0), kv_heads, n_ctx,
    n_chunks, window. Grid: (kv_heads, n_chunks, slots).
    """
    padded = padded_size(size)
    rows = CHUNK if padded <= 128 else CHUNK // 2  # keys in shared memory at a time: at most 33 KB
    line = padded + 1  # of a key in shared memory: odd, so that neighbouring keys lie in different banks
    q_size, scores_size, keys_size = group * padded, group * CHUNK, rows * line

    @jit.kernel(f"attend/{group}/{size}/{cache}", "f" + 2 * LETTERS[cache] + "ffjiiiii")
    def kernel(  # type: ignore[no-untyped-def]
        turned, keys, values, parts, tops, state, first, kv_heads, n_ctx, n_chunks, window
    ):
        me = cuda.threadIdx.x
        threads = cuda.blockDim.x
        h = np.int64(cuda.blockIdx.x)
        chunk = np.int64(cuda.blockIdx.y)
        slot = np.int64(cuda.blockIdx.z)
        t = first + slot
        end = np.int64(state[POSITION]) + t + 1
        start = end - window if window > 0 and end > window else 0
        low = max(chunk * CHUNK, start)
        high = min(chunk * CHUNK + CHUNK, end)
        if low >= high:
            return
        n = high - low
        q = cuda.shared.array(q_size, np.float32)
        scores = cuda.shared.array(scores_size, np.float32)
        some = cuda.shared.array(keys_size, np.float32)
        best = cuda.shared.array(group, np.float32)
        for i in range(me, group * padded, threads):
            q[i] = turned[(t * kv_heads + h) * group * padded + i]
        base = (h * n_ctx + low) * padded
        for r in range(0, n, rows):
            here = min(rows, n - r)
            cuda.syncthreads()
            for i in range(me, here * padded, threads):
                some[i // padded * line + i % padded] = keys[base + r * padded + i]
            cuda.syncthreads()
            for i in range(me, group * here, threads):
                g, j = i // here, i % here
                total = np.float32(0)
                for d in range(padded):
                    total += q[g * padded + d] * some[j * line + d]
                scores[g * CHUNK + r + j] = total
        cuda.syncthreads()
        slot = (slot * kv_heads + h) * n_chunks + chunk
        for g in range(me, group, threads):
            top = LOWEST
            for j in range(n):
                top = max(top, scores[g * CHUNK + j])
            best[g] = top
        cuda.syncthreads()
        for i in range(me, group * n, threads):
            g, j = i // n, i % n
            scores[g * CHUNK + j] = np.float32(math.exp(np.float32((scores[g * CHUNK + j] - best[g]) * LN2)))
        cuda.syncthreads()
        for g in range(me, group, threads):
            total = np.float32(0)
            for j in range(n):
                total += scores[g * CHUNK + j]
            tops[(slot * group + g) * 2] = best[g]
            tops[(slot * group + g) * 2 + 1] = total
        for i in range(me, group * padded, threads):
            g, d = i // padded, i % padded
            total = np.float32(0)
            for j in range(n):
                total += scores[g * CHUNK + j] * np.float32(values[base + j * padded + d])
            parts[slot * group * padded + i] = total

    return kernel


@once
def combine(group: int, size: int) -> jit.Kernel:
    """Merges the chunks of tokens. Arguments: parts, tops, out, out_stride, state, first, kv_heads, n_chunks, window.

    Grid: (heads, slots).
    """
    padded = padded_size(size)

    @jit.kernel(f"combine/{group}/{size}", "fffijiiii")
    def kernel(parts, tops, out, out_stride, state, first, kv_heads, n_chunks, window):  # type: ignore[no-untyped-def]
        head = np.int64(cuda.blockIdx.x)
        slot = np.int64(cuda.blockIdx.y)
        t = first + slot
        end = np.int64(state[POSITION]) + t + 1
        start = end - window if window > 0 and end > window else 0
        c0, c1 = start // CHUNK, (end + CHUNK - 1) // CHUNK
        base = (slot * kv_heads + head // group) * n_chunks
        g = head % group
        best = LOWEST
        for c in range(c0, c1):
            best = max(best, tops[((base + c) * group + g) * 2])
        total = np.float32(0)
        for c in range(c0, c1):
            at = ((base + c) * group + g) * 2
            total += np.float32(math.exp(np.float32((tops[at] - best) * LN2))) * tops[at + 1]
        for d in range(cuda.threadIdx.x, size, cuda.blockDim.x):
            v = np.float32(0)
            for c in range(c0, c1):
                at = (base + c) * group + g
                v += np.float32(math.exp(np.float32((tops[at * 2] - best) * LN2))) * parts[at * padded + d]
            out[t * out_stride + head * size + d] = np.float32(v / total)

    return kernel
