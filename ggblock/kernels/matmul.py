"""Matrix products over panels of 16 rows: the tile generator.

One tile is 16 rows by T tokens. For every sub-block of a weight panel the integer dot products of its codes with T
rows of int8 activations are formed in 32-bit lanes, then::

    y[row, token] += dot * (scale[row] * d[token]) + offset[row] * s[token]

with ``d`` the activations' scale per 32 and ``s = d * sum(q)``. Two terms of activations (``q`` and ``q2``, together
about 15 bits) share one float step: ``dot = 256 * dot(q) + dot(q2)``. With float activations (reference mode) codes
become floats instead and nothing is rounded to integers. In mode "1+" the second term counts where it is worth it:
``activations`` marks 32 columns of a tile, and of one token blocks with a large scale have it (``_loud``).

For one token the memory is what takes time, and nothing here prefetches: hardware does it best, at the full bandwidth,
where a kernel reads strictly forward, line after line. That is what the order of ``format.panels`` is for, and why one
token's loads of codes are fenced (``Emit.order``): left alone, the compiler loads the lines of two sub-blocks in an
order of its own. Q6_K on one core of Zen 4 whose memory gives 29 GB/s: 9 GB/s in the order of the block's bytes and 21
with every line prefetched; in the order of the panel 14 without fences, 28 with them.

Activation layout (written by ``activations``): tokens in tiles of T; q: int8 (n_tiles, K/4, T, 4); meta: words
(n_tiles, K/32, META, T), which ``fields`` lists; floats: float32 (n_tiles, K, T). T is 1 for one token.

Error bound of a row: |error| <= sum over sub-blocks of (|w| . |x - d q|) + K * 2**-24 * sum |terms|; the first part is
the activations' rounding, at most d/2 (one term) or about d/512 (two terms) each.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit, llvm_type
from ..simd.jit import inline
from ..simd.machines import MACHINES
from ..simd.vec import MACHINE, load
from . import families
from .args import arg, larger, smaller, state
from .fields import LOUD, META, N_TOKENS

#: Weights that many tokens go through together, so that a tile of activations comes from the third level once a group
#: and not once a panel: 2 to 4 % of a prefill.
GROUP_BYTES = 128 * 1024


def _dots(
    e: Emit, fam: Any, p: Any, bases: tuple[Any, ...], s: int, tokens: int, starts: list[Any] | None = None
) -> list[list[Any]]:
    """Integer dot products of sub-block ``s``, by term and token, each <16 x i32>; those of the last term are added to
    ``starts``.

    The accumulators are pinned after each group: left alone, LLVM computes one half of the rows after the other on
    machines of 8 lanes and keeps codes and activations on the stack meanwhile (Q4_K on AVX2, one core of Zen 4: 17 GB/s
    instead of 22, 66 G multiply-adds a second instead of 99).
    """
    first = [e.zero("i32x16")] * tokens
    starts = starts or first
    if len(bases) > 1 and tokens > 1 and e.machine.pins:  # accumulators of both terms are more than the registers
        return _dots(e, fam, p, bases[:-1], s, tokens) + _dots(e, fam, p, bases[-1:], s, tokens, starts)
    groups = fam.sub // 4
    dot = e.dot_ss if fam.signed and not e.machine.signed_bias else e.dot_us
    narrow = None if fam.signed else e.machine.narrow
    # groups of four whose products, two to a lane, cannot leave int16
    together = 32767 // (2 * 127 * fam.max_code) if narrow else 1
    acc = [list(first) for _ in bases[:-1]] + [list(starts)]
    for start in range(0, groups, together):
        pairs = [[e.zero("i16x32")] * tokens for _ in bases]
        for k in range(start, min(groups, start + together)):
            if tokens == 1 and k % fam.per_line == 0:
                e.order()  # codes are loaded in the order in which they lie: see the page's head
            codes = _codes(e, fam, p, s, k, tokens)
            for t in range(tokens):
                at = ((s * groups + k) * tokens + t) * 4
                for term, base in enumerate(bases):
                    x = e.bytes4(base, at)
                    if together > 1:
                        pairs[term][t] = narrow[0](e.b, pairs[term][t], codes, x)
                    else:
                        acc[term][t] = dot(acc[term][t], codes, x)
            held = pairs if together > 1 else acc
            pinned = iter(e.pin([v for values in held for v in values]))
            held[:] = [[next(pinned) for _ in values] for values in held]
        if together > 1:
            acc = [[narrow[1](e.b, a, h) for a, h in zip(*both, strict=True)] for both in zip(acc, pairs, strict=True)]
    return acc


def _codes(e: Emit, fam: Any, p: Any, s: int, k: int, tokens: int) -> Any:
    """Codes as the machine multiplies them: where it takes unsigned bytes of full range, signed ones raised, and others
    lifted for one token; woven for one token where the family says so."""
    if tokens == 1 and fam.weave:
        return fam.woven_codes(e, p, s, k)
    if fam.signed:
        return (fam.raised_codes if e.machine.signed_bias else fam.codes)(e, p, s, k)
    return (fam.lifted_codes if tokens == 1 and e.machine.signed_bias else fam.codes)(e, p, s, k)


def _place(fam: Any, s: int, tokens: int) -> int:
    """Byte of the block's meta at which the 32 columns of sub-block ``s`` begin."""
    return s * fam.sub // 32 * META * tokens * 4


