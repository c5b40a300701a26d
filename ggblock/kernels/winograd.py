"""Units against many tokens with fewer dot products: sums of codes and activations are multiplied, not these alone.

Winograd's inner product (S. Winograd, A New Algorithm for Inner Product, 1968). Of two columns, x the activations and y
the codes::

    x1 y1 + x2 y2 = (x1 + y2) (x2 + y1) - x1 x2 - y1 y2

What is taken off depends on the token alone and on the row alone, and is known before they meet. So 16 rows of eight
columns take one dot product and two additions of bytes instead of two dot products. That pays where additions have
pipes of their own beside those that multiply: Zen 4 and Zen 5 start two dot products of 256 bits a cycle and four
additions (``simd.host.Host.adds_beside``). On Intel's CPUs both share their pipes. Half of the columns, multiplied so,
keep both kinds of pipes busy: of each 16 the first four are paired with the next four, the last eight are not.

Both sums have to be bytes. Codes are moved to both sides of zero (``families.middle``), and activations have fewer
levels in columns that are paired (``families.levels``): 120 each way instead of 127 beside codes of four bits, 96
beside those of six. The first sum is an unsigned byte, 128 higher than it says, because ``y2`` is so in units, as are
the codes of columns that are not paired::

    (x1 + y2 + 128) (x2 + y1) = x1 y1 + x2 y2 + [x2 (x1 + 128)] + [y1 (y2 + 128)]

The token's bracket, and the others' ``128 x``, negative and added up over 32 columns or 16, are words of the meta
(``fields.META``); the row's is in the unit, int32 (32 / sub, 16), behind the offsets.

G multiply-adds a second and core of Zen 4, 512 tokens, rows of 2,048 columns, with "1+", all columns in pairs and half
of them: Q6_K 165, 175 and 178, Q4_0 180, 208 and 216, Q4_1 165, 194 and 193, Q4_K 167, 195 and 192, Q5_0 183, 209 and
218, Q5_K 162, 195 and 192, Q2_K 151, 175 and 173, MXFP4 179, 212 and 218, TQ1_0 178, 213 and 213, Q1_0 181, 210 and
218.
"""

from __future__ import annotations

from typing import Any

from ..simd.emit import Emit
from ..simd.machines import joined
from . import families
from .block_products import by_sub_block, group_of
from .fields import HIGH_BITS, PAIRED
from .shapes import UNIT_CODES


def emit_codes(e: Emit, fam: Any, to: Any, codes: list[Any]) -> Any:
    """The codes of a sub-block, unsigned, <64 x i8> for each four columns, at ``to`` in a unit's form; what is added to
    each row's products: <16 x i32>."""
    middle, total = families.middle(fam), e.zero("i32x16")
    raised = e.const("i8x64", (128 - middle + 128) % 256 - 128)
    moved = [
        e.b.sub(value, e.const("i8x64", middle)) if _is_first(k) else e.b.add(value, raised)
        for k, value in enumerate(codes)
    ]
    for k, value in enumerate(moved):
        e.store(to, 64 * k, value)
        if _is_first(k):
            total = e.dot_us(total, moved[k + 1], value)
    return e.b.sub(e.zero("i32x16"), total)


def _is_first(k: int) -> bool:
    """Whether the four columns ``k`` of a sub-block are paired with the next four."""
    return k % 4 == 0


def emit_offset(e: Emit, fam: Any, scale: Any, offset: Any) -> Any:
    """The offset of a sub-block whose codes are ``middle`` lower: only families with offsets of their own need one."""
    moved = families.middle(fam) - fam.zero
    return e.fma(scale, e.const("f32x16", float(moved)), offset) if moved else offset


def words_of(e: Emit, parts: list[Any], tile: int) -> Any:
    """What is added to the products of 16 columns by token, <tile x i32>, from what ``activation_tiles.turned``
    returned: -1 * sum of ``x2 (x1 + 128)``, and of ``128 x`` of columns that are not paired."""
    words = joined(e.b, [e.bitcast(part, "i32x16") for part in parts])
    n = 4 * tile
    x1, x2, *others = (e.bitcast(e.part(words, tile * g, tile), f"i8x{n}") for g in range(4))
    assert 2 * n == 64, tile
    high, none = e.const(f"i8x{n}", -128), e.zero(f"i8x{n}")
    total = e.dot_us(e.zero("i32x16"), joined(e.b, [e.b.xor(x1, high), high]), joined(e.b, [x2, others[0]]))
    total = e.dot_us(total, joined(e.b, [high, none]), joined(e.b, [others[1], none]))
    return e.b.sub(e.zero(f"i32x{tile}"), e.b.add(e.part(total, 0, tile), e.part(total, tile, tile)))


def words_apart(e: Emit, words: Any, sums: Any) -> Any:
    """``words`` of columns of which four stand apart (``activation_apart``), whose upper halves add up to ``sums``:
    these are multiplied by codes that are 128 higher than they say."""
    return e.b.sub(words, e.shl(sums, HIGH_BITS + 7))


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
        for k in range(s * each // 4, (s + 1) * each // 4, 2):
            y1, y2 = (e.load(p, 64 * (k + i), "i8x64") for i in range(2))
            for t in range(tokens):
                x1, x2 = (e.bytes4(base, ((k + i) * pitch + t) * 4) for i in range(2))
                if _is_first(k):
                    acc[t] = e.dot_us(acc[t], e.b.add(x1, y2), e.b.add(x2, y1))
                else:
                    acc[t] = e.dot_us(e.dot_us(acc[t], y1, x1), y2, x2)
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
    firsts = sum(1 << k for k in range(8) if _is_first(k))
    raised = e.b.shl(e.b.and_(e.b.lshr(e.i64(firsts), group), e.i64(1)), e.i64(7))
    raised = e.splat(e.b.trunc(raised, e.zero("i8x64").type.element), 64)
    codes = e.b.xor(e.load(e.at(p, group, 64), 0, "i8x64"), raised)
    zero = e.zero("i32x16")
    found = [e.shl(e.dot_us(zero, codes, e.bytes4(high, 4 * t)), HIGH_BITS) for t in range(tokens)]
    return by_sub_block(e, sub, group, found)
