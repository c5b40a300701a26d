"""The largest logits by a sketch of the output matrix: what every row may be at most, from four or five bits a weight.

Whoever takes the most likely word, or draws among the forty most likely, needs exact logits of those alone, and the
output matrix is the largest of a small model. So the engine makes a second, rough one when the file is loaded. One
token reads that; then panels of 16 rows that have one of the largest values are multiplied whole, and then those that
may have a row larger than the last of these. Logits that were multiplied whole are what they are when all are asked
for, to the bit; the others keep the value of the sketch, which is below all of the largest.

A weight ``w`` of column ``j`` is ``d * (code - center[j])``, the code ``w / d + center[j]`` rounded, ``d`` the largest
magnitude of 32 weights divided by 7.5 (as a bfloat16, rounded up), ``center[j] = 7.5 + r[j]`` with ``r`` drawn evenly
from -1/2 to 1/2 once for all rows (dither that is taken off again: Roberts, "Picture coding using pseudo-random noise",
1962); with five bits, which types of eight and more have, 15.5. So whatever the weights are, as long as nobody made
them for this ``r``, the error of a weight is drawn evenly from ``-d/2`` to ``d/2`` and those of a row's columns are
independent; and a sum of such times numbers ``x`` is further off than ``z`` times its standard deviation
``sqrt(sum((d * x)**2) / 12)`` in less than ``exp(-z**2 / 2)`` of all cases (such draws are strictly sub-Gaussian). With
``DEVIATIONS`` 7 that is 2.3e-11 for each of the words that are looked for: of some 10**9 tokens drawn among the best
forty, one may miss the chance of a word, and a word of little chance most likely.

Where few activations are far larger than all others that is more than it need be. So the largest of 32 is taken apart
if it is larger than ``sqrt(12) / z`` times the root of all squares that are left (where its share of the deviation
begins to cost less than what it can be at most): the row is at most ``d * |x| / 2`` further off for it.

To that comes rounding. The sketch adds up three numbers for 32 columns, a matrix its own; they are at most 16 times
``d * sum(|x|)``, and with ``R`` the root of ``sum((d * x)**2)`` that is ``16 * sqrt(K) * R`` for a row, so that
``K**1.5 * 2**-22 * R`` is more than both lose. Floats are multiplied by activations as they are, where the sketch has
them in two terms, at most 2**-16 of the largest of 32 off: for the block ``7.5 * 32 * 2**-16`` times its part of ``R``,
and for a row less than ``2**-8 * sqrt(K / 32) * R``; and they add up a number for each column, ``7.5 * d * |x|`` at
most, which loses twice as much as said above. All is added to what a row may be; twice with five bits, whose ``d`` is
half as large beside the weights.

A product that leaves the second term of activations out in quiet blocks (``fields.MIXED``) is followed: a
thread has second terms of its own, zero where that product ignores them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit, llvm_type
from ..simd.jit import inline
from ..simd.vec import (
    MACHINE,
    Vec,
    atomic_add,
    emit_inverse,
    emit_magnitude,
    emit_max,
    load,
    max_of,
    store,
    tree,
    vsqrt,
)
from . import block_products, families
from .args import arg, arg_f32, before_pieces, larger, smaller, state, state_at, word_stride
from .fields import AIM, BEST, FOUND, LISTS, MIXED, MOST, N_TOKENS, TURN
from .matmul import limit_of, make_whole_rows
from .q4_0 import nibbles
from .q8_0_parted import moved
from .ranking import clear, keep_rows, least_of
from .shares import START, end_of, first_of, take

SHARE = 12.0 / families.DEVIATIONS**2  # of all squares, from which on one is taken apart


class Sketch(families.Family):
    """The rough matrix. The sum of activations that its offset takes is that of ``center * x`` (``Aims``).

    A panel block has the steps; where codes have five bits their fifths, bit ``k`` of a byte for weight ``4 k`` and on;
    then their low four bits as Q4_0 has them.
    """

    has_offsets = True
    per_line = 8

    def __init__(self, bits: int) -> None:
        self.bits, self.n_bytes, self.max_code = bits, families.sketch_bytes(bits), (1 << bits) - 1

    def prepare(self, e: Any, p: Any) -> Any:
        return e.bf16_load(p, 0)

    def parts(self, e: Any, p: Any, d: Any, s: int) -> tuple[Any, Any]:
        return d, e.b.fneg(d)

    def codes(self, e: Any, p: Any, s: int, k: int) -> Any:
        low = nibbles(e, p, self.n_bytes - 16, k)
        return low if self.bits == 4 else e.b.or_(low, moved(e, e.load(p, 32, "i8x64"), k, 4, 1))


class Aims(block_products.Words):
    """One token's meta whose sums are those that a sketch takes: of 32 columns four float32 at ``aims``, of which the
    first is ``sum(center * x)``. Then come ``sum(x**2)`` without what is taken apart, what that makes a row further off
    for ``d`` 1, and the largest ``x**2``, negative where it is apart."""

    def __init__(self, e: Emit, at: Any, stride: Any, aims: Any) -> None:
        super().__init__(e, at, stride)
        self._aims = aims

    def sum(self, fam: Any, s: int, first_term: bool) -> Any:
        return self._e.load(self._aims, 4 * AIM * s, "f32")


def _emit_sketch(e: Emit, fam: Sketch, weights: Any, centers: Any, to: Any) -> None:
    """32 columns of 16 rows, float32 (32, 16) at ``weights``, as a panel block of ``fam`` at ``to``."""
    b, i32 = e.b, "i32x16"
    const = lambda value: e.const(i32, value)  # noqa: E731
    peak = e.zero(i32)
    for j in range(32):
        peak = emit_magnitude(e, e.load(weights, 64 * j, i32), peak)
    d = e.bitcast(b.fmul(e.bitcast(peak, "f32x16"), e.const("f32x16", 2 / fam.max_code)), i32)
    d = b.select(b.icmp_signed("<", d, const(0x7FC00000)), d, const(0x7FC00000))
    d = e.lshr(b.add(d, const(0xFFFF)), 16)
    e.store(to, 0, b.trunc(d, llvm_type("i16x16")))
    step = e.bitcast(e.shl(d, 16), "f32x16")
    inverse, lines, fifths = emit_inverse(e, e.const("f32x16", 1.0), step), [], e.zero(i32)
    for k in range(8):
        line = e.zero(i32)
        for j in range(4 * k, 4 * k + 4):
            center = e.splat_load(centers, 4 * j, "f32")
            code = b.fptosi(e.rint(e.fma(e.load(weights, 64 * j, "f32x16"), inverse, center)), llvm_type(i32))
            code = b.select(b.icmp_signed(">", code, const(0)), code, const(0))
            code = b.select(b.icmp_signed("<", code, const(fam.max_code)), code, const(fam.max_code))
            line = b.or_(line, e.shl(code, j % 4 * 8) if j % 4 else code)
        if fam.bits > 4:
            fifths = b.or_(fifths, e.shl(e.and_(e.lshr(line, 4), 0x01010101), k))
        lines.append(e.and_(line, 0x0F0F0F0F))
    if fam.bits > 4:
        e.store(to, 32, fifths)
    for k in range(4):
        e.store(to, 16 * fam.n_bytes - 256 + 64 * k, b.or_(lines[k], e.shl(lines[k + 4], 4)))


@intrinsic(prefer_literal=True)
def sketch_panel(typingctx, panel, n_blocks, centers, to, family, bits):
    """The sketch at ``to``, with codes of ``bits``, of a panel of ``n_blocks`` blocks of ``family``."""
    fam, rough = families.family(family.literal_value), Sketch(bits.literal_value)
    each = max(1, 32 // fam.block)  # blocks for 32 columns

    def codegen(c, builder, s, a):
        e = Emit(builder, MACHINE)
        weights = e.stack(64 * 32)

        def unit(at: Any, carried: list[Any]) -> list[Any]:
            centers, to = carried
            _emit_sketch(e, rough, at, centers, to)
            return [e.at(centers, 4 * 32), e.at(to, 16 * rough.n_bytes)]

        def body(i: Any, carried: list[Any]) -> list[Any]:
            p, *places = carried
            if each > 1:
                for k in range(32):
                    block = e.at(p, 16 * fam.n_bytes * (k // fam.block))
                    e.store(weights, 64 * k, fam.weights(e, block, k % fam.block))
                places = unit(weights, places)
            else:
                at, n = block_products.decoded(e, fam, p), fam.block // 32
                places = e.loop(e.i64(0), e.i64(n), 1, places, lambda k, v: unit(e.at(at, k, 64 * 32), v))
            return [e.at(p, 16 * fam.n_bytes * each), *places]

        e.loop(e.i64(0), a[1], each, [a[0], a[2], a[3]], body)
        return c.get_dummy_value()

    return types.void(*[types.int64] * 4, family, bits), codegen


def make_sketch(family: str, bits: str) -> Any:
    """A matrix's sketch, codes of ``bits``. Columns: panels, how many, blocks a row, bytes a panel, centers float32
    (K,), the sketch's panels, bytes of one. Split by panels."""
    of_code = int(bits)

    def sketch(op, thread, n_threads):
        n = arg(op, 1)
        for panel in range(n * thread // n_threads, n * (thread + 1) // n_threads):
            to = arg(op, 5) + panel * arg(op, 6)
            sketch_panel(arg(op, 0) + panel * arg(op, 3), arg(op, 2), arg(op, 4), to, family, of_code)

    return sketch


@intrinsic(prefer_literal=True)
def rough_tile(typingctx, w, q, q2, meta, meta_stride, aims, y, peak, highest, n_blocks, reach, bits):
    """16 rows of a sketch by one token: their values to ``y``, the largest to ``peak``, the most that any of them can
    be to ``highest``; ``reach`` roots of ``sum((d * x)**2)`` above its value. Returns the values."""
    fam = Sketch(bits.literal_value)

    def codegen(c, builder, s, a):
        e = Emit(builder, MACHINE)
        weights, first, second, metas, word_size, aims, out, peak_at, highest_at, blocks, reach = a[:11]

        def body(i: Any, carried: Any) -> Any:
            p, x0, x1, m, aim, total, squares, apart = carried
            words = Aims(e, m, word_size, aim)
            total = block_products.block(e, fam, p, x0, x1, words, None, "2", None, total)
            d = fam.prepare(e, p)
            squares = e.fma(builder.fmul(d, d), e.splat_load(aim, 4, "f32"), squares)
            apart = e.fma(d, e.splat_load(aim, 8, "f32"), apart)
            p, aim = e.at(p, 16 * fam.n_bytes), e.at(aim, 4 * AIM)
            return [p, e.at(x0, 32), e.at(x1, 32), e.at(m, 4), aim, total, squares, apart]

        start = [weights, first, second, metas, aims, *[e.zero("f32x16")] * 3]
        *_, total, squares, apart = e.loop(e.i64(0), blocks, 1, start, body)
        most = e.fma(e.call("sqrt", squares), e.splat(reach), builder.fadd(total, apart))
        e.store(out, 0, total)
        # what is no number is multiplied whole, and hides no other row
        for at, values, otherwise in ((peak_at, total, -float("inf")), (highest_at, most, float("inf"))):
            is_one = builder.fcmp_ordered("==", values, values)
            values = builder.select(is_one, values, e.const("f32x16", otherwise))
            e.store(at, 0, tree(e, values, lambda p, q: emit_max(e, p, q)))
        return total

    return Vec("f32", 16)(*[types.int64] * 10, types.float32, bits), codegen


@inline
def write_aims(aims, own, q, q2, meta, centers, n32, each, limit, reach):
    """Second terms as the product has them to ``own``: zero in groups of ``each`` times 32 columns none of whose scales
    has a square above ``limit``. What ``Aims`` are of to ``aims``."""
    left = np.float32(0)
    for k in range(n32):
        if k % each == 0:
            largest = np.float32(0)
            for i in range(k, smaller(k + each, n32)):
                largest = larger(load(meta + 4 * i, "f32"), largest)
            is_loud = largest * largest > limit
        d, sums, squares, most = load(meta + 4 * k, "f32"), np.float32(0), np.float32(0), np.float32(0)
        for i in range(32 * k, 32 * k + 32):
            low = load(q2 + i, "i8") if is_loud else np.int8(0)
            store(own + i, low)
            x = np.float32(256 * np.int64(load(q + i, "i8")) + np.int64(low))
            sums += x * load(centers + 4 * i, "f32")
            squares += smaller(most, x * x)
            most = larger(most, x * x)
        at = aims + 4 * AIM * k
        store(at, sums * d)
        store(at + 4, squares * d * d)
        store(at + 12, most * d * d)
        left += (squares + most) * d * d
    is_apart, end = True, aims + 4 * AIM * n32
    while is_apart:
        is_apart = False
        for at in range(aims, end, 4 * AIM):
            most = load(at + 12, "f32")
            if most > left * np.float32(SHARE):
                store(at + 12, -most)  # marked
                left, is_apart = left - most, True
    factor = reach - np.float32(families.DEVIATIONS * 12.0**-0.5 - 0.5)
    for at in range(aims, end, 4 * AIM):
        most = load(at + 12, "f32")
        store(at + 4, load(at + 4, "f32") + larger(most, np.float32(0)))
        store(at + 8, vsqrt(larger(-most, np.float32(0))) * factor)


def make_rough(bits: str) -> Any:
    """One token by a sketch with codes of ``bits``, unless ``BEST`` is 0. Columns 0 to 9 as of ``matmul``, then: for
    each thread ``LISTS`` bytes, the largest values in falling order first, ``Aims``, second terms in whole lines, and
    int64 for one more than there are panels, the pieces of ``shares`` that it took and ``NOTHING``; bytes of all that;
    two float32 for each panel (in whole lines and one more), all peaks before what rows can be at most; the number of
    rows; a line of ``shares`` a thread; panels that are taken from them at a time; centers; groups of 32 columns that
    the product looks at together for a second term; what share of all their squared scales one must have (a float32; 0:
    all have it); and how many roots of ``sum((d * x)**2)`` a row may be above its value (a float32)."""
    of_code = int(bits)

    def rough(op, thread, n_threads):
        k, w, n_panels, turn = state(op, BEST), arg(op, 0), arg(op, 1), state(op, TURN)
        if k == 0 or state(op, N_TOKENS) != 1:
            return
        mine, n32 = arg(op, 10) + thread * arg(op, 11), arg(op, 2)
        q, meta = arg(op, 4) + thread * arg(op, 7), arg(op, 6) + thread * arg(op, 8)
        aims, own, last = mine + LISTS, mine + LISTS + 4 * AIM * n32, mine + 4 * k - 4
        peaks, highest, taken = arg(op, 12), highest_of(op, 12, n_panels), mine + before_pieces(n32)
        clear(mine, k)
        share = arg_f32(op, 18)
        limit, reach = limit_of(meta, n32, share) if share > 0 else np.float32(-1), arg_f32(op, 19)
        q2 = arg(op, 5) + thread * arg(op, 7)
        write_aims(aims, own, q, q2, meta, arg(op, 16), n32, arg(op, 17), limit, reach)
        piece = START
        while True:
            piece = take(piece, arg(op, 14), thread, n_threads, n_panels, arg(op, 15), n_panels, turn)
            store(taken, piece)
            taken += 8
            if piece < 0:
                break
            for panel in range(first_of(piece), end_of(piece)):
                values = rough_tile(
                    w + panel * arg(op, 3),
                    q,
                    own,
                    meta,
                    word_stride(n32),
                    aims,
                    arg(op, 9) + panel * 64,
                    peaks + panel * 4,
                    highest + panel * 4,
                    n32,
                    reach,
                    of_code,
                )
                if load(peaks + panel * 4, "f32") > load(last, "f32"):
                    keep_rows(mine, k, values, panel, arg(op, 13))

    return rough


@inline
def highest_of(op, at, n_panels):
    """Where what rows can be at most begins, in the buffer that column ``at`` names."""
    return arg(op, at) + (n_panels + 15) // 16 * 64


def make_largest(family: str, one: str) -> Any:
    """Panels multiplied whole by one token, after ``rough``, by the threads that had them there. Columns as of
    ``matmul``, but two from 14 on and three from 21 on: those of ``rough`` from 10 to 13, in their order, and which
    panels: 0, those with one of the ``BEST`` largest values (none where that is 0); 1, after all threads' 0, others
    that may have a row larger than the last of these (all). How many these were is added to word ``FOUND`` of the
    state, unless they were all.

    Who looks at panels of another core waits for lines of its cache: 10 us of SmolLM2's token.
    """
    fam, mixed = families.family(family), one in MIXED
    loud = np.float32(families.loud(fam) if mixed else 0)
    columns, multiply = int(fam.block), make_whole_rows(family, one)

    def largest(op, thread, n_threads):
        k, phase, n_panels, turn = state(op, BEST), arg(op, 23), arg(op, 1), state(op, TURN)
        if state(op, N_TOKENS) != 1 or (k == 0 and phase == 0):
            return
        lists, size, n32 = arg(op, 14), arg(op, 15), arg(op, 2) * columns // 32
        mine = lists + thread * size
        limit = limit_of(arg(op, 6) + thread * arg(op, 8), n32, loud) if mixed else np.float32(0)
        peaks, highest = arg(op, 21), highest_of(op, 21, n_panels)
        bounds = highest if phase > 0 else peaks
        # three lists a thread: values of the sketch, logits of panels with one of the largest of these, and room
        values, logits, room = lists, lists + 4 * MOST, mine + 8 * MOST
        least = floor = np.float32(np.inf)
        if k > 0:
            least = floor = least_of(values, size, k, room, n_threads)
            if phase > 0:
                floor = least_of(logits, size, k, room, n_threads)
            else:
                clear(mine + 4 * MOST, k)
        piece, taken, found = START, mine + before_pieces(n32), np.int64(0)
        while True:
            if k > 0:
                piece = load(taken, "i64")
                taken += 8
            else:
                piece = take(piece, arg(op, 19), thread, n_threads, n_panels, arg(op, 20), n_panels, turn)
            if piece < 0:
                break
            panel, end = first_of(piece), end_of(piece)
            following = panel
            while panel < end:
                if k > 0:
                    if panel == following:
                        following = panel + 16
                        if not max_of(load(bounds + 4 * panel, "f32x16")) >= floor:
                            panel = following
                            continue
                    is_one = load(bounds + 4 * panel, "f32") >= floor
                    if phase > 0 and load(peaks + 4 * panel, "f32") >= least:
                        is_one = False
                    if not is_one:
                        panel += 1
                        continue
                    found += 1
                multiply(op, panel, panel + 1, thread, n32, limit)
                if k > 0 and phase == 0:
                    logits_of_panel = load(arg(op, 9) + panel * 64, "f32x16")
                    keep_rows(mine + 4 * MOST, k, logits_of_panel, panel, arg(op, 22))
                panel += 1
        if found > 0:
            atomic_add(state_at(op, FOUND), found)

    return largest
