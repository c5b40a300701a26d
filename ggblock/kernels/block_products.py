"""One panel block against one token, or in floats against several: what ``matmul.tile`` repeats over 16 rows.

The arithmetic, the layout of activations and the modes are those of the page of ``matmul``. How integers of many tokens
are multiplied is in ``unpacked``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial, reduce
from typing import Any

from ..simd.emit import I32, Emit, llvm_type
from ..simd.vec import AHEAD, emit_max
from . import digit_tables, families, sign_tables, sum_tables
from . import wide as wide_terms
from .fields import HIGH_BITS, MIXED, NARROW

#: Where the table of a block has the largest scale of its activations.
PEAKS = {"1s": sum_tables.PEAK, "1t": sign_tables.PEAK, "1d": digit_tables.PEAK}
RAISED = 128.0  # what makes unsigned bytes of signed codes


def dots(
    e: Emit, fam: Any, codes: Any, bases: tuple[Any, ...], first: int, tokens: int, starts: list[Any] | None = None,
    max_code: int = 0, pitch: int = 0,
) -> list[list[Any]]:  # fmt: skip
    """Integer dot products of a sub-block, by term and token, each <16 x i32>; those of the last term are added to
    ``starts``. ``codes(k)``: group ``k`` of four columns, <64 x i8>, as the machine multiplies them; at ``bases`` their
    activations are groups ``first`` and on, each of ``pitch`` tokens, if these are more.

    The accumulators are pinned after each group: left alone, LLVM computes one half of the rows after the other on
    machines of 8 lanes and keeps codes and activations on the stack meanwhile (Q4_K on AVX2, one core of Zen 4: 17 GB/s
    instead of 22, 66 G multiply-adds a second instead of 99).
    """
    zeros, pitch = [e.zero("i32x16")] * tokens, pitch or tokens
    starts = starts or zeros
    if len(bases) > 1 and tokens > 1 and e.machine.pins:  # accumulators of both terms are more than the registers
        upper = dots(e, fam, codes, bases[:-1], first, tokens, pitch=pitch)
        return upper + dots(e, fam, codes, bases[-1:], first, tokens, starts, pitch=pitch)
    groups = fam.sub // 4
    dot = dot_of(e, fam)
    narrow = None if fam.signed else e.machine.narrow
    # groups of four whose products, two to a lane, cannot leave int16
    together = NARROW // (max_code or fam.max_code) if narrow else 1
    acc = [list(zeros) for _ in bases[:-1]] + [list(starts)]
    for start in range(0, groups, together):
        pairs = [[e.zero("i16x32")] * tokens for _ in bases]
        for k in range(start, min(groups, start + together)):
            value = codes(k)
            for t in range(tokens):
                at = ((first + k) * pitch + t) * 4
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


def dot_of(e: Emit, fam: Any) -> Any:
    """What adds the products of four codes of ``fam``, as the machine multiplies them, to lanes of int32."""
    return e.dot_ss if fam.signed and not e.machine.signed_bias else e.dot_us


def apart(
    e: Emit, sub: int, group: Any, codes: Any, high: Any, tokens: int, dot: Callable[..., Any]
) -> list[list[Any]]:  # fmt: skip
    """What four columns apart, the ``group``-th of a unit, whose rows have ``codes`` there, add to the products of each
    sub-block of ``sub`` columns, by token, <16 x i32>: ``activation_apart`` left them at ``high``."""
    zero = e.zero("i32x16")
    found = [e.shl(dot(zero, codes, e.bytes4(high, 4 * t)), HIGH_BITS) for t in range(tokens)]
    if sub == 32:
        return [found]
    later = e.b.icmp_signed(">=", group, e.i64(4))
    return [[e.b.select(later, zero, v) for v in found], [e.b.select(later, v, zero) for v in found]]


def group_of(e: Emit, high: Any, pitch: int) -> Any:
    """Which four of a unit's columns stand apart to tiles of ``pitch`` tokens, i64: see ``activation_apart``."""
    return e.b.zext(e.load(high, 8 * pitch, "i32"), e.i64(0).type)


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


def _block_first(e: Emit, fam: Any, p: Any, q: Any, meta: Words, table: Any, total: Any) -> Any:
    """``_block_one`` with the first of two terms alone: the scale is that of the second, 1/256 of its own."""
    block = _block_one(e, fam, p, (q,), meta, e.zero("f32x16"), True, table)
    return e.fma(block, e.const("f32x16", 256.0), total)


def _block_one(
    e: Emit, fam: Any, p: Any, bases: tuple[Any, ...], meta: Words, total: Any, first_term: bool = False,
    table: Any = None, wide: Any = None,
) -> Any:  # fmt: skip
    """One panel block of a quantized family against one token, whose terms are at ``bases``; returns the new sum.
    ``first_term``: what is added up are the sums of the first term of two. ``table``: they are there (``sum_tables``).
    ``wide``: both terms are there (``wide``).
    """
    if fam.weave:
        bases = tuple(_woven(e, fam, base) for base in bases)
    shared = fam.prepare(e, p)
    whole = fam.whole(e, shared)
    if whole:
        return _scaled_once(e, fam, p, bases, meta, total, shared, whole, first_term, table, wide)
    products = _Dots(e, fam, p, bases, wide)
    zero = products.zero
    for s in range(fam.block // fam.sub):
        scale, offset = fam.parts(e, p, shared, s)
        dot, d = e.i_to_f32(products[s]), e.splat(meta.scale(s * fam.sub // 32))
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


class _Dots:
    """Dot products of the sub-blocks of a panel block with one token, whose terms are at ``bases``: each when it is
    asked for, or with others whose codes come from the same lines. ``wide``: both terms as of ``wide``, for codes that
    are raised.

    Memory is read forward, so loads of codes are fenced (see ``matmul``). All codes of a line are multiplied when it is
    there if registers hold the sums of all its sub-blocks: where four have a line a tenth to a third is won, GB/s from
    cache of one core of Zen 4: Q2_K 35 and 38, TQ2_0 30 and 42; on AVX2 Q2_K 18.5 and 21.6.
    """

    def __init__(self, e: Emit, fam: Any, p: Any, bases: tuple[Any, ...], wide: Any = None) -> None:
        self._e, self._fam, self._p, self._bases, self._wide = e, fam, p, bases, wide
        self._groups, subs = fam.sub // 4, range(fam.block // fam.sub)
        self.zero = RAISED if wide else _zero(e, fam)  # what is taken off a code as it is multiplied
        #: bits by which the dot products of a sub-block stand higher
        self.lifts = [0 if fam.signed or fam.weave else fam.lift(s, self._most()) for s in subs]
        self.max_code = 255 if fam.signed else max(fam.max_code << lift for lift in self.lifts)
        self._found: dict[int, Any] = {}
        self._lines: Iterator[dict[int, Any]] | None = None
        if e.machine.signed_bias or (e.machine.narrow and len(bases) == 1):  # else codes and sums fill the registers
            self._walked(fam.walk(e, p))
        if not (self._found or fam.weave) and self._holds_lines():
            self._lines = self._by_lines()

    def __getitem__(self, s: int) -> Any:
        """Of sub-block ``s``: <16 x i32> in steps of the last term."""
        while self._lines and s not in self._found:
            self._found.update(next(self._lines))
        if s not in self._found:
            self._found[s] = self._alone(s)
        return self._found[s]

    def _most(self) -> int:
        """The largest code that the machine multiplies and adds up over a sub-block."""
        if self._e.machine.signed_bias:
            return 255
        return NARROW // self._groups if self._e.machine.narrow else 127

    def _holds_lines(self) -> bool:
        """Whether there are registers for the sums of all sub-blocks that share a line. With 16 of them LLVM needs
        to be led (``dots``); for two terms of Q4_K that is a tenth slower on AVX2 than each sub-block alone. On
        AVX-VNNI Q4_K and Q5_K are a tenth faster so, TQ2_0 a fifth, two terms of Q6_K 3 % slower."""
        if self._e.machine.lanes == 16:
            return True
        if self._e.machine.signed_bias:
            return len(self._bases) == 1 or self._fam.sub == 32
        narrow = self._e.machine.narrow and not self._fam.signed and self.max_code <= NARROW // self._groups
        return bool(narrow) and len(self._bases) == 1

    def _fence(self, k: int) -> None:
        if k % self._fam.per_line == 0:
            self._e.order()

    def _codes(self, s: int, k: int) -> Any:
        """Codes as the machine multiplies them: where it takes unsigned bytes of full range, signed ones raised; others
        lifted."""
        e, fam, p = self._e, self._fam, self._p
        if fam.signed:
            return (fam.raised_codes if e.machine.signed_bias else fam.codes)(e, p, s, k)
        return fam.lifted_codes(e, p, s, k, self.lifts[s])

    def _alone(self, s: int) -> Any:
        if self._wide:
            return self._alone_wide(s)
        if self._fam.weave:
            return self._alone_woven(s)

        def codes(k: int) -> Any:
            self._fence(k)
            return self._codes(s, k)

        products = dots(self._e, self._fam, codes, self._bases, s * self._groups, 1, max_code=self.max_code)
        return together(self._e, [of_one[0] for of_one in products])

    def _alone_wide(self, s: int) -> Any:
        e, fam, acc = self._e, self._fam, self._e.zero("i32x16")
        for k in range(self._groups):
            self._fence(k)
            codes = fam.raised_codes(e, self._p, s, k)
            (acc,) = e.pin([wide_terms.dot(e, acc, codes, self._wide, 8 * (s * self._groups + k))])
        return acc

    def _alone_woven(self, s: int) -> Any:
        """Codes that stand higher are added up apart, and brought down together."""
        e, (add, start) = self._e, self._adding()
        sums: dict[int, list[Any]] = {}
        for k, (value, lift) in enumerate(self._fam.woven(e, self._p, s)):
            terms = sums.setdefault(lift, [e.zero(start) for _ in self._bases])
            for term, base in enumerate(self._bases):
                terms[term] = add(terms[term], value, e.bytes4(base, 4 * (s * self._groups + k)))
            sums[lift] = e.pin(terms)
        down = [[e.ashr(term, lift) if lift else term for term in terms] for lift, terms in sums.items()]
        return self._whole([reduce(e.b.add, of_term) for of_term in zip(*down, strict=True)])

    def _adding(self) -> tuple[Any, str]:
        """What adds products to the sums of a sub-block, and their type."""
        narrow = self._e.machine.narrow
        return (partial(narrow[0], self._e.b), "i16x32") if narrow else (self._e.dot_us, "i32x16")

    def _by_lines(self) -> Iterator[dict[int, Any]]:
        e, fam, (add, start) = self._e, self._fam, self._adding()
        lines: dict[Any, list[tuple[int, int]]] = {}
        for s in range(fam.block // fam.sub):
            for k in range(self._groups):
                lines.setdefault(fam.line(s, k), []).append((s, k))
        sums = [[e.zero(start) for _ in self._bases] for _ in self.lifts]
        left = [self._groups] * len(sums)
        for line in lines.values():
            self._fence(line[0][1])
            for s, k in line:
                value = self._codes(s, k)
                for term, base in enumerate(self._bases):
                    x = e.bytes4(base, 4 * (s * self._groups + k))
                    sums[s][term] = add(sums[s][term], value, x)
                left[s] -= 1
            here = dict.fromkeys(s for s, _ in line)
            pinned = iter(e.pin([v for s in here for v in sums[s]]))
            for s in here:
                sums[s] = [next(pinned) for _ in self._bases]
            yield {s: self._whole(sums[s]) for s in here if not left[s]}

    def _whole(self, terms: list[Any]) -> Any:
        e, narrow = self._e, self._e.machine.narrow
        return together(e, [narrow[1](e.b, e.zero("i32x16"), v) for v in terms] if narrow else terms)

    def _walked(self, walk: Iterator[tuple[int, int, Any]]) -> None:
        """Of codes that come as ``fam.walk`` has them."""
        e, b, (add, start) = self._e, self._e.b, self._adding()
        each = 2 if e.machine.signed_bias else 1
        sums: dict[int, list[list[Any]]] = {}
        for s, k, codes in walk:
            terms = sums.setdefault(s, [[e.zero(start)] * each for _ in self._bases])
            for term, base in enumerate(self._bases):
                for i, part in enumerate(codes if each > 1 else [codes]):
                    if each > 1:
                        e.order()  # loaded twice: an operand in memory costs nothing
                    terms[term][i] = add(terms[term][i], part, e.bytes4(base, 4 * (s * self._groups + k)))
                terms[term] = e.pin(terms[term])
        for s, terms in sums.items():
            if each > 1:
                self._found[s] = together(e, [b.sub(b.add(e.shl(a1, 1), a1), a2) for a1, a2 in terms])
                self.lifts[s] = 8
            else:
                self._found[s] = self._whole([of_term for (of_term,) in terms])


def together(e: Emit, terms: list[Any]) -> Any:
    """Dot products of one or two terms, <16 x i32> in steps of the last."""
    return terms[0] if len(terms) == 1 else e.b.add(e.shl(terms[0], 8), terms[1])


def _scaled_once(
    e: Emit, fam: Any, p: Any, bases: tuple[Any, ...], meta: Words, total: Any, shared: Any, whole: Any,
    first_term: bool, table: Any, wide: Any,
) -> Any:  # fmt: skip
    """A block whose sub-blocks share factors, against one token: these are applied once, to what the sub-blocks add up
    to, and K-quants are a quarter faster. So are the powers of two of lifted codes: Q2_K a tenth. So is what a type
    takes off its codes, and sub-blocks of 16 are added up before the activations' scale is applied. Scales are
    multiplied as whole numbers where 32 bits hold the result. ``table``, ``wide``: as of ``_block_one``.
    """
    b, each, products = e.b, max(1, 32 // fam.sub), _Dots(e, fam, p, bases, wide)
    zero = products.zero
    sums: dict[int, Any] = {}  # by the bits by which they stand higher
    offsets, alike = e.zero("f32x16"), None  # alike: sum of the activations where all scales are one
    most = 127 * (257 if len(bases) > 1 else 1) * products.max_code * fam.sub * each * fam.max_scale
    whole_numbers = most < 2**31 and (not zero or table is not None)
    if table is not None:
        offsets = sum_tables.weighted(e, fam.weights(e, p, shared), table, fam.max_scale if zero else 0)
    for first in range(0, fam.block // fam.sub, each):
        value = None
        for s in range(first, min(first + each, fam.block // fam.sub)):
            scale, offset = fam.parts(e, p, shared, s)
            dot = products[s]
            if scale is None:
                value, x = dot, meta.sum(fam, s, first_term)
                alike = x if alike is None else b.fadd(alike, x)
                continue
            if table is None and (zero or offset is not None):
                weight = e.i_to_f32(scale if zero else offset)
                offsets = e.fma(weight, e.splat(meta.sum(fam, s, first_term)), offsets)
            if whole_numbers:
                product = b.mul(dot, scale)
                value = product if value is None else b.add(value, product)
            else:
                dot, scale = e.i_to_f32(dot), e.i_to_f32(scale)
                value = b.fmul(dot, scale) if value is None else e.fma(dot, scale, value)
        d = e.splat(meta.scale(first * fam.sub // 32))
        value = e.i_to_f32(value) if value.type.element == I32 else value
        lift = products.lifts[first]
        sums[lift] = e.fma(value, d, sums.get(lift, e.zero("f32x16")))
        if e.machine.signed_bias and not fam.signed:  # AVX-VNNI: else done at the end, and Q4_K a tenth slower
            (sums[lift],) = e.pin([sums[lift]])
    scaled = sums.pop(0, None) or e.zero("f32x16")
    for lift, lifted in sums.items():
        scaled = e.fma(lifted, e.const("f32x16", 2.0**-lift), scaled)
    if zero:
        scaled = e.fma(e.splat(alike) if alike is not None else offsets, e.const("f32x16", -zero), scaled)
    total = e.fma(scaled, whole[0], total)
    return total if whole[1] is None else e.fma(offsets, whole[1], total)


def _loud(e: Emit, fam: Any, meta: Words, table: Any, peak_at: int | None, limit: Any) -> Any:
    """Whether the square of a scale of one token's activations of the block is more than ``limit``. ``peak_at``: where
    its table, if any, has the largest."""
    if table is not None and peak_at is not None:
        peak = e.load(table, peak_at, "f32")
    else:
        peak = reduce(lambda peak, d: emit_max(e, d, peak), map(meta.scale, range(-(-fam.block // 32))))
    return e.b.fcmp_ordered(">", e.b.fmul(peak, peak), limit)


def block(
    e: Emit, fam: Any, p: Any, q: Any, q2: Any, meta: Words, table: Any, mode: str, limit: Any, total: Any
) -> Any:
    """One panel block of a quantized family against one token; returns the new sum. ``table``: of its columns, where
    they have one."""

    read = () if isinstance(p, tuple) else (p, 16 * fam.n_bytes, AHEAD)  # of few panels are both parts read

    def asking(one: Callable[..., Any], *args: Any, **named: Any) -> Any:
        with e.asking(*read) if read else contextlib.nullcontext():
            return one(e, fam, p, *args, **named)

    if mode not in MIXED:
        terms, wide = (q, q2)[: int(mode[0])], table if mode == "2w" else None
        return asking(_block_one, terms, meta, total, wide=wide)
    by_tables = {"1t": sign_tables.block, "1d": digit_tables.block}.get(mode) if table is not None else None
    sums = table if mode == "1s" else None
    (total,) = e.choose(
        _loud(e, fam, meta, table, PEAKS.get(mode), limit),
        lambda: [asking(_block_one, (q, q2), meta, total)],
        lambda: [asking(by_tables, table, total) if by_tables else asking(_block_first, q, meta, sums, total)],
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
