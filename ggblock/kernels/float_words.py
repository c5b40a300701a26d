"""Weights that are halves (F16, BF16) against many tokens as whole numbers of 16 bits, in mode "w".

Products of pairs of int16 (``Emit.dot_words``) take half the instructions of multiply-adds of floats (AVX2: as many,
of which half are additions), and panels are taken apart once for all tiles of tokens. Weights of a row and activations
of a token have a step of their own in every 32 columns, 1/8191 of the largest magnitude there: 32 * 8191**2 < 2**31, so
the sums of a unit's products fit a lane and are exact. What is rounded off is half a step at most, of a weight and of
an activation: int8 rounds 64 times as much off.

Zen 4, 512 tokens, G multiply-adds a second and core by floats and so: 56 and 97; as AVX2 49 and 77; rows of 8,192
columns 38 and 90, 30 and 68. Mean KL of SmolLM2's prefill to float activations, 1,024 or 2,048 tokens of prose, as BF16
0.000003, where llama.cpp rounds activations to bfloat16 and has 0.000098; as F16 0.000003 and 0.000003.

A *unit* is 32 columns of 16 rows: pairs of neighbouring columns, int16 (16, 16 rows, 2), and the steps, float32 (16,).
Activations: int16 (n_tiles, K/2, T, 2), and their steps as word 0 of the meta (``fields.META``).
"""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit, llvm_type
from ..simd.machines import joined
from ..simd.vec import MACHINE, ROUND, emit_inverse, emit_magnitude, emit_max
from .activation_tiles import TILE, columns_of, factors_of, largest, step_of
from .families import WORD_UNIT

MOST = 8191
STEPS_AT = 16 * 64
Q_STEP = 64  # bytes of 32 columns of one token


def emit_unpack(e: Emit, fam: Any, panel: Any, to: Any, n_blocks: Any) -> None:
    """A panel of ``n_blocks`` (i64) blocks of ``fam`` as units at ``to``. What a row lacks in its last unit is zero."""
    b, size, each = e.b, 16 * fam.n_bytes, 32 // fam.block

    def unit(i: Any, carried: Any) -> list[Any]:
        p, out = carried
        rest = b.sub(n_blocks, i)
        n = b.select(b.icmp_signed("<", rest, e.i64(each)), rest, e.i64(each))

        def look(j: Any, peak: Any) -> list[Any]:
            for k in range(fam.block):
                peak = [emit_magnitude(e, e.bitcast(fam.weights(e, e.at(p, j, size), k), "i32x16"), peak[0])]
            return peak

        peak = e.bitcast(e.loop(e.i64(0), n, 1, [e.zero("i32x16")], look)[0], "f32x16")
        inverse, rounding = emit_inverse(e, e.const("f32x16", float(MOST)), peak), e.const("f32x16", ROUND)

        def write(j: Any, _: Any) -> list[Any]:
            for k in range(0, fam.block, 2):
                both = [fam.weights(e, e.at(p, j, size), k + side) for side in range(2)]
                low, high = (e.bitcast(e.fma(x, inverse, rounding), "i32x16") for x in both)
                e.store(e.at(out, j, 32 * fam.block), 32 * k, b.or_(e.and_(low, 0xFFFF), e.shl(high, 16)))
            return []

        def clear(j: Any, _: Any) -> list[Any]:
            for k in range(0, fam.block, 2):
                e.store(e.at(out, j, 32 * fam.block), 32 * k, e.zero("i32x16"))
            return []

        e.loop(e.i64(0), n, 1, [], write)
        e.loop(n, e.i64(each), 1, [], clear)
        e.store(out, STEPS_AT, b.fmul(peak, e.const("f32x16", 1.0 / MOST)))
        return [e.at(p, each * size), e.at(out, WORD_UNIT)]

    e.loop(e.i64(0), n_blocks, each, [panel, to], unit)


def emit_unit(e: Emit, p: Any, q: Any, meta: Any, tokens: int, pitch: int, sums: Any) -> list[Any]:
    """The unit at ``p`` against ``tokens`` tokens, the first of a tile of ``pitch``; returns the new sums
    (``unpacked.Sums``)."""
    acc, sums = [e.zero("i32x16")] * tokens, sums.copy()
    for k in range(16):
        pair = e.load(p, 64 * k, "i32x16")
        acc = [e.dot_words(v, pair, e.splat_load(q, 4 * (k * pitch + t), "i32")) for t, v in enumerate(acc)]
        acc = e.pin(acc)
    scale = e.load(p, STEPS_AT, "f32x16")
    sums.settle()
    for t, value in enumerate(acc):
        factor = e.b.fmul(scale, e.splat_load(meta, 4 * t, "f32"))
        sums[t] = e.fma(e.i_to_f32(value), factor, sums[t])
    sums.settle()
    return list(sums.values)


@intrinsic
def quantize_words(typingctx, x, q, meta):
    """32 columns of ``TILE`` tokens, float32 (TILE, 32) at ``x``, as int16 and their steps."""

    def codegen(c, builder, s, args):
        e, b = Emit(builder, MACHINE), builder
        source, to, words = args
        halves = columns_of(e, source)
        sizes = [emit_max(e, e.call("fabs", x), e.call("fabs", y)) for x, y in zip(*halves, strict=True)]
        d, inverse = step_of(e, largest(e, sizes), e.const("f32", float(MOST)))
        factors = factors_of(e, inverse)
        for i, values in enumerate(halves):
            whole = [b.fptosi(e.rint(b.fmul(v, f)), llvm_type("i32x16")) for v, f in zip(values, factors, strict=True)]
            pairs = joined(b, [e.bitcast(b.trunc(v, llvm_type("i16x16")), "i32x8") for v in whole])
            pairs = e.shuffle(pairs, [8 * t + g for g in range(8) for t in range(TILE)])
            for at in range(0, 8 * TILE, 16):
                e.store(to, 4 * (8 * TILE * i + at), e.part(pairs, at, 16))
        e.store(words, 0, d)
        return c.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen
