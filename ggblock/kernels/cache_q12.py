"""A KV cache of 12 bits in two planes: its layout, how it is written, and how many tokens read it.

A number is ``peak * (16 a + b) / MOST``: ``peak`` a half for each position and 64 dimensions, the largest magnitude
there; ``a`` a signed byte, of the first plane; ``b`` from -8 to 7, of the second, kept as ``b + 8`` in four bits. One
token reads the second plane only where it matters (``attention_q12``).

A panel of the first plane holds 16 positions of one KV head: peaks (n64, 16), then codes, of keys (head / 2, 16
positions, 2 dimensions), of values (head / 16, 8, 16 dimensions, 2 positions). The second plane lies behind the whole
first one of its KV head, keys and values by turns as there (``shapes.place``); a panel of it: of keys (head / 4, 16
positions, 2), in the low bits of a byte dimensions ``4 m`` and ``4 m + 1``, in the high ones ``4 m + 2`` and
``4 m + 3``; of values (n32, 8, 16 dimensions, 2 positions), in the high bits the dimensions 16 further. So no two
positions share a byte, and threads write theirs without waiting for each other.

Many tokens: a block of 64 positions is made of both planes once for all queries of an item, as pairs of int16 for the
products of ``attention_words``, or as float32. Where a head has one peak a position, keys are their codes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import I8, I16, Emit
from ..simd.jit import inline
from ..simd.vec import (
    MACHINE,
    ROUND,
    Vec,
    emit_inverse,
    emit_magnitude,
    emit_max,
    emit_min,
    load,
    rolled,
    stack,
    tree,
    zero,
)
from . import attention_words, shapes
from .args import groups_of, smaller
from .shapes import GROUP, KEYS

F = "f32x16"
MOST, LIMIT = 2038, 2039  # the code of a peak; what its rounding to a half may make of it: 127 * 16 + 7
COLUMNS = 64 * KEYS  # bytes of 16 dimensions of a block as float32


def wide_codes(e: Emit, at: Any, offset: int) -> Any:
    """32 signed bytes as int16."""
    return e.b.sext(e.load(at, offset, "i8x32"), ir.VectorType(I16, 32))


def fours_of(e: Emit, at: Any, offset: int) -> list[Any]:
    """32 bytes of the second plane as two vectors of int16, those of the low bits first."""
    v = _wide_fours(e, at, offset)
    return [_signed(e, e.and_(v, 15)), _signed(e, e.lshr(v, 4))]


def one_of_fours(e: Emit, at: Any, offset: int, up: Any) -> Any:
    """Of 32 bytes of the second plane those of the bits from ``up`` on, an i64."""
    v = _wide_fours(e, at, offset)
    return _signed(e, e.and_(e.b.lshr(v, e.splat(e.b.trunc(up, I16), 32)), 15))


def _wide_fours(e: Emit, at: Any, offset: int) -> Any:
    return e.b.zext(e.load(at, offset, "i8x32"), ir.VectorType(I16, 32))


def _signed(e: Emit, fours: Any) -> Any:
    return e.b.sub(fours, ir.Constant(fours.type, [8] * 32))


def floats_of(e: Emit, codes: Any) -> list[Any]:
    """Pairs of int16 as two vectors of float32."""
    lanes = e.bitcast(codes, "i32x16")
    return [e.i_to_f32(e.ashr(e.shl(lanes, 16), 16)), e.i_to_f32(e.ashr(lanes, 16))]


def together(e: Emit, upper: Any, lower: Any) -> Any:
    """The codes of both planes, int16, as one."""
    return e.b.add(e.shl(upper, 4), lower)


def whole_codes(e: Emit, first: Any, at: int, second: Any, behind: int, high: int) -> Any:
    """32 numbers of both planes, pairs of int16."""
    return together(e, wide_codes(e, first, at), fours_of(e, second, behind)[high])


@intrinsic
def upmost(typingctx, x, peak):
    """Lane by lane the larger of ``peak``, not negative, and the magnitude of ``x``; NaN is above all."""

    def codegen(c, builder, s, a):
        e = Emit(builder, MACHINE)
        return builder.bitcast(emit_magnitude(e, e.bitcast(a[0], "i32x16"), e.bitcast(a[1], "i32x16")), a[0].type)

    return x(x, peak), codegen


@intrinsic
def upmost_of(typingctx, x):
    """The largest lane of floats that are not negative; NaN is above all."""

    def codegen(c, builder, s, a):
        e = Emit(builder, MACHINE)
        found = tree(e, e.bitcast(a[0], "i32x16"), lambda p, q: builder.select(builder.icmp_signed(">", p, q), p, q))
        return builder.bitcast(found, ir.FloatType())

    return types.float32(x), codegen


@intrinsic
def write_peak(typingctx, peak, to):
    """Writes ``peak`` as a half; returns what numbers are multiplied by to be codes, in all lanes of a vector."""

    def codegen(c, builder, s, args):
        e = Emit(builder, MACHINE)
        half = e.f32_to_half(args[0])
        e.store(args[1], 0, half)
        return emit_inverse(e, e.const(F, float(MOST)), e.half_to_f32(e.bitcast(e.splat(half), "f16x16")))

    return Vec("f32", 16)(types.float32, types.int64), codegen


def _codes(e: Emit, at: Any, offset: int, factor: Any) -> tuple[Any, Any]:
    """16 floats: the bytes of the first plane, and four bits each of the second, <16 x i8>."""
    b = e.b
    x = b.fmul(e.load(at, offset, F), factor)
    x = emit_max(e, emit_min(e, x, e.const(F, float(LIMIT))), e.const(F, float(-LIMIT)))
    t = e.bitcast(b.fadd(x, e.const(F, ROUND + 8)), "i32x16")
    bytes_ = ir.VectorType(I8, 16)
    return b.trunc(e.ashr(e.shl(t, 16), 20), bytes_), b.trunc(e.and_(t, 15), bytes_)


def _scatter(e: Emit, values: Any, to: Any, step: int) -> None:
    """The elements of a vector, ``step`` bytes apart."""
    for i in range(values.type.count):
        e.store(to, i * step, e.b.extract_element(values, ir.Constant(ir.IntType(32), i)))


@intrinsic
def put_key(typingctx, x, factor, codes, fours):
    """16 dimensions of a key: at the places of its first pair in both planes."""

    def codegen(c, builder, s, args):
        e = Emit(builder, MACHINE)
        first, second = _codes(e, args[0], 0, args[1])
        _scatter(e, e.bitcast(first, "i16x8"), args[2], 32)
        v = e.bitcast(second, "i32x4")
        both = builder.or_(v, e.lshr(v, 12))  # the low half: of bytes 0 and 2, and of 1 and 3
        _scatter(e, builder.trunc(both, ir.VectorType(I16, 4)), args[3], 32)
        return c.get_dummy_value()

    return types.void(types.int64, factor, types.int64, types.int64), codegen


@intrinsic(prefer_literal=True)
def put_value(typingctx, x, factor, codes, fours, several):
    """32 dimensions of a value, or 16 of them (``several`` 1): at the places of its first dimension in both planes."""
    n = several.literal_value

    def codegen(c, builder, s, args):
        e = Emit(builder, MACHINE)
        parts = [_codes(e, args[0], 64 * j, args[1]) for j in range(n)]
        for j, (first, _) in enumerate(parts):
            _scatter(e, first, e.at(args[2], 256 * j), 2)
        second = parts[0][1]
        if n > 1:
            second = builder.or_(second, e.shl(parts[1][1], 4))
        _scatter(e, second, args[3], 2)
        return c.get_dummy_value()

    return types.void(types.int64, factor, types.int64, types.int64, several), codegen


@inline
def factor_of(x, size, to):
    """What ``size`` floats, at most ``GROUP``, are multiplied by to be codes; writes their peak."""
    peaks = zero(F)
    for i in range(0, size, 16):
        peaks = upmost(load(x + 4 * i, F), peaks)
    return write_peak(upmost_of(peaks), to)


@inline
def write_key(x, panel, fours, slot, size):
    """A key, ``size`` floats (a multiple of 16), into place ``slot`` of a panel and of its second plane."""
    codes = panel + groups_of(size) * 32 + 2 * slot
    for i in range(0, size, GROUP):
        f = factor_of(x + 4 * i, smaller(GROUP, size - i), panel + i // GROUP * 32 + 2 * slot)
        for j in range(i, smaller(i + GROUP, size), 16):
            put_key(x + 4 * j, f, codes + 16 * j, fours + 8 * j + 2 * slot)


@inline
def write_value(x, panel, fours, slot, size):
    """A value, as ``write_key``."""
    pair = slot // 2 * 32 + slot % 2
    codes = panel + groups_of(size) * 32 + pair
    for i in range(0, size, GROUP):
        f = factor_of(x + 4 * i, smaller(GROUP, size - i), panel + i // GROUP * 32 + 2 * slot)
        for j in range(i, smaller(i + GROUP, size), 32):
            if j + 32 <= size:
                put_value(x + 4 * j, f, codes + 16 * j, fours + 8 * j + pair, 2)
            else:
                put_value(x + 4 * j, f, codes + 16 * j, fours + 8 * j + pair, 1)


@intrinsic(prefer_literal=True)
def read_keys(typingctx, panel, fours, to, steps, size, largest):
    """A panel of keys of both planes: float32 (size, 16 positions) at ``to``; or, where ``largest`` is not 0, pairs of
    int16 up to it (size / 2, 16, 2), and float32 ``steps`` of the positions. All but addresses are literals."""
    n, most = size.literal_value, largest.literal_value
    n_groups = shapes.groups_of(n)
    as_they_are = bool(most) and n_groups == 1  # the codes

    def codegen(c, builder, s, args):
        e = Emit(builder, MACHINE)
        first, second, out, to_steps = args[:4]
        codes, rounding, beside = e.at(first, 32 * n_groups), e.const(F, ROUND), None
        if as_they_are:
            e.store(to_steps, 0, builder.fmul(e.half_load(first, 0), e.const(F, 1.0 / MOST)))
        elif most:
            peak = e.zero("i32x16")
            for g in range(n_groups):
                peak = emit_magnitude(e, e.bitcast(e.half_load(first, 32 * g), "i32x16"), peak)
            peak = e.bitcast(peak, F)
            e.store(to_steps, 0, builder.fmul(peak, e.const(F, LIMIT / MOST / most)))
            beside = emit_inverse(e, e.const(F, most / LIMIT), peak)

        def body(i: Any, v: Any) -> Any:
            scale, at, behind, there = v
            factor = builder.fmul(e.half_load(scale, 0), beside or e.const(F, 1.0 / MOST))
            for k in range(8):
                both = whole_codes(e, at, 32 * k, behind, 32 * (k // 2), k % 2)
                if as_they_are:
                    e.store(there, 64 * k, both)
                elif most:
                    low, high = (e.bitcast(e.fma(x, factor, rounding), "i32x16") for x in floats_of(e, both))
                    e.store(there, 64 * k, builder.or_(e.and_(low, 0xFFFF), e.shl(high, 16)))
                else:
                    for j, x in enumerate(floats_of(e, both)):
                        e.store(there, 128 * k + 64 * j, builder.fmul(x, factor))
            return [scale, e.at(at, 256), e.at(behind, 128), e.at(there, 512 if most else 1024)]

        where = [codes, second, out]
        for g in range(n_groups):
            units = min(GROUP, n - GROUP * g) // 16
            where = e.loop(e.i64(0), e.i64(units), 1, [e.at(first, 32 * g), *where], body)[1:]
        return c.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, size, largest), codegen


@intrinsic(prefer_literal=True)
def read_values(typingctx, panel, fours, peaks, to, n_seen, most, step, high):
    """A panel's values of 16 dimensions of both planes: float32, ``step`` bytes a position, zeros from position
    ``n_seen`` on. Returns the larger of their magnitudes and ``most``, lane by lane.

    ``panel``, ``fours``: the codes of these dimensions, in the second plane the ``high`` bits or the low ones;
    ``peaks`` of the positions."""
    pitch, upper = step.literal_value, high.literal_value

    def codegen(c, builder, s, args):
        e = Emit(builder, MACHINE)
        seen = builder.icmp_signed("<", e.lanes(range(16)), e.splat(builder.trunc(args[4], ir.IntType(32))))
        scale = builder.fmul(e.half_load(args[2], 0), e.const(F, 1.0 / MOST))
        scale = builder.select(seen, scale, e.zero(F))  # of a text that was there before nothing is left
        found = e.bitcast(args[5], "i32x16")
        for k in range(8):
            for j, x in enumerate(floats_of(e, whole_codes(e, args[0], 32 * k, args[1], 32 * k, upper))):
                x = builder.fmul(x, e.shuffle(scale, [2 * k + j] * 16))
                e.store(args[3], (2 * k + j) * pitch, x)
                found = emit_magnitude(e, e.bitcast(x, "i32x16"), found)
        return e.bitcast(found, F)

    sig = most(types.int64, types.int64, types.int64, types.int64, types.int64, most, step, high)
    return sig, codegen


@intrinsic(prefer_literal=True)
def shorten(typingctx, floats, n, most, to, step, to_steps):
    """``n`` positions of 16 dimensions, float32 in rows of 64 bytes and at most ``most`` in magnitude, as pairs of
    int16, ``step`` bytes apart; the steps of the dimensions, times ``1 / attention_words.WEIGHTS``."""
    pitch, largest = step.literal_value, attention_words.VALUES

    def codegen(c, builder, s, args):
        e = Emit(builder, MACHINE)
        e.store(args[5], 0, builder.fmul(args[2], e.const(F, 1.0 / largest / attention_words.WEIGHTS)))
        factor, rounding = emit_inverse(e, e.const(F, float(largest)), args[2]), e.const(F, ROUND)

        def body(i: Any, v: Any) -> Any:
            low, high = (e.bitcast(e.fma(e.load(v[0], 64 * j, F), factor, rounding), "i32x16") for j in range(2))
            e.store(v[1], 0, builder.or_(e.and_(low, 0xFFFF), e.shl(high, 16)))
            return [e.at(v[0], 128), e.at(v[1], pitch)]

        e.loop(e.i64(0), args[1], 2, [args[0], args[3]], body)
        return c.get_dummy_value()

    return types.void(types.int64, types.int64, most, types.int64, step, types.int64), codegen


def make_prepare(size: int, in_words: bool) -> Any:
    """``prepare(keys, values, n_keys, n_seen, to, fours)``: ``n_keys`` keys and values (a multiple of 16), of which the
    first ``n_seen`` are there, as the products of ``attention_words`` read them, or those of float32: keys (padded
    head, 16) by panel, then values (positions, padded head). ``fours``: the second plane of these keys."""
    padded, most = shapes.padded(size), attention_words.largest(size) if in_words else 0
    panel_bytes, four_bytes = shapes.panel_bytes(size, "q12"), shapes.second_bytes(size, "q12")
    scale_bytes = 32 * shapes.groups_of(padded)
    to_values = shapes.run("q12") // 16 * four_bytes
    key_bytes = padded * (32 if in_words else 64)  # of 16 positions
    behind = KEYS // 16 * key_bytes
    value_step = 64 if in_words else 4 * padded
    pair_step = 4 * padded

    @inline
    def prepare(keys, values, n_keys, n_seen, to, fours):
        steps = to + 2 * behind
        for j in range(n_keys // 16):
            read_keys(keys + j * panel_bytes, fours + j * four_bytes, to + j * key_bytes, steps + 64 * j, padded, most)
        room = stack(COLUMNS)
        for d in range(0, rolled(padded), 16):
            out, largest = room if in_words else to + behind + 4 * d, zero(F)
            for j in range(n_keys // 16):
                panel, second = values + j * panel_bytes, fours + to_values + j * four_bytes + d // 32 * 256
                codes, peaks, there = panel + scale_bytes + 16 * d, panel + d // GROUP * 32, out + j * 16 * value_step
                if d % 32 == 0:
                    largest = read_values(codes, second, peaks, there, n_seen - 16 * j, largest, value_step, 0)
                else:
                    largest = read_values(codes, second, peaks, there, n_seen - 16 * j, largest, value_step, 1)
            if in_words:
                shorten(room, n_keys, largest, to + behind + 4 * d, pair_step, steps + 4 * KEYS + 4 * d)

    return prepare
