"""Panels taken apart for many tokens: 32 columns after the other, codes as bytes, scales and offsets as floats.

A batch multiplies the same weights with one tile of tokens after the other. What it takes to get at codes and scales is
done once for all tiles, a few panels at a time that stay in the second level of cache. Left for each tile are dot
products, two or three operations on floats for each of their results, and loads; so every block type runs as fast as
the machine multiplies, and kernels of super-blocks compile in half the time. G multiply-adds a second and core, Zen 4,
512 tokens, where every tile took the blocks apart for itself and now: Q2_K 121 and 138, Q6_K 135 and 162, TQ1_0 102 and
174; AVX2 on the same core: Q4_K 107 and 121, Q6_K 60 and 89, TQ1_0 59 and 124. Types of 32 weights a block gain nothing
(SmolLM2's Q4_1).

Where codes times the scales of their sub-blocks fit a byte (``families.Folded``) and dot products are one instruction,
units hold these products, exactly: a block then has one scale, and its sub-blocks of 16 are multiplied together (Q2_K
126 and 143, Q3_K 147 and 174).

A *unit* is 32 columns of 16 rows: the codes as the machine multiplies them, bytes (8, 16 rows, 4 columns); the scales
of its sub-blocks, float32 (32 / sub, 16), or of the block in the first place; where the family has offsets, these, of
the same shape. What a row lacks in its last unit, where it ends in 16 columns, has code, scale and offset zero.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir

from ..simd.emit import Emit
from .block_products import dots, shift_of, sum_word, together
from .fields import META
from .shapes import UNIT_CODES, unit_bytes


def emit_unpack(e: Emit, fam: Any, p: Any, to: Any) -> None:
    """The panel block of ``fam`` at ``p`` as whole units at ``to``."""
    shared, size, each = fam.prepare(e, p), unit_bytes(fam.sub, fam.has_offsets), 32 // fam.sub
    n_subs, n_scales = fam.block // fam.sub, 32 // (_folded(e, fam) or fam).sub
    for s in range(-(-n_subs // each) * each):
        unit, within = s // each * size, s % each
        if s < n_subs:
            codes, scale, offset = _sub_block(e, fam, p, shared, s)
        else:
            codes, scale, offset = [e.zero("i8x64")] * (fam.sub // 4), e.zero("f32x16"), e.zero("f32x16")
        for k, value in enumerate(codes):
            e.store(to, unit + 64 * (within * fam.sub // 4 + k), value)
        if within < n_scales:
            e.store(to, unit + UNIT_CODES + 64 * within, scale)
        if fam.has_offsets:
            e.store(to, unit + UNIT_CODES + 64 * (each + within), offset)


def _sub_block(e: Emit, fam: Any, p: Any, shared: Any, s: int) -> tuple[list[Any], Any, Any]:
    """(codes, scale, offset) of sub-block ``s`` as units have them; a folded one has the scale of the block."""
    (scale, offset), folded = fam.complete(e, p, shared, s), _folded(e, fam)
    if folded:
        whole = fam.whole(e, shared)[0]
        return fam.folded_codes(e, p, shared, s), e.b.fneg(whole) if folded.signed else whole, offset
    lift = _lift(e, fam)
    scale = e.b.fmul(scale, e.const("f32x16", 2.0**-lift)) if lift else scale
    return [_codes(e, fam, p, s, k) for k in range(fam.sub // 4)], scale, offset


def _folded(e: Emit, fam: Any) -> Any:
    """How the units of ``fam`` have scales in their codes, or None: where dot products are what takes time."""
    return fam.folded if e.machine.lookup_rows and e.machine.signed_bias else None


def _lift(e: Emit, fam: Any) -> int:
    """Bits by which codes stand higher than they are, where the machine takes unsigned bytes of full range: what a type
    takes off them is then 128, whose product with the activations' sum is there to be loaded."""
    shift = shift_of(e, fam)
    return min(shift, 8 - fam.max_code.bit_length()) if shift and e.machine.signed_bias and not fam.signed else 0


def _codes(e: Emit, fam: Any, p: Any, s: int, k: int) -> Any:
    """Codes as the machine multiplies them: signed ones raised where it takes unsigned bytes of full range."""
    if fam.signed:
        return (fam.raised_codes if e.machine.signed_bias else fam.codes)(e, p, s, k)
    return e.bytes_shl(fam.codes(e, p, s, k), _lift(e, fam))


def _add(
    e: Emit, fam: Any, p: Any, bases: tuple[Any, ...], *, meta: Any, tokens: int, scales: list[Any], sums: list[Any]
) -> list[Any]:
    """``sums`` of all tokens and what a unit adds with the terms of activations at ``bases``.

    Where a type takes the same power of two off all of its codes, the dot products start with what that takes off them:
    a shift, which costs nothing beside dot products, instead of a multiply-add, which costs as much as one of them.
    """
    b, shift, values, groups = e.b, shift_of(e, fam), [None] * tokens, fam.sub // 4
    left = None if shift is None else shift - _lift(e, fam)
    for within, scale in enumerate(scales):
        starts = None
        if left is not None:
            at = sum_word(fam, within, True) * tokens * 4
            whole = [e.splat_load(meta, at + t * 4, "i32") for t in range(tokens)]
            starts = [b.ashr(v, e.const("i32x16", left)) if left else v for v in whole]

        def codes(k: int, first: int = within * groups) -> Any:
            return e.load(p, 64 * (first + k), "i8x64")

        acc = dots(e, fam, codes, bases, within * groups, tokens, starts)
        for t, before in enumerate(values):
            value = e.i_to_f32(together(e, [of_one[t] for of_one in acc]))
            if len(scales) > 1:
                value = b.fmul(value, scale) if before is None else e.fma(value, scale, before)
            values[t] = value
    out = []
    for t, value in enumerate(values):
        d = e.splat_load(meta, t * 4, "f32")
        out.append(e.fma(value, d if len(scales) > 1 else b.fmul(scales[0], d), sums[t]))
    return out


def emit_unit(
    e: Emit, fam: Any, p: Any, q: Any, q2: Any, meta: Any, tokens: int, mode: str, sums: list[Any]
) -> list[Any]:
    """The unit at ``p`` against ``tokens`` tokens; returns the new sums. ``mode``: "1", "2" or "1+" (``matmul``)."""
    each, unit = 32 // fam.sub, _folded(e, fam) or fam
    scales = [e.load(p, UNIT_CODES + 64 * i, "f32x16") for i in range(32 // unit.sub)]
    add = partial(_add, e, unit, p, meta=meta, tokens=tokens, sums=sums)
    if mode == "1+":  # a negative scale says that there is a second term, to all tokens of the tile
        loud = e.b.icmp_signed("<", e.load(meta, 0, "i32"), ir.Constant(ir.IntType(32), 0))
        louder = [e.b.fneg(scale) for scale in scales]
        sums = e.choose(loud, partial(add, (q, q2), scales=louder), partial(add, (q,), scales=scales))
    else:
        sums = add((q, q2)[: int(mode)], scales=scales)
    if fam.has_offsets:
        for i in range(each):
            offset, at = e.load(p, UNIT_CODES + 64 * (each + i), "f32x16"), sum_word(fam, i) * tokens * 4
            sums = [e.fma(offset, e.splat_load(meta, at + t * 4, "f32"), v) for t, v in enumerate(sums)]
    return sums


#: What a tile's activations advance by from one unit to the next, bytes a token: of q and q2, and of meta.
Q_STEP, META_STEP = 32, 4 * META