def _sums_at(fam: Any, s: int, tokens: int, first_term: bool = False) -> int:
    """Byte of the block's meta at which the scaled sums of sub-block ``s`` begin, or one token's of the first term
    alone. Where those lie, tiles have sums in whole numbers."""
    return _place(fam, s, tokens) + ((1 if fam.sub == 32 else 2 + s % 2) + 3 * first_term) * tokens * 4


def _add(
    e: Emit, fam: Any, p: Any, bases: tuple[Any, ...], *, meta: Any, first: int, scales: list[Any], tokens: int,
    sums: list[Any],
) -> list[Any]:  # fmt: skip
    """``sums`` of all tokens and what 32 columns add, sub-blocks ``first`` and on with their ``scales``, with the terms
    of activations at ``bases``.

    Where a type takes the same power of two off all of its codes, the dot products start with what that takes off them:
    a shift, which costs nothing beside dot products, instead of a multiply-add, which costs as much as one of them.
    """
    b, shift, values, alone = e.b, _shift(e, fam), [None] * tokens, len(scales) == 1
    for s, scale in enumerate(scales, first):
        starts = None
        if shift is not None:
            at = _sums_at(fam, s, tokens, True)
            whole = [e.splat_load(meta, at + t * 4, "i32") for t in range(tokens)]
            starts = [b.ashr(v, e.const("i32x16", shift)) if shift else v for v in whole]
        acc = _dots(e, fam, p, bases, s, tokens, starts)
        for t, before in enumerate(values):
            total = acc[0][t] if len(bases) == 1 else b.add(e.shl(acc[0][t], 8), acc[1][t])
            value = b.sitofp(total, llvm_type("f32x16"))
            values[t] = value if alone else b.fmul(value, scale) if before is None else e.fma(value, scale, before)
    at, out = _place(fam, first, tokens), []
    for t, value in enumerate(values):
        d = e.splat_load(meta, at + t * 4, "f32")
        out.append(e.fma(value, b.fmul(scales[0], d) if alone else d, sums[t]))
    return out


def _zero(e: Emit, fam: Any) -> float:
    """What is taken off a code as it is multiplied."""
    return float(e.machine.signed_bias) if fam.signed else float(fam.zero)


def _shift(e: Emit, fam: Any) -> int | None:
    """Bits by which the sums of activations for tiles, -128 times, are more than ``-zero`` times, which is what dot
    products start with; None where no power of two is taken off."""
    return {2.0 ** (7 - n): n for n in range(8)}.get(_zero(e, fam))


def _block_first(e: Emit, fam: Any, p: Any, q: Any, meta: Any, total: Any) -> Any:
    """``_block_one`` with the first of two terms alone: the scale is that of the second, 1/256 of its own."""
    block = _block_one(e, fam, p, (q,), meta, e.zero("f32x16"), first_term=True)
    return e.fma(block, e.const("f32x16", 256.0), total)


