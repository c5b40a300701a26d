"""Units against many tokens with fewer dot products: sums of codes and activations are multiplied, not these alone.

Winograd's inner product (S. Winograd, A New Algorithm for Inner Product, 1968). Of two columns, x the activations and y
the codes::

    x1 y1 + x2 y2 = (x1 + y2) (x2 + y1) - x1 x2 - y1 y2

What is taken off depends on the token alone and on the row alone, and is known before they meet. So 16 rows of eight
columns take one dot product and two additions of bytes instead of two dot products. That pays where additions have
pipes of their own beside those that multiply, and dot products take longer than loading what they multiply: Zen 4
starts two dot products of 256 bits a cycle, four additions and two loads (``simd.host.Host.pairs``). On Intel's CPUs
both share their pipes. Zen 5 does all with 512 bits but loads no more, and in pairs every four activations are loaded
as before: on its one core Q4_K 322 G multiply-adds a second and without pairs 346, Q6_K 298 and 323, Q2_K 288 and 308,
Q4_1 313 and 357. Some of the columns multiplied so
keep both kinds of pipes busy (``PAIRS``): of 32 that have one scale the first 24, four by four, of sub-blocks of 16
the first eight.

Both sums have to be bytes. Codes are moved to both sides of zero (``families.middle``), and activations have fewer
levels in columns that are paired (``families.levels``): 120 each way instead of 127 beside codes of four bits, 96
beside those of six. The first sum is an unsigned byte, 128 higher than it says, because ``y2`` is so in units, as are
the codes of columns that are not paired::

    (x1 + y2 + 128) (x2 + y1) = x1 y1 + x2 y2 + [x2 (x1 + 128)] + [y1 (y2 + 128)]

The token's bracket, and the others' ``128 x``, negative and added up over 32 columns or 16, are words of the meta
(``fields.META``); the row's is in the unit, int32 (32 / sub, 16), behind the offsets.

G multiply-adds a second and core of Zen 4, 512 tokens, rows of 2,048 columns, with "1+", all columns in pairs, half of
them, and ``PAIRS`` in that order: Q6_K 165, 175, 184 and 188, Q4_0 180, 208, 219 and 220, Q4_1 165, 194, 193
and 200, Q5_K 162, 195, 195 and 202, Q2_K 151, 175, 176 and 179.
"""

from __future__ import annotations

from typing import Any

from ..simd.emit import Emit
from ..simd.machines import joined
from . import families
from .block_products import apart, group_of
from .fields import HIGH_BITS, PAIRED
from .shapes import UNIT_CODES

#: Of the eight fours of columns of a unit, by the columns of a sub-block: those that are paired with the next four.
PAIRS = {32: (0, 2, 4), 16: (0, 4)}
#: The passes over the tokens: in each of them these fours and the next ones, pairs or not. Pairs and others by turns,
#: as here, are 1 to 4 % faster than pairs first or last.
PASSES = {32: ((0,), (2, 6), (4,)), 16: ((0,), (2,), (4,), (6,))}


def emit_codes(e: Emit, fam: Any, to: Any, codes: list[Any], first: int) -> Any:
    """The codes of a sub-block, unsigned, <64 x i8> for each four columns from the unit's ``first`` on, at ``to`` in a
    unit's form; what is added to each row's products: <16 x i32>."""
    middle, total, pairs = families.middle(fam), e.zero("i32x16"), PAIRS[families.paired_form(fam).sub]
    raised = e.const("i8x64", (128 - middle + 128) % 256 - 128)
    moved = [
        e.b.sub(value, e.const("i8x64", middle)) if k in pairs else e.b.add(value, raised)
        for k, value in enumerate(codes, first)
    ]
    for k, value in enumerate(moved):
        e.store(to, 64 * k, value)
        if first + k in pairs:
            total = e.dot_us(total, moved[k + 1], value)
    return e.b.sub(e.zero("i32x16"), total)


def emit_offset(e: Emit, fam: Any, scale: Any, offset: Any) -> Any:
    """The offset of a sub-block whose codes are ``middle`` lower: only families with offsets of their own need one."""
    moved = families.middle(fam) - fam.zero
    return e.fma(scale, e.const("f32x16", float(moved)), offset) if moved else offset


