"""One panel block against one token, or in floats against several: what ``matmul.tile`` repeats over 16 rows.

The arithmetic, the layout of activations and the modes are those of the page of ``matmul``. How integers of many tokens
are multiplied is in ``unpacked``.
"""

from __future__ import annotations

from typing import Any

from ..simd.emit import Emit, llvm_type
from . import families, sign_tables


def dots(
    e: Emit, fam: Any, codes: Any, bases: tuple[Any, ...], first: int, tokens: int, starts: list[Any] | None = None
) -> list[list[Any]]:
    """Integer dot products of a sub-block, by term and token, each <16 x i32>; those of the last term are added to
    ``starts``. ``codes(k)``: group ``k`` of four columns, <64 x i8>, as the machine multiplies them; at ``bases`` their
    activations are groups ``first`` and on.

    The accumulators are pinned after each group: left alone, LLVM computes one half of the rows after the other on
    machines of 8 lanes and keeps codes and activations on the stack meanwhile (Q4_K on AVX2, one core of Zen 4: 17 GB/s
    instead of 22, 66 G multiply-adds a second instead of 99).
    """
    zeros = [e.zero("i32x16")] * tokens
    starts = starts or zeros
    if len(bases) > 1 and tokens > 1 and e.machine.pins:  # accumulators of both terms are more than the registers
        upper = dots(e, fam, codes, bases[:-1], first, tokens)
        return upper + dots(e, fam, codes, bases[-1:], first, tokens, starts)
    groups = fam.sub // 4
    dot = e.dot_ss if fam.signed and not e.machine.signed_bias else e.dot_us
    narrow = None if fam.signed else e.machine.narrow
    # groups of four whose products, two to a lane, cannot leave int16
    together = 32767 // (2 * 127 * fam.max_code) if narrow else 1
    acc = [list(zeros) for _ in bases[:-1]] + [list(starts)]
    for start in range(0, groups, together):
        pairs = [[e.zero("i16x32")] * tokens for _ in bases]
        for k in range(start, min(groups, start + together)):
            value = codes(k)
            for t in range(tokens):
                at = ((first + k) * tokens + t) * 4
                for term, base in enumerate(bases):
                    x = e.bytes4(base, at)
                    if together > 1:
                        pairs[term][t] = narrow[0](e.b, pairs[term][t], value, x)
                    else:
                        acc[term][t] = dot(acc[term][t], value, x)
            held = pairs if together > 1 else acc
            pinned = iter(e.pin([v for values in held for v in values]))
            held[:] = [[next(pinned) for _ in values] for values in held]
        if together > 1:
            acc = [[narrow[1](e.b, a, h) for a, h in zip(*both, strict=True)] for both in zip(acc, pairs, strict=True)]
    return acc


def _codes(e: Emit, fam: Any, p: Any, s: int, k: int) -> Any:
    """One token's codes as the machine multiplies them: where it takes unsigned bytes of full range, signed ones raised
    and others lifted; woven where the family says so. They are loaded in the order in which they lie: see ``matmul``.
    """
    if k % fam.per_line == 0:
        e.order()
    if fam.weave:
        return fam.woven_codes(e, p, s, k)
    if fam.signed:
        return (fam.raised_codes if e.machine.signed_bias else fam.codes)(e, p, s, k)
    return (fam.lifted_codes if e.machine.signed_bias else fam.codes)(e, p, s, k)


