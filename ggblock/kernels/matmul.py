"""Matrix products over panels of 16 rows: the tile generator.

One tile is 16 rows by T tokens. For every sub-block of a weight panel the integer dot products of its codes with T
rows of int8 activations are formed in 32-bit lanes, then::

    y[row, token] += dot * (scale[row] * d[token]) + offset[row] * s[token]

with ``d`` the activations' scale per 32 and ``s = d * sum(q)``. Two terms of activations (``q`` and ``q2``, together
about 15 bits) share one float step: ``dot = 256 * dot(q) + dot(q2)``. With float activations (reference mode) codes
become floats instead and nothing is rounded to integers. In mode "1+" more bits count where they are worth it: of a
tile four of 32 columns have them (``activation_apart``), of one token blocks with a large scale have a second term
(``block_products``). Mode "1p" is "1+" of tiles with fewer dot products (``winograd``); in mode "w", of tiles
too, whole numbers of 16 bits stand for weights that are halves and for activations (``float_words``).

For one token the memory is what takes time. Most hardware prefetches best itself, at the full bandwidth, where a kernel
reads strictly forward, line after line. That is what the order of ``format.panels`` is for, and why one
token's loads of codes are fenced (``Emit.order``): left alone, the compiler loads the lines of two sub-blocks in an
order of its own. Q6_K on one core of Zen 4 whose memory gives 29 GB/s: 9 GB/s in the order of the block's bytes and 21
with every line prefetched; in the order of the panel 14 without fences, 28 with them. Zen 5 is the exception
(``simd.host.AHEAD``): of the 42 GB/s that one core reads Q4_K, Q5_K and Q6_K get 17, 15 and 17, others 34; with a line
of what comes 10 KiB later prefetched at each fence all get 37 to 45.

Activation layout (written by ``activations``): tokens in tiles of T; q: int8 (n_tiles, K/4, T, 4); meta: words
(n_tiles, K/32, META, T), which ``fields`` lists; floats: float32 (n_tiles, K, T). Four columns of q are neighbours, or,
of tiles where products are first summed in int16 (``narrow``), columns 2 g, 2 g + 1, 2 g + 16 and 2 g + 17 of 32. For
one token T is 1 and meta lies word by word, (META, K/32), each of them ``fields.word_stride`` bytes.

Error bound of a row: |error| <= sum over sub-blocks of (|w| . |x - d q|) + K * 2**-24 * sum |terms|; the first part is
the activations' rounding, at most d/2 (one term) or about d/512 (two terms) each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit
from ..simd.jit import inline
from ..simd.machines import MACHINES
from ..simd.vec import MACHINE, load
from . import block_products, families, float_words, narrow, unpacked
from .args import arg, larger, smaller, state, word_stride
from .fields import ALIKE, META_STEP, MIXED, N_TOKENS, SLICED, TABLED, TURN
from .shares import START, end_of, first_of, take

#: Of tiles of tokens shared by threads, each takes most of its share through all panels by itself, if it has so many
#: and the matrix has no more bytes. One in OTHERS is left to everybody, panels by panels, for threads that are faster.
#:
#: What one operation writes the next then finds in its core's own cache: where two cores of Zen 4 were far from each
#: other, SmolLM2's prefill of 512 tokens took 268 ms without this, 244 with one in four left to everybody, 238 with one
#: in eight; where they share a cache 229 with all of them. Panels unpacked for 16 tiles cost no more a tile than for
#: 64, but a large matrix is read by every thread (1.07 B model 0.5 to 1 % slower).
OWN_TILES, OWN_BYTES, OTHERS = 22, 2 << 20, 8

#: Tiles of so many tokens or more are computed by half where no more are in use: 2 to 4 tokens take 0.8 of the time
#: that 5 to 8 take, 20 0.88 of that of 24. With tiles of four alone prompts of 512 take 1.01 to 1.02 times as long.
HALVED = 8


def _finish(e: Emit, sums: list[Any], out: Any, stride: Any, add: Any, bias_at: Any) -> None:
    """Writes a tile's sums and the bias, or adds them to what is there where ``add`` is not 0."""
    b, biased = e.b, e.load(bias_at, 0, "f32x16")
    results = [b.fadd(v, biased) for v in sums]
    with b.if_else(b.icmp_signed("!=", add, e.i64(0))) as (then, otherwise):
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