def words_of(e: Emit, halves: list[list[Any]], tile: int) -> list[Any]:
    """What is added to the products of 32 columns, of the first 16 and of the last 16 by token, <tile x i32>, from what
    ``activation_tiles.turned`` returned of both: -1 * sum of ``x2 (x1 + 128)`` of pairs, and of ``128 x`` of others."""
    fours, n = [], 4 * tile
    assert 2 * n == 64, tile
    for parts in halves:
        words = joined(e.b, [e.bitcast(part, "i32x16") for part in parts])
        fours += [e.bitcast(e.part(words, tile * g, tile), f"i8x{n}") for g in range(4)]
    high = e.const(f"i8x{n}", -128)

    def total_of(first: int, pairs: tuple[int, ...]) -> Any:
        sides = []
        for k in range(first, first + 4, 2):
            x1, x2 = fours[k], fours[k + 1]
            sides += [(e.b.xor(x1, high), x2)] if k in pairs else [(high, x1), (high, x2)]
        sides += [(high, e.zero(f"i8x{n}"))] * (len(sides) % 2)
        total = e.zero("i32x16")
        for (high1, low1), (high2, low2) in zip(sides[::2], sides[1::2], strict=True):
            total = e.dot_us(total, joined(e.b, [high1, high2]), joined(e.b, [low1, low2]))
        return e.b.sub(e.zero(f"i32x{tile}"), e.b.add(e.part(total, 0, tile), e.part(total, tile, tile)))

    of_32, of_16 = ([total_of(first, PAIRS[sub]) for first in (0, 4)] for sub in (32, 16))
    return [e.b.add(*of_32), *of_16]


def words_apart(e: Emit, words: list[Any], sums: list[Any]) -> list[Any]:
    """``words`` as of ``words_of``, of 32 columns of which four stand apart (``activation_apart``); what these have
    above, added up over each half, is ``sums``: it is multiplied by codes that are 128 higher than they say."""
    above = [e.shl(v, HIGH_BITS + 7) for v in (e.b.add(*sums), *sums)]
    return [e.b.sub(word, v) for word, v in zip(words, above, strict=True)]


def step(
    e: Emit, fam: Any, p: Any, base: Any, meta: Any, tokens: int, pitch: int, high: Any
) -> tuple[list[Any], Any]:  # fmt: skip
    """Dot products of the unit at ``p`` by token, <16 x float>, and their factor; where sub-blocks have 16 columns
    their sum times the factors, and None. ``high``: see ``unpacked._add``."""
    numbers, each = families.numbers_at(fam, e.machine.name), families.paired_form(fam).sub
    upper = _upper(e, each, p, high, tokens, pitch) if high is not None else []

    def scaled(s: int) -> tuple[list[Any], Any]:
        of_rows, word = e.load(p, numbers + 64 * s, "i32x16"), PAIRED + (1 + s if each == 16 else 0)
        acc = [e.b.add(of_rows, e.splat_load(meta, (word * pitch + t) * 4, "i32")) for t in range(tokens)]
        if upper:
            acc = [e.b.add(*both) for both in zip(acc, upper[s], strict=True)]
        for fours in PASSES[each]:
            if 4 * fours[0] // each != s:
                continue
            codes = [[e.load(p, 64 * (k + i), "i8x64") for i in range(2)] for k in fours]
            for t in range(tokens):
                for k, (y1, y2) in zip(fours, codes, strict=True):
                    x1, x2 = (e.bytes4(base, ((k + i) * pitch + t) * 4) for i in range(2))
                    if k in PAIRS[each]:
                        acc[t] = e.dot_us(acc[t], e.b.add(x1, y2), e.b.add(x2, y1))
                    else:
                        acc[t] = e.dot_us(e.dot_us(acc[t], y1, x1), y2, x2)
                (acc[t],) = e.held([acc[t]])  # else LLVM orders them, which is 2 to 4 % slower
        scale = e.load(p, UNIT_CODES + 64 * s, "f32x16")
        return [e.i_to_f32(v) for v in acc], scale if high is None else e.b.fneg(scale)

    values, factor = scaled(0)
    if each == 32:
        return values, factor
    values = [e.b.fmul(v, factor) for v in values]
    more, factor = scaled(1)
    return [e.fma(v, factor, before) for v, before in zip(more, values, strict=True)], None


def _upper(e: Emit, sub: int, p: Any, high: Any, tokens: int, pitch: int) -> list[list[Any]]:
    """What stands apart adds to the products of each sub-block, by token, <16 x i32>: ``activation_apart`` left it at
    ``high``. Codes of its four columns are made to stand 128 higher if they do not yet."""
    group = group_of(e, high, pitch)
    firsts = sum(1 << k for k in PAIRS[sub])
    raised = e.b.shl(e.b.and_(e.b.lshr(e.i64(firsts), group), e.i64(1)), e.i64(7))
    raised = e.splat(e.b.trunc(raised, e.zero("i8x64").type.element), 64)
    codes = e.b.xor(e.load(e.at(p, group, 64), 0, "i8x64"), raised)
    return apart(e, sub, group, codes, high, tokens, e.dot_us)