def _block_one(
    e: Emit, fam: Any, p: Any, bases: tuple[Any, ...], meta: Any, total: Any, first_term: bool = False
) -> Any:
    """One panel block of a quantized family against one token, whose terms are at ``bases``; returns the new sum.
    ``first_term``: what is added up are the sums of the first term of two.
    """
    if fam.weave:
        bases = tuple(_woven(e, fam, base) for base in bases)
    sums_at, shared = partial(_sums_at, fam, tokens=1, first_term=first_term), fam.prepare(e, p)
    whole = fam.whole(e, shared)
    if whole:
        return _scaled_once(e, fam, p, bases, meta, total, shared, whole, sums_at)
    zero = _zero(e, fam)
    for s in range(fam.block // fam.sub):
        scale, offset = fam.parts(e, p, shared, s)
        dot, d = _dot(e, fam, p, bases, s), e.splat_load(meta, _place(fam, s, 1), "f32")
        x = e.splat_load(meta, sums_at(s), "f32")
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
    return _in_floats(e, [of_one[0] for of_one in _dots(e, fam, p, bases, s, 1)])


def _in_floats(e: Emit, terms: list[Any]) -> Any:
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
    return [_in_floats(e, [b.sub(b.add(e.shl(a1, 1), a1), a2) for a1, a2 in terms]) for terms in sums]


def _scaled_once(
    e: Emit, fam: Any, p: Any, bases: tuple[Any, ...], meta: Any, total: Any, shared: Any, whole: Any, sums_at: Any
) -> Any:
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
                value, x = dot, e.load(meta, sums_at(s), "f32")
                alike = x if alike is None else b.fadd(alike, x)
                continue
            value = b.fmul(dot, scale) if value is None else e.fma(dot, scale, value)
            if zero or offset is not None:
                offsets = e.fma(scale if zero else offset, e.splat_load(meta, sums_at(s), "f32"), offsets)
        d = e.splat_load(meta, _place(fam, first, 1), "f32")
        sums[power] = e.fma(value, d, sums.get(power, e.zero("f32x16")))
    scaled = sums.pop(0, None) or e.zero("f32x16")
    for power, lifted in sums.items():
        scaled = e.fma(lifted, e.const("f32x16", 2.0**-power), scaled)
    if zero:
        scaled = e.fma(e.splat(alike) if alike is not None else offsets, e.const("f32x16", -zero), scaled)
    total = e.fma(scaled, whole[0], total)
    return total if whole[1] is None else e.fma(offsets, whole[1], total)


def _loud(e: Emit, fam: Any, meta: Any, limit: Any) -> Any:
    """Whether the square of a scale of one token's activations of the block is more than ``limit``."""
    b, peak = e.b, None
    for first in range(0, fam.block, 32):
        d = e.load(meta, first // 32 * META * 4, "f32")
        peak = d if peak is None else b.select(b.fcmp_ordered(">", d, peak), d, peak)
    return b.fcmp_ordered(">", b.fmul(peak, peak), limit)


def _block(
    e: Emit, fam: Any, p: Any, q: Any, q2: Any, meta: Any, tokens: int, mode: str, limit: Any, sums: list[Any]
) -> list[Any]:
    """One panel block of a quantized family against ``tokens`` tokens; returns the new sums."""
    b, terms, mixed = e.b, int(mode[0]), mode == "1+"
    if tokens == 1 and mixed:
        return e.choose(
            _loud(e, fam, meta, limit),
            lambda: [_block_one(e, fam, p, (q, q2), meta, sums[0])],
            lambda: [_block_first(e, fam, p, q, meta, sums[0])],
        )
    if tokens == 1:
        return [_block_one(e, fam, p, (q, q2)[:terms], meta, sums[0])]
    shared, each = fam.prepare(e, p), 32 // fam.sub
    zero = _zero(e, fam) if _shift(e, fam) is None else 0.0
    for first in range(0, fam.block // fam.sub, each):
        scales, offsets = [], []
        for s in range(first, min(first + each, fam.block // fam.sub)):
            scale, offset = fam.complete(e, p, shared, s)
            scales.append(scale)
            if zero:
                offset = b.fmul(scale, e.const("f32x16", -zero))
            if offset is not None:
                offsets.append((offset, _sums_at(fam, s, tokens)))
        add = partial(_add, e, fam, p, meta=meta, first=first, tokens=tokens, sums=sums)
        if mixed:  # a negative scale says that there is a second term, to all tokens of the tile
            loud = b.icmp_signed("<", e.load(meta, _place(fam, first, tokens), "i32"), ir.Constant(ir.IntType(32), 0))
            louder = [b.fneg(scale) for scale in scales]
            sums = e.choose(loud, partial(add, (q, q2), scales=louder), partial(add, (q,), scales=scales))
        else:
            sums = add((q, q2)[:terms], scales=scales)
        for offset, at in offsets:
            sums = [e.fma(offset, e.splat_load(meta, at + t * 4, "f32"), v) for t, v in enumerate(sums)]
    return sums


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


def _block_float(e: Emit, fam: Any, p: Any, x: Any, tokens: int, sums: list[Any]) -> list[Any]:
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


@intrinsic(prefer_literal=True)
def tile(typingctx, w, q, q2, meta, y, y_stride, n_blocks, accumulate, bias, limit, family, tokens, mode):
    """16 rows by ``tokens`` tokens over all columns: ``n_blocks`` whole blocks, and the tail that ``family`` may name.
    Writes (or adds to) ``y`` float32, a token every ``y_stride`` bytes.

    ``mode``: "1" or "2" terms of int8 activations, "1+" a second where it is worth it (many tokens: where
    ``activations`` says so; one: in blocks with a scale whose square is more than ``limit``), "f" float activations
    (then at ``q``). ``bias``: address of 16 floats added to every token (zeros where there is no bias).
    """
    name, n_tokens, how = family.literal_value, tokens.literal_value, mode.literal_value
    fam, last = families.family(name), families.tail(name)
    sig = types.void(*[types.int64] * 9, types.float32, family, tokens, mode)

    def codegen(c, builder, s, a):
        e = Emit(builder, MACHINE)
        weights, first, second, metas, out, stride, blocks, add, bias_at, limit = a[:10]
        is_float = isinstance(fam, families.FloatFamily)
        floats = how == "f" or is_float

        def block(fam: Any, carried: Any) -> Any:
            p, x0, x1, m, *sums = carried
            if floats:
                return _block_float(e, fam, p, x0, n_tokens, sums)
            return _block(e, fam, p, x0, x1, m, n_tokens, how, limit, sums)

        def body(i: Any, carried: Any) -> Any:
            p, x0, x1, m = carried[:4]
            sums = block(fam, carried)
            width = 4 if floats else 1
            return [
                e.at(p, fam.n_bytes * 16),
                e.at(x0, fam.block * n_tokens * width),
                e.at(x1, fam.block * n_tokens),
                e.at(m, fam.block // 32 * META * n_tokens * 4),
                *sums,
            ]

        zero = e.zero("f32x16")
        carried = e.loop(e.i64(0), blocks, 1, [weights, first, second, metas, *[zero] * n_tokens], body)
        sums = block(last, carried) if last else carried[4:]
        b = builder
        biased = e.load(bias_at, 0, "f32x16")
        results = [b.fadd(v, biased) for v in sums]
        old = b.icmp_signed("!=", add, e.i64(0))
        with b.if_else(old) as (then, otherwise):
            with then:
                at = out
                for v in results:
                    e.store(at, 0, b.fadd(e.load(at, 0, "f32x16"), v))
                    at = b.add(at, stride)
            with otherwise:
                at = out
                for v in results:
                    e.store(at, 0, v)
                    at = b.add(at, stride)
        return c.get_dummy_value()

    return sig, codegen


def make_matmul(family: str, one: str, many: str) -> Any:
    """``y = x @ w.T`` for the tokens of the state. ``one``/``many``: the mode of ``tile`` for one token and for tiles;
    ``one`` "1+" takes activations of two terms.

    Columns: panels, number of panels, blocks a row, bytes a panel, q, q2, meta, thread stride of q and of meta (one
    token only: every thread has its own copy), y, bytes from token to token in y, accumulate, bias (16 floats a panel)
    and bytes from one panel's bias to the next (0 where all share zeros), bytes of a tile of q, of meta.
    Split by panels, so results do not depend on the number of threads.
    """
    tile_tokens, mixed = MACHINES[MACHINE].tile_tokens, one == "1+"

    @inline
    def limit_of(meta, n32):
        whole = np.float32(0)
        if mixed:
            for k in range(n32):
                d = load(meta + k * 4 * META, "f32")
                whole += d * d
        return np.float32(LOUD) * whole

    def matmul(op, thread, n_threads):
        w, n_panels, n_blocks, panel_bytes = arg(op, 0), arg(op, 1), arg(op, 2), arg(op, 3)
        q, q2, meta = arg(op, 4), arg(op, 5), arg(op, 6)
        y, y_stride, accumulate, bias, bias_step = arg(op, 9), arg(op, 10), arg(op, 11), arg(op, 12), arg(op, 13)
        n_tokens = state(op, N_TOKENS)
        first, last = n_panels * thread // n_threads, n_panels * (thread + 1) // n_threads
        if n_tokens == 1:
            mine, meta = thread * arg(op, 7), meta + thread * arg(op, 8)
            limit = limit_of(meta, arg(op, 15) // (4 * META * tile_tokens))
            for panel in range(first, last):
                tile(
                    w + panel * panel_bytes,
                    q + mine,
                    q2 + mine,
                    meta,
                    y + panel * 64,
                    y_stride,
                    n_blocks,
                    accumulate,
                    bias + panel * bias_step,
                    limit,
                    family,
                    1,
                    one,
                )
        else:
            n_tiles = (n_tokens + tile_tokens - 1) // tile_tokens
            together = larger(1, smaller(last - first, GROUP_BYTES // panel_bytes))
            for group in range((last - first + together - 1) // together):
                start = first + group * together
                for i in range(n_tiles):
                    for panel in range(start, smaller(last, start + together)):
                        tile(
                            w + panel * panel_bytes,
                            q + i * arg(op, 14),
                            q2 + i * arg(op, 14),
                            meta + i * arg(op, 15),
                            y + panel * 64 + i * tile_tokens * y_stride,
                            y_stride,
                            n_blocks,
                            accumulate,
                            bias + panel * bias_step,
                            np.float32(0),
                            family,
                            tile_tokens,
                            many,
                        )

    return matmul