class Words:
    """One token's meta from a block on: word ``w`` of 32 columns ``k`` lies at ``at + w * stride + 4 * k``.

    Word by word, so that a block type loads those lines alone that it needs: wide rows have their activations from the
    second level of cache for each panel, which slows the reading of weights (one core of Zen 4, rows of 4,096 or 8,192
    columns: Q4_K, Q4_0, Q2_K and Q3_K 3 to 8 % faster than with the words of 32 columns side by side).
    """

    def __init__(self, e: Emit, at: Any, stride: Any) -> None:
        self._e, self._at, self._stride = e, at, stride

    def scale(self, k: int) -> Any:
        """Scale of the activations, a float."""
        return self._e.load(self._at, 4 * k, "f32")

    def sum(self, fam: Any, s: int, first_term: bool) -> Any:
        """Scaled sum of sub-block ``s`` of a family, a float; ``first_term``: of the first of two terms alone."""
        word = self._e.at(self._at, self._stride, sum_word(fam, s, first_term))
        return self._e.load(word, s * fam.sub // 32 * 4, "f32")


def sum_word(fam: Any, s: int, later: bool = False) -> int:
    """Which word of the meta (``fields.META``) has the sum of sub-block ``s``; ``later``: what the last three have."""
    return (1 if fam.sub == 32 else 2 + s % 2) + 3 * later


def _zero(e: Emit, fam: Any) -> float:
    """What is taken off a code as it is multiplied."""
    return float(e.machine.signed_bias) if fam.signed else float(fam.zero)


def shift_of(e: Emit, fam: Any) -> int | None:
    """Bits by which the sums of activations for tiles, -128 times, are more than ``-zero`` times, which is what dot
    products start with; None where no power of two is taken off."""
    return {2.0 ** (7 - n): n for n in range(8)}.get(_zero(e, fam))


def _block_first(e: Emit, fam: Any, p: Any, q: Any, meta: Words, total: Any) -> Any:
    """``_block_one`` with the first of two terms alone: the scale is that of the second, 1/256 of its own."""
    block = _block_one(e, fam, p, (q,), meta, e.zero("f32x16"), first_term=True)
    return e.fma(block, e.const("f32x16", 256.0), total)


def _block_one(
    e: Emit, fam: Any, p: Any, bases: tuple[Any, ...], meta: Words, total: Any, first_term: bool = False
) -> Any:
    """One panel block of a quantized family against one token, whose terms are at ``bases``; returns the new sum.
    ``first_term``: what is added up are the sums of the first term of two.
    """
    if fam.weave:
        bases = tuple(_woven(e, fam, base) for base in bases)
    shared = fam.prepare(e, p)
    whole = fam.whole(e, shared)
    if whole:
        return _scaled_once(e, fam, p, bases, meta, total, shared, whole, first_term)
    zero = _zero(e, fam)
    for s in range(fam.block // fam.sub):
        scale, offset = fam.parts(e, p, shared, s)
        dot, d = _dot(e, fam, p, bases, s), e.splat(meta.scale(s * fam.sub // 32))
        x = e.splat(meta.sum(fam, s, first_term))
        if zero:
            total = e.fma(e.fma(dot, d, e.b.fmul(x, e.const("f32x16", -zero))), scale, total)
        else:
            total = e.fma(dot, e.b.fmul(scale, d), total)
        if offset is not None:
            total = e.fma(offset, x, total)
    return total


def _woven(e: Emit, fam: Any, base: Any) -> Any:
    """The address of one token's activations of a block in the order of ``fam.weave``."""
    out, each = e.stack(fam.block), len(fam.weave)
    for at in range(0, fam.block, 64):
        order = [i // each * each + fam.weave[i % each] for i in range(64)]
        e.store(out, at, e.shuffle(e.load(base, at, "i8x64"), order))
    e.order(out)  # each four columns are then loaded into all lanes, which is cheaper than a shuffle
    return out


def _dot(e: Emit, fam: Any, p: Any, bases: tuple[Any, ...], s: int) -> Any:
    """Dot products of sub-block ``s`` with one token as floats, in steps of the last term."""
    products = dots(e, fam, lambda k: _codes(e, fam, p, s, k), bases, s * fam.sub // 4, 1)
    return in_floats(e, [of_one[0] for of_one in products])


def in_floats(e: Emit, terms: list[Any]) -> Any:
    """Dot products of one or two terms together, as floats in steps of the last."""
    whole = terms[0] if len(terms) == 1 else e.b.add(e.shl(terms[0], 8), terms[1])
    return e.b.sitofp(whole, llvm_type("f32x16"))


def _walked(e: Emit, fam: Any, bases: tuple[Any, ...], walk: Any) -> list[Any]:
    """``_dot`` of every sub-block, of codes that come as ``fam.walk`` has them."""
    b, groups = e.b, fam.sub // 4
    sums: list[list[list[Any]]] = [[[e.zero("i32x16")] * 2 for _ in bases] for _ in range(fam.block // fam.sub)]
    for s, k, *codes in walk:
        for term, base in enumerate(bases):
            for i, part in enumerate(codes):
                e.order()  # loaded twice: an operand in memory costs nothing
                sums[s][term][i] = e.dot_us(sums[s][term][i], part, e.bytes4(base, 4 * (s * groups + k)))
    return [in_floats(e, [b.sub(b.add(e.shl(a1, 1), a1), a2) for a1, a2 in terms]) for terms in sums]


def _scaled_once(
    e: Emit, fam: Any, p: Any, bases: tuple[Any, ...], meta: Words, total: Any, shared: Any, whole: Any,
    first_term: bool,
) -> Any:  # fmt: skip
    """A block whose sub-blocks share factors, against one token: these are applied once, to what the sub-blocks add up
    to, and K-quants are a quarter faster. So are the powers of two of lifted codes: Q2_K a tenth. So is what a type
    takes off its codes, and sub-blocks of 16 are added up before the activations' scale is applied.
    """
    b, zero, each = e.b, _zero(e, fam), max(1, 32 // fam.sub)
    sums: dict[int, Any] = {}  # by the power of two of their codes
    offsets, alike = e.zero("f32x16"), None  # alike: sum of the activations where all scales are one
    walk = fam.walk(e, p) if e.machine.signed_bias else None
    walked = _walked(e, fam, bases, walk) if walk else None
    for first in range(0, fam.block // fam.sub, each):
        power, value = fam.power(first) if e.machine.signed_bias else 0, None
        for s in range(first, min(first + each, fam.block // fam.sub)):
            scale, offset = fam.parts(e, p, shared, s)
            dot = walked[s] if walked else _dot(e, fam, p, bases, s)
            if scale is None:
                value, x = dot, meta.sum(fam, s, first_term)
                alike = x if alike is None else b.fadd(alike, x)
                continue
            value = b.fmul(dot, scale) if value is None else e.fma(dot, scale, value)
            if zero or offset is not None:
                offsets = e.fma(scale if zero else offset, e.splat(meta.sum(fam, s, first_term)), offsets)
        d = e.splat(meta.scale(first * fam.sub // 32))
        sums[power] = e.fma(value, d, sums.get(power, e.zero("f32x16")))
    scaled = sums.pop(0, None) or e.zero("f32x16")
    for power, lifted in sums.items():
        scaled = e.fma(lifted, e.const("f32x16", 2.0**-power), scaled)
    if zero:
        scaled = e.fma(e.splat(alike) if alike is not None else offsets, e.const("f32x16", -zero), scaled)
    total = e.fma(scaled, whole[0], total)
    return total if whole[1] is None else e.fma(offsets, whole[1], total)


def _loud(e: Emit, fam: Any, meta: Words, limit: Any) -> Any:
    """Whether the square of a scale of one token's activations of the block is more than ``limit``."""
    b, peak = e.b, None
    for k in range(-(-fam.block // 32)):
        d = meta.scale(k)
        peak = d if peak is None else b.select(b.fcmp_ordered(">", d, peak), d, peak)
    return b.fcmp_ordered(">", b.fmul(peak, peak), limit)


def block(
    e: Emit, fam: Any, p: Any, q: Any, q2: Any, meta: Words, table: Any, mode: str, limit: Any, total: Any
) -> Any:
    """One panel block of a quantized family against one token; returns the new sum. ``table``: of its columns, where
    they have one."""
    if mode not in ("1+", "1t"):
        return _block_one(e, fam, p, (q, q2)[: int(mode[0])], meta, total)
    (total,) = e.choose(
        _loud(e, fam, meta, limit),
        lambda: [_block_one(e, fam, p, (q, q2), meta, total)],
        lambda: [
            sign_tables.block(e, fam, p, table, total) if table else _block_first(e, fam, p, q, meta, total)
        ],
    )
    return total


def decoded(e: Emit, fam: Any, p: Any) -> Any:
    """The weights of one panel block, float32 (fam.block, 16), in a buffer on the stack; its address.

    Written out after each other, 256 multiplications of a matrix product took the compiler 15 s instead of 1: so codes
    become floats here first.
    """
    b, out = e.b, e.stack(64 * fam.block)
    if isinstance(fam, families.FloatFamily):
        for k in range(fam.block):
            e.store(out, 64 * k, fam.weights(e, p, k))
        return out
    shared, shift = fam.prepare(e, p), e.const("i32x16", 24)
    for s in range(fam.block // fam.sub):
        scale, offset = fam.scale(e, p, shared, s)
        for k in range(fam.sub // 4):
            codes = e.bitcast(fam.codes(e, p, s, k), "i32x16")
            for j in range(4):
                up = e.shl(codes, 24 - 8 * j)
                code = b.sitofp(b.ashr(up, shift) if fam.signed else b.lshr(up, shift), llvm_type("f32x16"))
                w = b.fmul(code, scale) if offset is None else e.fma(code, scale, offset)
                e.store(out, 64 * (s * fam.sub + 4 * k + j), w)
    return out


def block_float(e: Emit, fam: Any, p: Any, x: Any, tokens: int, sums: list[Any]) -> list[Any]:
    """One panel block against float activations."""

    def multiply(w: Any, x: Any, k: int, sums: Any) -> list[Any]:
        return [e.fma(w, e.splat_load(x, (k * tokens + t) * 4, "f32"), total) for t, total in enumerate(sums)]

    if isinstance(fam, families.FloatFamily):
        for k in range(fam.block):
            sums = multiply(fam.weights(e, p, k), x, k, sums)
        return sums
    weights = decoded(e, fam, p)

    def four(i: Any, sums: Any) -> Any:
        at, to = e.at(x, i, 4 * tokens), e.at(weights, i, 64)
        for k in range(4):
            sums = multiply(e.load(to, 64 * k, "f32x16"), at, k, sums)
        return sums

    return e.loop(e.i64(0), e.i64(fam.block), 4, sums, four)
