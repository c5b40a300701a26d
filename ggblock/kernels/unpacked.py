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
the same shape. Codes and scales may look otherwise where dot products are several instructions (``narrow``) or fewer
are enough (``winograd``). What a row lacks in its last unit, where it ends in 16 columns, has scale and offset
zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from llvmlite import ir

from ..simd.emit import Emit
from . import families, float_words, narrow, winograd
from .block_products import apart, dot_of, dots, group_of, shift_of, sum_word, together
from .shapes import UNIT_CODES


def emit_unpack(e: Emit, fam: Any, p: Any, to: Any, mode: str) -> None:
    """The panel block of ``fam`` at ``p`` as whole units at ``to``, for many tokens in ``mode``."""
    if e.machine.narrow:
        narrow.emit_unpack(e, fam, p, to, mode)
        return
    shared, size, each = fam.prepare(e, p), families.unit_bytes(fam, e.machine.name, mode), 32 // fam.sub
    n_subs, n_scales = fam.block // fam.sub, 32 // (_folded(e, fam) or fam).sub
    scales, added = families.scales_at(fam, e.machine.name), None
    for s in range(-(-n_subs // each) * each):
        unit, within = s // each * size, s % each
        if s < n_subs:
            codes, scale, offset = _sub_block(e, fam, p, shared, s, mode)
        else:
            codes, scale, offset = [e.zero("i8x64")] * len(codes), e.zero("f32x16"), e.zero("f32x16")
        if mode == "1p":
            at = within * fam.sub // 4
            number = winograd.emit_codes(e, fam, e.at(to, unit + 64 * at), codes, at)
            if n_scales == 1:
                number = added = e.b.add(added, number) if within else number
            e.store(to, unit + families.numbers_at(fam, e.machine.name) + 64 * (within % n_scales), number)
            offset = winograd.emit_offset(e, fam, scale, offset)
        else:
            for k, value in enumerate(codes):
                e.store(to, unit + 64 * (within * fam.sub // 4 + k), value)
        if within < n_scales:
            e.store(to, unit + scales + 64 * within, scale)
        if fam.has_offsets:
            e.store(to, unit + scales + 64 * (each + within), offset)


def _sub_block(e: Emit, fam: Any, p: Any, shared: Any, s: int, mode: str) -> tuple[list[Any], Any, Any]:
    """(codes, scale, offset) of sub-block ``s`` as units have them; a folded one has the scale of the block."""
    (scale, offset), folded = fam.complete(e, p, shared, s), _folded(e, fam)
    if folded:
        whole = fam.whole(e, shared)[0]
        return fam.folded_codes(e, p, shared, s), e.b.fneg(whole) if folded.signed else whole, offset
    lift = 0 if mode == "1p" else _lift(e, fam)
    scale = e.b.fmul(scale, e.const("f32x16", 2.0**-lift)) if lift else scale
    return [_codes(e, fam, p, s, k, lift) for k in range(fam.sub // 4)], scale, offset


def _folded(e: Emit, fam: Any) -> Any:
    """How the units of ``fam`` have scales in their codes, or None: where dot products are what takes time."""
    return fam.folded if e.machine.lookup_rows and e.machine.signed_bias else None


def _lift(e: Emit, fam: Any) -> int:
    """Bits by which codes stand higher than they are, where the machine takes unsigned bytes of full range: what a type
    takes off them is then 128, whose product with the activations' sum is there to be loaded."""
    shift = shift_of(e, fam)
    return min(shift, 8 - fam.max_code.bit_length()) if shift and e.machine.signed_bias and not fam.signed else 0


def _codes(e: Emit, fam: Any, p: Any, s: int, k: int, lift: int) -> Any:
    """Codes as the machine multiplies them: signed ones raised where it takes unsigned bytes of full range, others
    ``lift`` bits higher."""
    if fam.signed:
        return (fam.raised_codes if e.machine.signed_bias else fam.codes)(e, p, s, k)
    return e.bytes_shl(fam.codes(e, p, s, k), lift)


class Sums:
    """The sums of a tile's tokens, each <16 x float>: ``values``, or none of these and in memory at ``at``.

    In memory where accumulators of dot products fill the registers: each sum is then loaded and stored once a unit,
    where LLVM stored and loaded all of them twice. G multiply-adds a second and core of Zen 4, AVX2: Q4_1 112 and 127,
    Q4_K 122 and 127, Q6_K 87 and 93, Q3_K 100 and 107.
    """

    def __init__(self, e: Emit, values: list[Any], at: Any = None) -> None:
        self._e, self.values, self._at = e, list(values), at

    def __getitem__(self, t: int) -> Any:
        return self.values[t] if self._at is None else self._e.load(self._at, 64 * t, "f32x16")

    def __setitem__(self, t: int, value: Any) -> None:
        if self._at is None:
            self.values[t] = value
        else:
            self._e.store(self._at, 64 * t, value)

    def copy(self) -> Sums:
        return Sums(self._e, self.values, self._at)

    def settle(self) -> None:
        """What is computed before this place is not computed after it, nor the other way round."""
        if self._at is not None:
            self._e.order(self._at)


def _steps(
    e: Emit, unit: Any, p: Any, bases: tuple[Any, ...], meta: Any, tokens: int, pitch: int, with_offset: list[int],
    high: Any,
) -> Iterator[tuple[list[Any], Any, list[int], list[tuple[int, Any]]]]:
    """What a unit adds, as ``narrow.steps`` has it.

    Where a type takes the same power of two off all of its codes, the dot products start with what that takes off them:
    a shift, which costs nothing beside dot products, instead of a multiply-add, which costs as much as one of them.
    Sub-blocks of 16 are added up before the activations' scale is applied, if registers hold the results meanwhile.
    """
    b, groups, n_scales, shift = e.b, unit.sub // 4, 32 // unit.sub, shift_of(e, unit)
    left = None if shift is None else shift - _lift(e, unit)
    upper = _upper(e, unit, p, high, tokens, pitch) if high is not None else []

    def found(within: int) -> list[Any]:
        starts = None
        if left is not None:
            at = sum_word(unit, within, True) * pitch * 4
            starts = [e.splat_load(meta, at + t * 4, "i32") for t in range(tokens)]
            starts = [b.ashr(v, e.const("i32x16", left)) if left else v for v in starts]
        if upper:
            starts = [b.add(v, more) for v, more in zip(starts, upper[within])] if starts else upper[within]

        def codes(k: int) -> Any:
            return e.load(p, 64 * (within * groups + k), "i8x64")

        acc = dots(e, unit, codes, bases, within * groups, tokens, starts, pitch=pitch)
        return [e.i_to_f32(together(e, [of_one[t] for of_one in acc])) for t in range(tokens)]

    def scale(within: int) -> Any:
        value = e.load(p, UNIT_CODES + 64 * within, "f32x16")
        return value if high is None else b.fneg(value)

    if n_scales == 1 or e.machine.pins:
        for within in range(n_scales):
            yield found(within), scale(within), with_offset[within::n_scales], []
    else:
        values = [b.fmul(value, scale(0)) for value in found(0)]
        values = [e.fma(value, scale(1), before) for value, before in zip(found(1), values, strict=True)]
        yield values, None, with_offset, []


def _upper(e: Emit, unit: Any, p: Any, high: Any, tokens: int, pitch: int) -> list[list[Any]]:
    """What stands apart adds to the products of each sub-block, by token, <16 x i32>: ``activation_apart`` left it at
    ``high``."""
    group = group_of(e, high, pitch)
    codes = e.load(e.at(p, group, 64), 0, "i8x64")
    return apart(e, unit.sub, group, codes, high, tokens, dot_of(e, unit))


def _add(
    e: Emit, fam: Any, p: Any, bases: tuple[Any, ...], *, meta: Any, tokens: int, pitch: int, sums: Sums,
    mode: str, high: Any = None,
) -> list[Any]:  # fmt: skip
    """Adds to the sums of all tokens what a unit adds with the terms of activations at ``bases``; returns them unless
    they are in memory. ``high``: four columns stand apart (``activation_apart``), and the scale is negative."""
    sums, scales = sums.copy(), families.scales_at(fam, e.machine.name)
    with_offset = list(range(32 // fam.sub)) if fam.has_offsets else []
    if e.machine.narrow:
        assert pitch == tokens
        steps = narrow.steps(e, fam, p, bases, meta, tokens, with_offset, high)
    elif mode == "1p":
        steps = iter([(*winograd.step(e, fam, p, bases[0], meta, tokens, pitch, high), with_offset, [])])
    else:
        steps = _steps(e, _folded(e, fam) or fam, p, bases, meta, tokens, pitch, with_offset, high)
    for values, factor, subs, taken in steps:
        sums.settle()
        offsets = [(sum_word(fam, i), e.load(p, scales + 64 * (32 // fam.sub + i), "f32x16")) for i in subs]
        for t, value in enumerate(values):
            d = e.splat_load(meta, t * 4, "f32")
            total = e.fma(value, e.b.fmul(factor, d) if factor else d, sums[t])
            for word, offset in offsets + taken:
                total = e.fma(offset, e.splat_load(meta, (word * pitch + t) * 4, "f32"), total)
            sums[t] = total
    sums.settle()
    return sums.values


def emit_unit(
    e: Emit, fam: Any, p: Any, q: Any, q2: Any, meta: Any, tokens: int, mode: str, sums: Sums, pitch: int = 0
) -> list[Any]:
    """The unit at ``p`` against ``tokens`` tokens, the first of a tile of ``pitch``, if these are more; returns the new
    sums. ``mode``: "1", "2", "1+", "1p" or "w" (``matmul``)."""
    if mode == "w":
        return float_words.emit_unit(e, p, q, meta, tokens, pitch or tokens, sums)
    add = partial(_add, e, fam, p, meta=meta, tokens=tokens, pitch=pitch or tokens, sums=sums, mode=mode)
    if mode not in ("1+", "1p"):
        return add((q, q2)[: int(mode)])
    # a negative scale says that four columns stand apart, to all tokens of the tile
    is_apart = e.b.icmp_signed("<", e.load(meta, 0, "i32"), ir.Constant(ir.IntType(32), 0))
    return e.choose(is_apart, lambda: add((q,), high=q2), lambda: add((q,)))


#: What q and q2 of a tile advance by from one unit to the next, bytes a token; meta by ``fields.META_STEP``.
Q_STEP = 32


def q_step(mode: str) -> int:
    """``Q_STEP`` in ``mode``."""
    return float_words.Q_STEP if mode == "w" else Q_STEP
