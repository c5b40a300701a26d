"""Attention over the KV cache with an online softmax (Milakov & Gimelshein 2018; Dao et al. 2022).

Many tokens: an item is a KV head and a tile of query tokens with all heads that share the KV head; blocks of 64 keys
pass by. One token: an item is a KV head and a chunk of ``CHUNK`` positions, so that long contexts keep every thread
busy; ``combine`` merges the chunks. Chunks lie at fixed positions: results do not depend on the number of threads.

Cache layout: see ``rope``. All arithmetic is float32.
"""
from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit, llvm_type
from ..simd.jit import inline
from ..simd.vec import MACHINE, fma, lane_at, lanes_of, less, load, max_of, select, splat, store, sum_of, vexp, vmax, zero
from .args import arg, state
from .fields import N_TOKENS, POSITION

F = "f32x16"
KEYS = 64          # keys of a block
ROWS = 8           # query rows of a micro-tile
CHUNK = 256        # positions of a chunk when one token is decoded
MASKED = np.float32(-3.0e38)


@intrinsic(prefer_literal=True)
def outer(typingctx, a, a_stride, b, b_step, kind, n, c, c_stride, rows, add):
    """``C[rows, 16] (+)= A[rows, n] @ B[n, 16]``; strides in bytes, literals; ``n`` a multiple of 8.

    A and C are float32; ``kind`` "f16" or "f32" is B's. The microkernel of both products of attention.
    """
    sa, sb, sc, r = a_stride.literal_value, b_step.literal_value, c_stride.literal_value, rows.literal_value
    what, keep = kind.literal_value, add.literal_value
    sig = types.void(types.int64, a_stride, types.int64, b_step, kind, types.int64, types.int64, c_stride, rows, add)
    chains = max(1, 8 // r)      # independent sums, so that few rows do not wait for the adder

    def codegen(c_, builder, s, args):
        e = Emit(builder, MACHINE)
        a_, b_, n_, out = args[0], args[2], args[5], args[6]

        def body(i: Any, v: Any) -> Any:
            pa, pb, sums = v[0], v[1], list(v[2:])
            for k in range(8):
                w = e.half_load(pb, k * sb) if what == "f16" else e.load(pb, k * sb, F)
                for row in range(r):
                    j = row * chains + k % chains
                    sums[j] = e.fma(e.splat_load(pa, row * sa + 4 * k, "f32"), w, sums[j])
            return [e.at(pa, 32), e.at(pb, 8 * sb), *sums]

        start = []
        for row in range(r):
            first = e.load(out, row * sc, F) if keep else e.zero(F)
            start += [first] + [e.zero(F)] * (chains - 1)
        sums = e.loop(e.i64(0), n_, 8, [a_, b_, *start], body)[2:]
        for row in range(r):
            total = sums[row * chains]
            for j in range(1, chains):
                total = builder.fadd(total, sums[row * chains + j])
            e.store(out, row * sc, total)
        return c_.get_dummy_value()
    return sig, codegen


def _pieces(group: int, padded: int, cache: str, rows: int) -> Any:
    """``block(...)``: one block of up to 64 keys against ``rows`` query rows, updating O, m and l."""
    width = 2 if cache == "f16" else 4
    panel_bytes, key_step, row_bytes, value_step, score_bytes = padded * 16 * width, 16 * width, padded * 4, padded * width, KEYS * 4

    @inline
    def block(q, keys, values, first, n_keys, o, m, l, p, low, high):
        # keys: the panel that holds position ``first`` (a multiple of 16); values: position ``first``
        # row r sees positions low[r] .. high[r] - 1 (two int32 arrays)
        for j in range(0, n_keys, 16):
            outer(q, row_bytes, keys + j // 16 * panel_bytes, key_step, cache, padded, p + 4 * j, score_bytes, rows, 0)
        for r in range(rows):
            lo, hi = splat(load(low + 4 * r, "i32"), "i32x16"), splat(load(high + 4 * r, "i32"), "i32x16")
            row = p + r * score_bytes
            best = splat(MASKED, F)
            for j in range(0, n_keys, 16):
                at = lanes_of("i32x16") + splat(np.int32(first + j), "i32x16")
                s = select(less(at, hi), load(row + 4 * j, F), splat(MASKED, F))
                s = select(less(at, lo), splat(MASKED, F), s)
                store(row + 4 * j, s)
                best = vmax(best, s)
            before = load(m + 4 * r, "f32")
            now = max(before, max_of(best))
            total = zero(F)
            shift = splat(now, F)
            for j in range(0, n_keys, 16):
                s = load(row + 4 * j, F)
                w = select(less(splat(MASKED, F), s), vexp(s - shift), zero(F))
                store(row + 4 * j, w)
                total = total + w
            if now > before:
                alpha = lane_at(vexp(splat(np.float32(before - now), F)), 0)
                store(m + 4 * r, np.float32(now))
                store(l + 4 * r, np.float32(load(l + 4 * r, "f32") * alpha))
                for d in range(0, row_bytes, 64):
                    store(o + r * row_bytes + d, load(o + r * row_bytes + d, F) * splat(alpha, F))
            store(l + 4 * r, np.float32(load(l + 4 * r, "f32") + sum_of(total)))
        for d in range(0, padded, 16):
            outer(p, score_bytes, values + d * width, value_step, cache, n_keys, o + 4 * d, row_bytes, rows, 1)
    return block


def scratch_bytes(group: int, padded: int) -> int:
    """Bytes of scratch that a thread needs."""
    rows = tile_tokens(group, padded) * group + ROWS
    return rows * (2 * padded + 4) * 4 + ROWS * KEYS * 4 + 256


def tile_tokens(group: int, padded: int) -> int:
    """Query tokens of an item: about 32 rows, fewer where heads are large, always whole micro-tiles."""
    rows = 32 if padded <= 128 else 16
    tokens = max(1, rows // group)
    while tokens * group % ROWS:
        tokens += 1
    return tokens


def make_attention(group: str, size: str, cache: str) -> Any:
    """Columns: 0 q float32 (n_tokens, heads, padded head), scaled; 1 KV heads; 2 key cache, 3 bytes a KV head; 4 value
    cache, 5 bytes a KV head; 6 window (0: none); 7 out float32, 8 bytes a token; 9 scratch, 10 bytes a thread;
    11 partial results float32 (KV heads, chunks, group, padded head + 16): values, then m, then l; 12 chunks that fit.
    """
    g, n = int(group), int(size)
    padded = (n + 15) // 16 * 16
    width = 2 if cache == "f16" else 4
    row_bytes = padded * 4
    per_item = tile_tokens(g, padded)
    n_rows = per_item * g
    many = _pieces(g, padded, cache, ROWS)
    one = _pieces(g, padded, cache, g if g <= ROWS else 1)
    step = g if g <= ROWS else 1
    whole = n == padded

    @inline
    def clear(o, m, l, rows):
        for i in range(0, rows * row_bytes, 64):
            store(o + i, zero(F))
        for r in range(rows):
            store(m + 4 * r, MASKED)
            store(l + 4 * r, np.float32(0))

    def attention(op, thread, n_threads):
        n_tokens, position = state(op, N_TOKENS), state(op, POSITION)
        kv_heads, window = arg(op, 1), arg(op, 6)
        heads = kv_heads * g
        mine = arg(op, 9) + thread * arg(op, 10)
        p = mine
        low = p + ROWS * KEYS * 4
        if n_tokens == 1:
            start = max(np.int64(0), position + 1 - window) if window > 0 else np.int64(0)
            first_chunk, last_chunk = start // CHUNK, position // CHUNK
            n_chunks = last_chunk - first_chunk + 1
            n_items = kv_heads * n_chunks
            high = low + 4 * ROWS
            for r in range(ROWS):
                store(low + 4 * r, np.int32(start))
                store(high + 4 * r, np.int32(position + 1))
            for item in range(n_items * thread // n_threads, n_items * (thread + 1) // n_threads):
                h, chunk = item // n_chunks, first_chunk + item % n_chunks
                part = arg(op, 11) + (h * arg(op, 12) + chunk - first_chunk) * g * (row_bytes + 64)
                m = high + 4 * ROWS
                for r0 in range(0, g, step):
                    o = part + r0 * (row_bytes + 64)
                    # rows of a part are apart by 64 bytes more than a head: work in scratch, then copy
                    work = m + 4 * 2 * ROWS
                    clear(work, m, m + 4 * ROWS, step)
                    a = max(chunk * CHUNK, start // 16 * 16)
                    b = min((chunk + 1) * CHUNK, position + 1)
                    for key in range(a, b, KEYS):
                        n_keys = min(np.int64(KEYS), (b - key + 15) // 16 * 16)
                        one(arg(op, 0) + (h * g + r0) * row_bytes, arg(op, 2) + h * arg(op, 3) + key * padded * width,
                            arg(op, 4) + h * arg(op, 5) + key * padded * width, key, n_keys, work, m, m + 4 * ROWS, p, low, high)
                    for r in range(step):
                        for i in range(0, row_bytes, 64):
                            store(o + r * (row_bytes + 64) + i, load(work + r * row_bytes + i, F))
                        store(o + r * (row_bytes + 64) + row_bytes, load(m + 4 * r, "f32"))
                        store(o + r * (row_bytes + 64) + row_bytes + 4, load(m + 4 * (ROWS + r), "f32"))
            return
        high = low + 4 * n_rows
        m = high + 4 * n_rows
        l = m + 4 * n_rows
        q = l + 4 * n_rows
        o = q + n_rows * row_bytes
        n_tiles = (n_tokens + per_item - 1) // per_item
        n_items = kv_heads * n_tiles
        for number in range(thread, n_items, n_threads):
            item = n_items - 1 - number                        # the longest first
            h, tile = item % kv_heads, item // kv_heads
            for r in range(n_rows):
                t = tile * per_item + r // g
                at = position + t
                inside = t < n_tokens
                store(high + 4 * r, np.int32(at + 1) if inside else np.int32(0))
                store(low + 4 * r, np.int32(max(np.int64(0), at + 1 - window)) if window > 0 else np.int32(0))
                source = arg(op, 0) + (min(t, n_tokens - 1) * heads + h * g + r % g) * row_bytes
                for i in range(0, row_bytes, 64):
                    store(q + r * row_bytes + i, load(source + i, F))
            clear(o, m, l, n_rows)
            first = position + tile * per_item
            end = position + min(n_tokens, (tile + 1) * per_item)
            begin = max(np.int64(0), first + 1 - window) // 16 * 16 if window > 0 else np.int64(0)
            for key in range(begin, end, KEYS):
                n_keys = min(np.int64(KEYS), (end - key + 15) // 16 * 16)
                for r in range(0, n_rows, ROWS):
                    many(q + r * row_bytes, arg(op, 2) + h * arg(op, 3) + key * padded * width,
                         arg(op, 4) + h * arg(op, 5) + key * padded * width, key, n_keys, o + r * row_bytes, m + 4 * r,
                         l + 4 * r, p, low + 4 * r, high + 4 * r)
            for r in range(n_rows):
                t = tile * per_item + r // g
                if t < n_tokens:
                    f = np.float32(1) / load(l + 4 * r, "f32")
                    to = arg(op, 7) + t * arg(op, 8) + (h * g + r % g) * n * 4
                    if whole:
                        for i in range(0, row_bytes, 64):
                            store(to + i, load(o + r * row_bytes + i, F) * splat(f, F))
                    else:
                        for i in range(n):
                            store(to + 4 * i, np.float32(load(o + r * row_bytes + 4 * i, "f32") * f))
    return attention


def make_combine(group: str, size: str) -> Any:
    """Merges the chunks of one token. Columns: 0 KV heads, 1 window, 2 out, 3 partial results, 4 chunks that fit.

    Split by head. Does nothing when many tokens are processed: then ``attention`` has written its results.
    """
    g, n = int(group), int(size)
    padded = (n + 15) // 16 * 16
    row_bytes = padded * 4

    def combine(op, thread, n_threads):
        if state(op, N_TOKENS) != 1:
            return
        position, window = state(op, POSITION), arg(op, 1)
        start = max(np.int64(0), position + 1 - window) if window > 0 else np.int64(0)
        n_chunks = position // CHUNK - start // CHUNK + 1
        heads = arg(op, 0) * g
        for head in range(heads * thread // n_threads, heads * (thread + 1) // n_threads):
            part = arg(op, 3) + (head // g * arg(op, 4) * g + head % g) * (row_bytes + 64)
            step = g * (row_bytes + 64)
            best = MASKED
            for c in range(n_chunks):
                best = max(best, load(part + c * step + row_bytes, "f32"))
            total = np.float32(0)
            for c in range(n_chunks):
                a = lane_at(vexp(splat(np.float32(load(part + c * step + row_bytes, "f32") - best), F)), 0)
                store(part + c * step + row_bytes, np.float32(a))
                total += a * load(part + c * step + row_bytes + 4, "f32")
            f = np.float32(1) / total
            to = arg(op, 2) + head * n * 4
            for i in range(0, n, 16):
                v = zero(F)
                for c in range(n_chunks):
                    v = fma(load(part + c * step + 4 * i, F), splat(load(part + c * step + row_bytes, "f32"), F), v)
                v = v * splat(f, F)
                if i + 16 <= n:
                    store(to + 4 * i, v)
                else:
                    for j in range(n - i):
                        store(to + 4 * (i + j), lane_at(v, j))
    return combine
