"""Attention over the KV cache with an online softmax (Milakov & Gimelshein 2018; Dao et al. 2022).

Many tokens: an item is a KV head and a tile of query tokens with all heads that share the KV head; blocks of 64 keys
pass by. One token: an item is a KV head and a chunk of its context (``shapes.chunk``), so that every thread is busy;
``combine`` merges the chunks. Chunks lie at fixed positions: results do not depend on the number of threads.

Cache layout: see ``rope``; with 8 bits the two products are those of ``attention_q8_0``, with 12 bits one token's are
those of ``attention_q12``, and those of many tokens may be those of ``attention_words``. All other arithmetic is
float32. Queries come scaled by log2(e), so the softmax is in powers of two.
A masked score is -3e38: its weight is 2**-126 of the largest, which is nothing; a block in which a row sees nothing
leaves a sum that the first real score multiplies by zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..simd.jit import inline
from ..simd.machines import MACHINES
from ..simd.vec import (
    MACHINE,
    fma,
    lane_at,
    load,
    rolled,
    splat,
    stack,
    store,
    vexp2,
    zero,
)
from . import attention_q8_0, attention_q12, attention_words, cache_q12, shapes
from .args import arg, chunk_of, larger, place, second_plane, smaller, state
from .attention_products import outer
from .attention_q8_0 import write_query
from .fields import N_TOKENS, POSITION, TURN
from .shapes import KEYS, MICRO_ROWS
from .shares import START, end_of, first_of, take
from .softmax import MASKED, make_online

F = "f32x16"
NOWHERE = np.int64(0)
PANELS = 2  # panels of a micro-tile when many tokens are processed; one token: 2 and 4 were 30 % slower than 1


def _block(size: int, cache: str, rows: int, block_keys: int, many: bool) -> Any:
    """``block(...)``: one block of up to ``block_keys`` keys against ``rows`` query rows, updating O, m and l.
    ``cache`` is that of the KV cache, or "words", what ``attention_words`` made of it."""
    padded = shapes.padded(size)
    if cache == "words":
        return make_online(padded * 4, rows, block_keys, *attention_words.make_products(size, rows, block_keys), True)
    if cache == "q8_0":
        return make_online(padded * 4, rows, block_keys, *attention_q8_0.make_products(size, rows, block_keys, many))
    if cache == "q12":
        products = attention_q12.make_products(size, rows, block_keys)
        return make_online(padded * 4, rows, block_keys, *products, marks=True)
    width = 4 if cache == "f32" else 2
    panel_bytes, key_step, row_bytes, value_step, score_bytes = (
        padded * 16 * width,
        16 * width,
        padded * 4,
        padded * width,
        block_keys * 4,
    )
    wide = MACHINES[MACHINE].lanes >= 16  # 32 registers of 16 lanes: two panels at a time
    micro = rows if wide or rows % 4 else 4  # rows of a micro-tile
    at_once = PANELS if wide and many else 1
    # one token streams through the whole cache: the next block but one, into L2 (on Zen 4, SmolLM2 at depth 4,096:
    # 3.0 ms without, 2.5 with, 4.1 with prefetch into L1)
    far = 0 if many else max(16384, KEYS * value_step)
    values_wide = at_once > 1 and padded % (16 * at_once) == 0
    value_apart = 16 * width

    @inline
    def scores(q, keys, n_keys, p):
        done = np.int64(0)
        if at_once > 1:
            while done + 16 * at_once <= n_keys:
                outer(
                    q,
                    row_bytes,
                    keys + done // 16 * panel_bytes,
                    key_step,
                    panel_bytes,
                    at_once,
                    cache,
                    padded,
                    p + 4 * done,
                    score_bytes,
                    rows,
                    0,
                    far,
                )
                done += 16 * at_once
        while done < n_keys:
            for r in range(0, rolled(rows), micro):
                outer(
                    q + r * row_bytes,
                    row_bytes,
                    keys + done // 16 * panel_bytes,
                    key_step,
                    panel_bytes,
                    1,
                    cache,
                    padded,
                    p + 4 * done + r * score_bytes,
                    score_bytes,
                    micro,
                    0,
                    far,
                )
            done += 16

    @inline
    def gather(p, values, n_keys, o):
        if values_wide:
            for d in range(0, rolled(padded), 16 * at_once):
                outer(
                    p,
                    score_bytes,
                    values + d * width,
                    value_step,
                    value_apart,
                    at_once,
                    cache,
                    n_keys,
                    o + 4 * d,
                    row_bytes,
                    rows,
                    1,
                    far,
                )
        else:
            for d in range(0, rolled(padded), 16):
                for r in range(0, rolled(rows), micro):
                    outer(
                        p + r * score_bytes,
                        score_bytes,
                        values + d * width,
                        value_step,
                        value_apart,
                        1,
                        cache,
                        n_keys,
                        o + 4 * d + r * row_bytes,
                        row_bytes,
                        micro,
                        1,
                        far,
                    )

    return make_online(row_bytes, rows, block_keys, scores, gather)


def make_attention(group: str, size: str, cache: str, products: str = "f32") -> Any:
    """``products``: "words" for those of ``attention_words`` (many tokens, a cache of halves or of 12 bits).

    Columns: 0 q float32 (n_tokens, heads, padded head), scaled; 1 KV heads; 2 key cache, 3 bytes a KV head; 4 value
    cache, 5 bytes a KV head; 6 window (0: none); 7 out float32, 8 bytes a token; 9 scratch, 10 bytes a thread;
    11 partial results (``shapes.part_floats``) by KV head and chunk; 12 chunks that fit; 13 a line of ``shares`` a
    thread; with a cache of 12 bits 14 the largest scores of panels, float32, 15 bytes a head.
    """
    g, n = int(group), int(size)
    row_bytes = shapes.padded(n) * 4
    step_bytes = shapes.panel_bytes(n, cache) // 16  # of one position
    coded, planes, short = cache == "q8_0", cache == "q12", products == "words"
    padded = shapes.padded(n)
    second_bytes = shapes.second_bytes(n, cache)
    four_bytes = second_bytes // 16  # of one position
    micro = shapes.FEWER_ROWS if MACHINES[MACHINE].lanes == 8 and not coded else MICRO_ROWS
    per_item = shapes.tile_tokens(g, n, micro)
    n_rows = per_item * g
    of_rows = 4 * MICRO_ROWS * (n_rows // micro)  # bytes of m and of l: each micro-tile has its own ``MICRO_ROWS``
    at_once = g if g <= MICRO_ROWS else 1
    step = shapes.run(cache)
    many = _block(n, "words" if short else "f32" if planes else cache, micro, KEYS, True)
    one = _block(n, cache, at_once, step, False)
    behind, most = shapes.pair_bytes(n) * (1 if short else 2), attention_words.largest(n)
    if planes:
        prepare = cache_q12.make_prepare(n, short)
    else:
        prepare = attention_words.make_prepare(n)
    prepares = short or planes
    space_many, space_one = shapes.score_bytes(KEYS), shapes.score_bytes(step)
    whole = n % 16 == 0

    @inline
    def clear(o, m, l, rows):
        for i in range(0, rolled(rows * row_bytes), 64):
            store(o + i, zero(F))
        for r in range(rolled(rows)):
            store(m + 4 * r, MASKED)
            store(l + 4 * r, np.float32(0))

    @inline
    def decode(op, thread, n_threads, position):
        """One token: items are (KV head, chunk)."""
        kv_heads, window = arg(op, 1), arg(op, 6)
        p = arg(op, 9) + thread * arg(op, 10)
        low = p + space_one
        high, m, l = low + 4 * MICRO_ROWS, low + 8 * MICRO_ROWS, low + 12 * MICRO_ROWS
        o = low + 16 * MICRO_ROWS
        codes = o + MICRO_ROWS * row_bytes
        start = larger(np.int64(0), position + 1 - window) if window > 0 else np.int64(0)
        chunk_size = chunk_of(kv_heads, position)
        first_chunk = start // chunk_size
        chunks = position // chunk_size - first_chunk + 1
        n_items = kv_heads * chunks
        in_full, places = attention_q12.reads_both(start, position), stack(32)
        for r in range(rolled(MICRO_ROWS)):
            store(low + 4 * r, np.int32(start))
            store(high + 4 * r, np.int32(position + 1))
        # while there is one chunk threads keep to their KV heads, see ``combine``
        piece = START
        while True:
            size = np.int64(0 if position < chunk_size else 1)
            piece = take(piece, arg(op, 13), thread, n_threads, n_items, size, n_items, state(op, TURN))
            if piece < 0:
                break
            for item in range(first_of(piece), end_of(piece)):
                h, chunk = item // chunks, first_chunk + item % chunks
                part = arg(op, 11) + (h * arg(op, 12) + chunk - first_chunk) * g * (row_bytes + 64)
                keys, values = arg(op, 2) + h * arg(op, 3), arg(op, 4) + h * arg(op, 5)
                fours = keys + second_plane(arg(op, 3), 16 * step_bytes, second_bytes) if planes else NOWHERE
                for r0 in range(0, rolled(g), at_once):
                    clear(o, m, l, at_once)
                    q = arg(op, 0) + (h * g + r0) * row_bytes
                    if coded:
                        for r in range(rolled(at_once)):
                            write_query(q + r * row_bytes, codes + r * row_bytes, padded)
                        q = codes
                    if planes:
                        for r in range(rolled(at_once)):
                            at = codes + r * row_bytes
                            attention_words.write_query(q + r * row_bytes, at, padded, attention_q12.Q_STEPS)
                        q = codes
                    end = smaller((chunk + 1) * chunk_size, position + 1)
                    for key in range(larger(chunk * chunk_size, start // step * step), end, step):
                        n_keys = smaller(np.int64(step), (end - key + 15) // 16 * 16)
                        at = place(key, step) * step_bytes
                        masked = key < start or key + n_keys > position + 1
                        if planes:
                            behind = fours + place(key, step) * four_bytes
                            store(places, keys + at)
                            store(places + 8, behind if in_full else NOWHERE)
                            store(places + 16, values + at)
                            store(places + 24, behind + step * four_bytes if in_full else NOWHERE)
                            tops, apart = arg(op, 14) + (h * g + r0) * arg(op, 15) + key // 16 * 4, arg(op, 15)
                            one(q, places, places + 16, key, n_keys, o, m, l, p, low, high, masked, tops, apart)
                        else:
                            k, v = keys + at, values + at
                            one(q, k, v, key, n_keys, o, m, l, p, low, high, masked, NOWHERE, NOWHERE)
                    for r in range(rolled(at_once)):
                        to = part + (r0 + r) * (row_bytes + 64)
                        for i in range(0, rolled(row_bytes), 64):
                            store(to + i, load(o + r * row_bytes + i, F))
                        store(to + row_bytes, load(m + 4 * r, "f32"))
                        store(to + row_bytes + 4, load(l + 4 * r, "f32"))

    def attention(op, thread, n_threads):
        n_tokens, position = state(op, N_TOKENS), state(op, POSITION)
        if n_tokens == 1:
            decode(op, thread, n_threads, position)
            return
        kv_heads, window = arg(op, 1), arg(op, 6)
        heads = kv_heads * g
        p = arg(op, 9) + thread * arg(op, 10)
        low = p + space_many
        high, m, l = low + 4 * n_rows, low + 8 * n_rows, low + 8 * n_rows + of_rows
        q = l + of_rows
        o = q + n_rows * row_bytes
        shorter = o + n_rows * row_bytes
        n_tiles = (n_tokens + per_item - 1) // per_item
        n_items = kv_heads * n_tiles
        piece = START
        while True:
            # the longest first; of the last thread's share, so that each has the tokens that it has elsewhere
            mine = n_threads - 1 - thread
            piece = take(piece, arg(op, 13), mine, n_threads, n_items, np.int64(1), np.int64(1), state(op, TURN))
            if piece < 0:
                break
            item = n_items - 1 - first_of(piece)
            h, tile = item % kv_heads, item // kv_heads
            for r in range(rolled(n_rows)):
                t = tile * per_item + r // g
                at = position + t
                store(high + 4 * r, np.int32(at + 1) if t < n_tokens else np.int32(0))
                store(low + 4 * r, np.int32(larger(np.int64(0), at + 1 - window)) if window > 0 else np.int32(0))
                source = arg(op, 0) + (smaller(t, n_tokens - 1) * heads + h * g + r % g) * row_bytes
                if coded:
                    write_query(source, q + r * row_bytes, padded)
                elif short:
                    attention_words.write_query(source, q + r * row_bytes, padded, most)
                else:
                    for i in range(0, rolled(row_bytes), 64):
                        store(q + r * row_bytes + i, load(source + i, F))
            for i in range(n_rows // micro):
                clear(o + i * micro * row_bytes, m + 4 * MICRO_ROWS * i, l + 4 * MICRO_ROWS * i, micro)
            first = position + tile * per_item
            end = position + smaller(n_tokens, (tile + 1) * per_item)
            begin = larger(np.int64(0), first + 1 - window) // KEYS * KEYS if window > 0 else np.int64(0)
            keys, values = arg(op, 2) + h * arg(op, 3), arg(op, 4) + h * arg(op, 5)
            fours = keys + second_plane(arg(op, 3), 16 * step_bytes, second_bytes)
            for key in range(begin, end, KEYS):
                n_keys = smaller(np.int64(KEYS), (end - key + 15) // 16 * 16)
                masked = key + n_keys > first + 1 or (window > 0 and key < end - window)
                block = place(key, step) * step_bytes
                k_block, v_block = keys + block, values + block
                if prepares:
                    seen, behind_block = smaller(n_keys, end - key), fours + place(key, step) * four_bytes
                    prepare(k_block, v_block, n_keys, seen, shorter, behind_block)
                    k_block, v_block = shorter, shorter + behind
                for r in range(0, rolled(n_rows), micro):
                    many(
                        q + r * row_bytes,
                        k_block,
                        v_block,
                        key,
                        n_keys,
                        o + r * row_bytes,
                        m + 4 * MICRO_ROWS * (r // micro),
                        l + 4 * MICRO_ROWS * (r // micro),
                        p,
                        low + 4 * r,
                        high + 4 * r,
                        masked,
                        NOWHERE,
                        NOWHERE,
                    )
            for r in range(rolled(n_rows)):
                t = tile * per_item + r // g
                if t < n_tokens:
                    f = np.float32(1) / load(l + 4 * (r // micro * MICRO_ROWS + r % micro), "f32")
                    to = arg(op, 7) + t * arg(op, 8) + (h * g + r % g) * n * 4
                    if whole:
                        for i in range(0, rolled(row_bytes), 64):
                            store(to + i, load(o + r * row_bytes + i, F) * splat(f, F))
                    else:
                        for i in range(n):
                            store(to + 4 * i, np.float32(load(o + r * row_bytes + 4 * i, "f32") * f))

    return attention


def make_combine(group: str, size: str, cache: str = "") -> Any:
    """Merges the chunks of one token. Columns: 0 KV heads, 1 window, 2 out, 3 partial results, 4 chunks that fit; with
    a cache of 12 bits ("q12") 5 q as ``attention`` has it, 6 key cache, 7 bytes a KV head, 8 value cache, 9 bytes a KV
    head, 10 the largest scores of panels, 11 bytes a head.

    Split by head; while there is one chunk, by KV head, as ``attention`` is: then a thread needs only its own results.
    Does nothing when many tokens are processed: then ``attention`` has written its results.
    """
    g, n, planes = int(group), int(size), cache == "q12"
    row_bytes = shapes.padded(n) * 4
    panel_bytes, second_bytes = shapes.panel_bytes(n, "q12"), shapes.second_bytes(n, "q12")
    mend = attention_q12.make_mend(n)

    def combine(op, thread, n_threads):
        if state(op, N_TOKENS) != 1:
            return
        position, window = state(op, POSITION), arg(op, 1)
        start = larger(np.int64(0), position + 1 - window) if window > 0 else np.int64(0)
        size = chunk_of(arg(op, 0), position)
        chunks = position // size - start // size + 1
        step = g * (row_bytes + 64)
        n_items, each = (arg(op, 0), g) if position < size else (arg(op, 0) * g, 1)
        in_full, mended = attention_q12.reads_both(start, position), stack(row_bytes)
        for head in range(n_items * thread // n_threads * each, n_items * (thread + 1) // n_threads * each):
            part = arg(op, 3) + (head // g * arg(op, 4) * g + head % g) * (row_bytes + 64)
            best = MASKED
            for c in range(chunks):
                best = larger(best, load(part + c * step + row_bytes, "f32"))
            total = np.float32(0)
            for c in range(chunks):
                a = lane_at(vexp2(splat(np.float32(load(part + c * step + row_bytes, "f32") - best), F)), 0)
                store(part + c * step + row_bytes, np.float32(a))
                total += a * load(part + c * step + row_bytes + 4, "f32")
            if planes and not in_full:
                keys, values = arg(op, 6) + head // g * arg(op, 7), arg(op, 8) + head // g * arg(op, 9)
                fours = keys + second_plane(arg(op, 7), panel_bytes, second_bytes)
                q, tops = arg(op, 5) + head * row_bytes, arg(op, 10) + head * arg(op, 11)
                total += mend(q, keys, values, fours, tops, start, position, best, total, mended)
            f = np.float32(1) / total
            to = arg(op, 2) + head * n * 4
            for i in range(0, n, 16):
                v = load(mended + 4 * i, F) if planes and not in_full else zero(F)
                for c in range(chunks):
                    v = fma(load(part + c * step + 4 * i, F), splat(load(part + c * step + row_bytes, "f32"), F), v)
                v = v * splat(f, F)
                if i + 16 <= n:
                    store(to + 4 * i, v)
                else:
                    for j in range(n - i):
                        store(to + 4 * (i + j), lane_at(v, j))

    return combine
