"""Rotary positions, q/k norms, and the writing of keys and values into the cache.

Cache layout of one layer: by KV head keys and values of ``shapes.run`` positions by turns, so that one token reads
memory forward; keys (run / 16, head, 16), so that one vector load takes 16 positions of one dimension; values (run,
head). Elements are IEEE halves or float32, or ("q8_0") bytes with a scale per 32 dimensions, in panels of 16 positions
that ``attention_q8_0`` describes, or ("q12") 12 bits in two planes that ``cache_q12`` describes. ``head`` is the
head size rounded up to 16; the padding stays zero.

Rotation (Su et al. 2021): pair ``i`` turns by the table's angle; pairs are ``(2 i, 2 i + 1)`` ("norm") or
``(i, i + n_rot / 2)`` ("neox").
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit
from ..simd.jit import inline
from ..simd.machines import joined
from ..simd.vec import MACHINE, load, prefetch, splat, store, store_half, store_halves, vsqrt
from . import attention_q8_0, cache_q12, shapes
from .activations import rms_scale
from .args import arg, arg_f32, chunk_of, first_panel, place, second_panel, second_plane, state
from .fields import N_TOKENS, POSITION

F = "f32x16"


@intrinsic(prefer_literal=True)
def turn(typingctx, x, x_apart, table, table_apart, neox):
    """Turns 16 pairs at ``x``: halves that lie ``x_apart`` bytes apart, or ("norm") neighbours; cosines at ``table``,
    sines ``table_apart`` bytes further."""
    halves = neox.literal_value

    def codegen(c, b, s, args):
        e = Emit(b, MACHINE)
        cos, sin = e.load(args[2], 0, F), e.load(b.add(args[2], args[3]), 0, F)
        second = b.add(args[0], args[1] if halves else e.i64(64))
        first, last = e.load(args[0], 0, F), e.load(second, 0, F)
        if not halves:
            both = joined(b, [first, last])
            first, last = (e.shuffle(both, range(i, 32, 2)) for i in range(2))
        turned = [b.fsub(b.fmul(first, cos), b.fmul(last, sin)), b.fadd(b.fmul(first, sin), b.fmul(last, cos))]
        if not halves:
            both = joined(b, turned)
            order = [i // 2 + 16 * (i % 2) for i in range(32)]
            turned = [e.shuffle(both, order[:16]), e.shuffle(both, order[16:])]
        e.store(args[0], 0, turned[0])
        e.store(second, 0, turned[1])
        return c.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, neox), codegen


def make_rope(pairs: str, cache: str, norms: str) -> Any:
    """Columns: 0 q, 1 bytes a token of q, 2 heads, 3 k, 4 bytes a token, 5 KV heads, 6 v, 7 bytes a token, 8 head size,
    9 rotated dimensions, 10 table float32 (n_ctx, 2, n_rot / 2) of cosines and sines, 11 q out float32 (n_tokens,
    heads,
    padded head), 12 factor on q, 13 key cache, 14 bytes a KV head, 15 value cache, 16 bytes a KV head, 17 scratch,
    18 bytes of scratch a thread (a padded head), 19 q norm weight, 20 k norm weight, with eps in the upper half of
    column 12. Split by token and head; one token's context of a single chunk by KV head, as ``attention`` is.
    """
    half, coded, planes, run = cache == "f16", cache == "q8_0", cache == "q12", shapes.run(cache)
    neox = pairs == "neox"
    with_norm = norms == "norm"

    @inline
    def rotate(x, n_rot, table):
        n = n_rot // 2
        wide = n // 16 * 16
        for i in range(0, wide, 16):
            at = x + 4 * i if neox else x + 8 * i
            turn(at, 4 * n, table + 4 * i, 4 * n, neox)
        for i in range(wide, n):
            c, s = load(table + 4 * i, "f32"), load(table + 4 * (n + i), "f32")
            at0 = x + 4 * i if neox else x + 8 * i
            at1 = at0 + 4 * n if neox else at0 + 4
            a, b = load(at0, "f32"), load(at1, "f32")
            store(at0, np.float32(a * c - b * s))
            store(at1, np.float32(a * s + b * c))

    @inline
    def copy_head(x, to, size, weight, eps, factor):
        f, wide = factor, size // 16 * 16
        if with_norm and weight != 0:
            f = factor * norm_of(x, size, eps)
            for i in range(0, wide, 16):
                store(to + 4 * i, load(x + 4 * i, F) * splat(f, F) * load(weight + 4 * i, F))
            for i in range(wide, size):
                store(to + 4 * i, np.float32(load(x + 4 * i, "f32") * f * load(weight + 4 * i, "f32")))
        else:
            for i in range(0, wide, 16):
                store(to + 4 * i, load(x + 4 * i, F) * splat(f, F))
            for i in range(wide, size):
                store(to + 4 * i, np.float32(load(x + 4 * i, "f32") * f))

    @inline
    def norm_of(x, size, eps):
        total = np.float32(0)
        if size % 32 == 0:
            return rms_scale(x, size, eps)
        for i in range(size):
            v = load(x + 4 * i, "f32")
            total += v * v
        return np.float32(1) / vsqrt(total / np.float32(size) + eps)

    @inline
    def fetch(at, apart, first, last, n_bytes):
        """Asks for the lines of the cache that heads ``first`` to ``last - 1`` will write, so that memory is waited for
        once, not line after line: a third of the time of 1.07 B models' rope."""
        for h in range(first, last):
            for i in range(0, n_bytes, 64):
                prefetch(at + h * apart + i)

    def rope(op, thread, n_threads):
        heads, kv_heads, size, n_rot = arg(op, 2), arg(op, 5), arg(op, 8), arg(op, 9)
        padded = (size + 15) // 16 * 16
        n_tokens, position = state(op, N_TOKENS), state(op, POSITION)
        eps = load(op + 8 * (3 + 12) + 4, "f32")
        width = 2 if half else 4
        # see shapes.panel_bytes
        panel_bytes = first_panel(padded) if planes else 16 * padded + (padded + 31) // 32 * 32
        per_token = heads + 2 * kv_heads
        group = heads // kv_heads
        one, of_kv = n_tokens == 1, group + 2
        n_items, each = n_tokens * per_token, 1
        if one and position < chunk_of(kv_heads, position):
            n_items, each = kv_heads, of_kv
        first, last = n_items * thread // n_threads * each, n_items * (thread + 1) // n_threads * each
        second_bytes = second_panel(padded)
        if one and planes:
            panel, keys_of, end_of_keys = place(position, run) // 16, (first + 1) // of_kv, (last + 1) // of_kv
            fours = arg(op, 13) + second_plane(arg(op, 14), panel_bytes, second_bytes) + panel * second_bytes
            fetch(arg(op, 13) + panel * panel_bytes, arg(op, 14), keys_of, end_of_keys, panel_bytes)
            fetch(fours, arg(op, 14), keys_of, end_of_keys, 8 * padded)
            fetch(arg(op, 15) + panel * panel_bytes, arg(op, 16), first // of_kv, last // of_kv, panel_bytes)
        elif one and not coded:
            panel, row = padded * 16 * width, padded * width
            at = place(position, run)
            fetch(arg(op, 13) + at // 16 * panel, arg(op, 14), (first + 1) // of_kv, (last + 1) // of_kv, panel)
            fetch(arg(op, 15) + at * row, arg(op, 16), first // of_kv, last // of_kv, row)
        for item in range(first, last):
            t, h = item // per_token, item % per_token
            if one:  # a KV head's queries, its key, its value
                kv, i = item // of_kv, item % of_kv
                h = kv * group + i if i < group else heads + (i - group) * kv_heads + kv
            table, at = arg(op, 10) + (position + t) * n_rot * 4, place(position + t, run)
            if h < heads:
                to = arg(op, 11) + (t * heads + h) * padded * 4
                copy_head(arg(op, 0) + t * arg(op, 1) + h * size * 4, to, size, arg(op, 19), eps, arg_f32(op, 12))
                rotate(to, n_rot, table)
            elif h < heads + kv_heads:
                h -= heads
                x = arg(op, 17) + thread * arg(op, 18)
                copy_head(arg(op, 3) + t * arg(op, 4) + h * size * 4, x, size, arg(op, 20), eps, np.float32(1))
                rotate(x, n_rot, table)
                to = arg(op, 13) + h * arg(op, 14)
                if coded or planes:
                    for i in range(size, padded):
                        store(x + 4 * i, np.float32(0))
                    panel = to + at // 16 * panel_bytes
                    if planes:
                        fours = to + second_plane(arg(op, 14), panel_bytes, second_bytes) + at // 16 * second_bytes
                        cache_q12.write_key(x, panel, fours, at % 16, padded)
                    else:
                        attention_q8_0.write_key(x, panel, at % 16, padded)
                else:
                    to += (at // 16 * padded * 16 + at % 16) * width
                    wide = size // 16 * 16 if half else np.int64(0)
                    for i in range(0, wide, 16):
                        store_halves(to + i * 32, load(x + 4 * i, F), 32)
                    for i in range(wide, size):
                        if half:
                            store_half(to + i * 32, load(x + 4 * i, "f32"))
                        else:
                            store(to + i * 64, load(x + 4 * i, "f32"))
            else:
                h -= heads + kv_heads
                x = arg(op, 6) + t * arg(op, 7) + h * size * 4
                to = arg(op, 15) + h * arg(op, 16)
                if coded or planes:
                    y = arg(op, 17) + thread * arg(op, 18)
                    for i in range(padded):
                        store(y + 4 * i, load(x + 4 * i, "f32") if i < size else np.float32(0))
                    panel = to + at // 16 * panel_bytes
                    if planes:
                        # values begin a run behind the keys, in both planes
                        fours = to + second_plane(arg(op, 16), panel_bytes, second_bytes) + at // 16 * second_bytes
                        fours += run // 16 * (second_bytes - panel_bytes)
                        cache_q12.write_value(y, panel, fours, at % 16, padded)
                    else:
                        attention_q8_0.write_value(y, panel, at % 16, padded)
                else:
                    to += at * padded * width
                    wide = size // 16 * 16 if half else np.int64(0)
                    for i in range(0, wide, 16):
                        store_halves(to + i * 2, load(x + 4 * i, F), 2)
                    for i in range(wide, size):
                        if half:
                            store_half(to + i * 2, load(x + 4 * i, "f32"))
                        else:
                            store(to + i * 4, load(x + 4 * i, "f32"))

    return rope