@intrinsic(prefer_literal=True)
def tile(
    typingctx, w, q, q2, meta, meta_stride, tables, n_tabled, y, y_stride, n_blocks, accumulate, bias, limit, family,
    tokens, mode,
):  # fmt: skip
    """16 rows by one token over all columns, or in floats by ``tokens``: ``n_blocks`` whole blocks, and the tail that
    ``family`` may name. Writes (or adds to) ``y`` float32, a token every ``y_stride`` bytes.

    ``mode``: "1" or "2" terms of int8 activations, "1+" a second in blocks with a scale whose square is more than
    ``limit``, "1s", "1t" and "1d" the same with ``tables`` for the others: a line of ``sum_tables`` for each whole
    block, or ``sign_tables`` or ``digit_tables`` for the first ``n_tabled`` blocks; "2w" both terms from ``tables``,
    one of ``wide`` for each 32 columns; "f" float activations (then at ``q``). ``bias``: address of 16 floats added to
    every token (zeros where there is none).
    """
    name, n_tokens, how = family.literal_value, tokens.literal_value, mode.literal_value
    fam, last = families.family(name), families.tail(name)
    sig = types.void(*[types.int64] * 12, types.float32, family, tokens, mode)

    def codegen(c, builder, s, a):
        e = Emit(builder, MACHINE)
        weights, first, second, metas, word_size, tables, n_tabled, out, stride, blocks, add, bias_at, limit = a[:13]
        floats = how == "f" or isinstance(fam, families.FloatFamily)
        assert floats or n_tokens == 1, name

        def block(fam: Any, carried: Any, table: Any = None) -> Any:
            p, x0, x1, m, *sums = carried
            if floats:
                return block_products.block_float(e, fam, p, x0, n_tokens, sums)
            meta = block_products.Words(e, m, word_size)
            return [block_products.block(e, fam, p, x0, x1, meta, table, how, limit, sums[0])]

        def body(i: Any, carried: Any, table: Any = None) -> Any:
            p, x0, x1, m = carried[:4]
            sums = block(fam, carried, table)
            width = 4 if floats else 1
            return [
                e.at(p, fam.n_bytes * 16),
                e.at(x0, fam.block * n_tokens * width),
                e.at(x1, fam.block * n_tokens),
                e.at(m, fam.block // 32 * 4),
                *sums,
            ]

        zero = e.zero("f32x16")
        carried, begin = [weights, first, second, metas, *[zero] * n_tokens], e.i64(0)
        if how in TABLED:
            columns, size = TABLED[how][1:]
            n = n_tabled if how in SLICED else blocks  # others have tables for all
            at = fam.block // columns * size
            carried = e.loop(begin, n, 1, carried, lambda i, v: body(i, v, e.at(tables, i, at)))
            begin = n
        if how in SLICED or how not in TABLED:
            carried = e.loop(begin, blocks, 1, carried, body)
        sums = block(last, carried) if last else carried[4:]
        _finish(e, sums, out, stride, add, bias_at)
        return c.get_dummy_value()

    return sig, codegen


@intrinsic(prefer_literal=True)
def unpack(typingctx, w, second, to, n_blocks, family, mode):
    """A panel of ``n_blocks`` whole blocks, and the tail that ``family`` may name, as units at ``to`` for
    ``tile_of_units`` in ``mode``. ``second``: of a family in two parts, where the panel lies in the second region."""
    fam, last = families.family(family.literal_value), families.tail(family.literal_value)
    sig, how = types.void(*[types.int64] * 4, family, mode), mode.literal_value

    def codegen(c, builder, s, a):
        e = Emit(builder, MACHINE)
        if how == "w":
            float_words.emit_unpack(e, fam, a[0], a[2], a[3])
            return c.get_dummy_value()

        def body(i: Any, carried: Any) -> list[Any]:
            p, rest, out = carried
            unpacked.emit_unpack(e, fam, families.place(fam, p, rest), out, how)
            size = fam.block // 32 * families.unit_bytes(fam, MACHINE, how)
            return [e.at(p, fam.n_bytes * 16), e.at(rest, families.second_bytes(fam)), e.at(out, size)]

        p, _, out = e.loop(e.i64(0), a[3], 1, a[:3], body)
        if last:
            unpacked.emit_unpack(e, last, p, out, how)
        return c.get_dummy_value()

    return sig, codegen


@intrinsic(prefer_literal=True)
def tile_of_units(
    typingctx, units, q, q2, meta, y, y_stride, n_units, accumulate, bias, following, slice_units, jump, family, tokens,
    pitch, mode, rows
):  # fmt: skip
    """16 rows by ``tokens`` tokens, the first ones of a tile of ``pitch``, over ``n_units`` units (``unpacked``). ``y``
    and ``bias`` as of ``tile``; ``mode``: "1" or "2" terms of activations, or "1+", four columns apart where
    ``activations`` says so, or "1p", that by fewer dot products (``winograd``), or "w", both sides whole numbers of
    16 bits (``float_words``). ``following``: address of the panel that will be unpacked in place of this one, which is
    brought into the second level of cache meanwhile; or 0.
    ``rows``: "whole", or of that panel every ``slice_units`` lie ``jump`` bytes further on.
    """
    fam, n_tokens, how = families.family(family.literal_value), tokens.literal_value, mode.literal_value
    apart = pitch.literal_value
    sig = types.void(*[types.int64] * 12, family, tokens, pitch, mode, rows)
    whole = rows.literal_value == "whole"
    n_lines = -(-16 * fam.n_bytes * 32 // fam.block // 64)  # of packed blocks for a unit

    def codegen(c, builder, s, a):
        e = Emit(builder, MACHINE)
        first, x0, x1, metas, out, stride, n, add, bias_at, following, each, further = a[:12]

        def ask(i: Any) -> None:
            with builder.if_then(builder.icmp_signed("!=", following, e.i64(0))):
                at = e.at(following, i, 64 * n_lines)
                at = at if whole else builder.add(at, builder.mul(builder.sdiv(i, each), further))
                for line in range(n_lines):
                    e.prefetch(at, 64 * line, 2)

        def group(i: Any, carried: Any) -> list[Any]:
            left = builder.sub(n, i)
            left = builder.select(builder.icmp_signed("<", left, e.i64(ALIKE)), left, e.i64(ALIKE))
            sums = unpacked.Sums(e, [], place)
            return narrow.group(e, fam, *carried, apart, left, sums, lambda k: ask(builder.add(i, k)))

        def body(i: Any, carried: Any) -> list[Any]:
            p, x0, x1, m, *sums = carried
            ask(i)
            sums = unpacked.emit_unit(e, fam, p, x0, x1, m, n_tokens, how, unpacked.Sums(e, sums, place), apart)
            q_step = unpacked.q_step(how) * apart
            size = families.unit_bytes(fam, MACHINE, how)
            return [e.at(p, size), e.at(x0, q_step), e.at(x1, q_step), e.at(m, META_STEP * apart), *sums]

        # where accumulators fill the registers LLVM would move sums to memory and back twice a unit
        place = e.stack(64 * n_tokens) if e.machine.pins else None
        zeros = [e.zero("f32x16")] * n_tokens
        if place is not None:
            for t, value in enumerate(zeros):
                e.store(place, 64 * t, value)
        carried = [first, x0, x1, metas, *(zeros if place is None else [])]
        if families.in_groups(fam, MACHINE, how):
            assert n_tokens == apart and fam.block in (32, 32 * ALIKE), fam
            sums = e.loop(e.i64(0), n, ALIKE, carried, group)[4:]
        else:
            sums = e.loop(e.i64(0), n, 1, carried, body)[4:]
        sums = sums or [e.load(place, 64 * t, "f32x16") for t in range(n_tokens)]
        _finish(e, sums, out, stride, add, bias_at)
        return c.get_dummy_value()

    return sig, codegen


@inline
def second_part(op, panel, size):
    """Where ``panel`` lies in the second region of a row's matrix, behind all its panels; ``size`` bytes a block."""
    return arg(op, 0) + arg(op, 1) * arg(op, 3) + panel * arg(op, 2) * size


@inline
def limit_of(meta, n32, loud):
    """The square of a scale above which a block has a second term, if that of ``loud`` of all squares is asked for."""
    whole = np.float32(0)
    for k in range(n32):
        d = load(meta + 4 * k, "f32")
        whole += d * d
    return loud * whole


def make_whole_rows(family: str, one: str) -> Any:
    """``whole_rows(op, first, end, thread, n32, limit)``: panels ``first`` to ``end - 1`` of a row of ``matmul`` by one
    token in mode ``one``, whose rows are not in slices; ``limit`` as of ``tile``."""

    @inline
    def whole_rows(op, first, end, thread, n32, limit):
        w, panel_bytes, mine = arg(op, 0), arg(op, 3), thread * arg(op, 7)
        for panel in range(first, end):
            tile(
                w + panel * panel_bytes,
                arg(op, 4) + mine,
                arg(op, 5) + mine,
                arg(op, 6) + thread * arg(op, 8),
                word_stride(n32),
                arg(op, 16) + thread * arg(op, 17),
                arg(op, 18),
                arg(op, 9) + panel * 64,
                arg(op, 10),
                arg(op, 2),
                arg(op, 11),
                arg(op, 12) + panel * arg(op, 13),
                limit,
                family,
                1,
                one,
            )

    return whole_rows


def make_matmul(family: str, one: str, many: str) -> Any:
    """``y = x @ w.T`` for the tokens of the state. ``one``/``many``: the modes of ``tile`` for one token, and of
    ``tile_of_units`` (or ``tile`` "f") for tiles; ``one`` "1+" and those of ``TABLED`` take activations of two terms,
    and with "0" one token is left alone: ``sieve`` multiplies it.

    Columns: panels, number of panels, blocks a row, bytes a panel, q, q2, meta, thread stride of q and of meta (one
    token only: every thread has its own copy), y, bytes from token to token in y, accumulate, bias (16 floats a panel)
    and bytes from one panel's bias to the next (0 where all share zeros), bytes of a tile of q, of meta,
    tables, a thread's share of them, how many (modes of ``SLICED``: so many blocks have one), a line of ``shares`` a
    thread, the panels that one token takes from them at a time (0: every thread does its own share), room for unpacked
    panels, a thread's share of it, how many panels a tile takes at a time, and (modes of ``SLICED``) blocks of a row in
    a slice of its columns: all panels of one slice lie before those of the next (``engine.weights``).
    Split by panels, of many tokens also by tiles, so results do not depend on the number of threads, nor on who took
    which.
    """
    tile_tokens, mixed = MACHINES[MACHINE].tile_tokens, one in MIXED
    fam = families.family(family)
    in_floats, is_float = many == "f", isinstance(fam, families.FloatFamily)
    loud = np.float32(0 if is_float or in_floats else families.loud(fam))
    each_unit = 0 if in_floats else families.unit_bytes(fam, MACHINE, many)
    second, sliced, block_columns = families.second_bytes(fam), one in SLICED, int(fam.block)
    rows = "slices" if sliced else "whole"
    block_bytes = 0 if in_floats else 16 * fam.n_bytes
    table_bytes = TABLED[one][2] * block_columns // TABLED[one][1] if sliced else 0

    @inline
    def place_of(op, panel, begin, n_blocks):
        size = arg(op, 3) if n_blocks == arg(op, 2) else n_blocks * block_bytes
        return arg(op, 0) + arg(op, 1) * begin * block_bytes + panel * size

    @inline
    def of_slices(op, first, end, thread, n32, limit):
        begin = np.int64(0)
        while begin == 0 or begin < arg(op, 2):
            n_blocks, column = smaller(arg(op, 24), arg(op, 2) - begin), begin * block_columns
            for panel in range(first, end):
                tile(
                    place_of(op, panel, begin, n_blocks),
                    arg(op, 4) + thread * arg(op, 7) + column,
                    arg(op, 5) + thread * arg(op, 7) + column,
                    arg(op, 6) + thread * arg(op, 8) + column // 8,
                    word_stride(n32),
                    arg(op, 16) + thread * arg(op, 17) + begin * table_bytes,
                    larger(np.int64(0), smaller(n_blocks, arg(op, 18) - begin)),
                    arg(op, 9) + panel * 64,
                    arg(op, 10),
                    n_blocks,
                    arg(op, 11) + begin,
                    arg(op, 12) + panel * arg(op, 13),
                    limit,
                    family,
                    1,
                    one,
                )
            begin += arg(op, 24)

    one_token = of_slices if sliced else make_whole_rows(family, one)

    @inline
    def units_of_slices(op, first, end, thread, n32):
        room, size, begin = arg(op, 21) + thread * arg(op, 22), n32 * each_unit, np.int64(0)
        while begin == 0 or begin < arg(op, 2):
            n_blocks = smaller(arg(op, 24), arg(op, 2) - begin)
            for panel in range(first, end):
                to = room + (panel - first) * size + begin * (block_columns // 32 * each_unit)
                unpack(place_of(op, panel, begin, n_blocks), np.int64(0), to, n_blocks, family, many)
            begin += arg(op, 24)

    @inline
    def units_of_whole_rows(op, first, end, thread, n32):
        room, size = arg(op, 21) + thread * arg(op, 22), n32 * each_unit
        for panel in range(first, end):
            rest = second_part(op, panel, second) if second else np.int64(0)
            unpack(arg(op, 0) + panel * arg(op, 3), rest, room + (panel - first) * size, arg(op, 2), family, many)

    make_units = units_of_slices if sliced else units_of_whole_rows

    @inline
    def tokens_as_floats(op, first, end, thread, n32, i, is_first):
        w, panel_bytes, y_stride = arg(op, 0), arg(op, 3), arg(op, 10)
        for panel in range(first, end):
            tile(
                w + panel * panel_bytes,
                arg(op, 4) + i * arg(op, 14),
                0,
                0,
                0,
                0,
                0,
                arg(op, 9) + panel * 64 + i * tile_tokens * y_stride,
                y_stride,
                arg(op, 2),
                arg(op, 11),
                arg(op, 12) + panel * arg(op, 13),
                np.float32(0),
                family,
                tile_tokens,
                "f",
            )

    def tokens_as_integers(tokens):
        """``tokens``: how many of a tile are multiplied."""

        @inline
        def multiply(op, first, end, thread, n32, i, is_first):
            room, size, y_stride = arg(op, 21) + thread * arg(op, 22), n32 * each_unit, arg(op, 10)
            each = smaller(arg(op, 24), arg(op, 2)) if sliced else arg(op, 2)
            for panel in range(first, end):
                following = panel + end - first
                is_next = is_first and following < arg(op, 1)
                tile_of_units(
                    room + (panel - first) * size,
                    arg(op, 4) + i * arg(op, 14),
                    arg(op, 5) + i * arg(op, 14),
                    arg(op, 6) + i * arg(op, 15),
                    arg(op, 9) + panel * 64 + i * tile_tokens * y_stride,
                    y_stride,
                    n32,
                    arg(op, 11),
                    arg(op, 12) + panel * arg(op, 13),
                    place_of(op, following, np.int64(0), each) if is_next else np.int64(0),
                    larger(np.int64(1), each * (block_columns // 32)),
                    (arg(op, 1) - 1) * each * block_bytes,
                    family,
                    tokens,
                    tile_tokens,
                    many,
                    rows,
                )

        return multiply

    if in_floats:
        multiply = tokens_as_floats
    elif tile_tokens < HALVED:
        multiply = tokens_as_integers(tile_tokens)
    else:
        few, half = tile_tokens // 2, tokens_as_integers(tile_tokens // 2)
        whole = tokens_as_integers(tile_tokens)

        @inline
        def multiply(op, first, end, thread, n32, i, is_first):
            if state(op, N_TOKENS) - i * tile_tokens <= few:
                half(op, first, end, thread, n32, i, is_first)
            else:
                whole(op, first, end, thread, n32, i, is_first)

    def matmul(op, thread, n_threads):
        n_panels, n_tokens, turn = arg(op, 1), state(op, N_TOKENS), state(op, TURN)
        if one == "0" and n_tokens == 1:
            return
        n_tiles = (n_tokens + tile_tokens - 1) // tile_tokens
        n32 = arg(op, 15) // (META_STEP * tile_tokens)
        limit = np.float32(0)
        if mixed and n_tokens == 1:
            limit = limit_of(arg(op, 6) + thread * arg(op, 8), n32, loud)
        # few panels for few tiles: those that are unpacked first are waited for
        together = smaller(arg(op, 23), larger(1, n_tiles // 4))
        has_own = n_threads > 1 and n_tiles // n_threads >= OWN_TILES and n_panels * arg(op, 3) <= OWN_BYTES
        # one in so many tiles is everybody's; what follows is arithmetic, since of a branch LLVM would make two loops
        others = np.int64(OTHERS) if has_own else np.int64(1)
        piece, alone = START, np.int64(0) if has_own else n_panels
        while True:
            size, most = (arg(op, 20), n_panels) if n_tokens == 1 else (together, together)
            if alone < n_panels:
                first, end, owner, last = alone, smaller(alone + together, n_panels), thread, thread + 1
                alone, own = end, 1
            else:
                piece = take(piece, arg(op, 19), thread, n_threads, n_panels, size, most, turn)
                if piece < 0:
                    break
                first, end, owner, last, own = first_of(piece), end_of(piece), np.int64(0), n_threads, 0
            if one != "0" and n_tokens == 1:
                one_token(op, first, end, thread, n32, limit)
                continue
            if not in_floats:
                make_units(op, first, end, thread, n32)
            begin = np.int64(-1)
            while owner < last:
                i, stop = n_tiles * owner // n_threads, n_tiles * (owner + 1) // n_threads
                edge = stop - (stop - i) // others
                i, stop = edge + (i - edge) * own, stop + (edge - stop) * own
                begin = i if begin < 0 else begin
                while i < stop:
                    multiply(op, first, end, thread, n32, i, i == begin)
                    i += 1
                owner += 1

    return matmul
