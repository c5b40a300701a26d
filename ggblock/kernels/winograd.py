"""Units against many tokens with half the dot products: sums of codes and activations are multiplied, not these alone.

Winograd's inner product (S. Winograd, A New Algorithm for Inner Product, 1968). Of two columns, x the activations and y
the codes::

    x1 y1 + x2 y2 = (x1 + y2) (x2 + y1) - x1 x2 - y1 y2

What is taken off depends on the token alone and on the row alone, and is known before they meet. So 16 rows of eight
columns take one dot product and two additions of bytes instead of two dot products. That pays where additions have
pipes of their own beside those that multiply: Zen 4 and Zen 5 start two dot products of 256 bits a cycle and four
additions (``simd.host.Host.adds_beside``). On Intel's CPUs both share their pipes.

Both sums have to be bytes. Codes are moved to both sides of zero (``families.middle``), and activations have fewer
levels (``families.levels``): 120 each way instead of 127 beside codes of four bits, 96 beside those of six. The first
sum is an unsigned byte, 128 higher than it says, because ``y2`` is so in units::

    (x1 + y2 + 128) (x2 + y1) = x1 y1 + x2 y2 + [x2 (x1 + 128)] + [y1 (y2 + 128)]

The token's bracket, negative and added up over 32 columns, is among the words of the meta (``fields.META``); the
row's is in the unit, int32 (16,), behind the offsets. Columns are paired by fours: columns 0 to 3 of eight with 4 to 7.

G multiply-adds a second and core of Zen 4, 512 tokens, rows of 2,048 columns, with "1+" and so: Q4_0 180 and 208, Q4_1
165 and 188, Q4_K 167 and 189, Q5_0 183 and 210, Q5_K 162 and 189, Q2_K 151 and 175, MXFP4 179 and 210, TQ1_0 178 and
218, Q1_0 181 and 210.
"""

from __future__ import annotations

from typing import Any

from ..simd.emit import Emit
from ..simd.machines import joined
from . import families
from .block_products import group_of
from .fields import HIGH_BITS, PAIRED
from .shapes import UNIT_CODES


def emit_codes(e: Emit, fam: Any, to: Any, codes: list[Any]) -> Any:
    """The codes of a few columns, unsigned, <64 x i8> for each four of them, at ``to`` in a unit's form; what is added
    to each row's products: <16 x i32>."""
    middle, total = families.middle(fam), e.zero("i32x16")
    for k in range(0, len(codes), 2):
        first = e.b.sub(codes[k], e.const("i8x64", middle))
        second = e.b.add(codes[k + 1], e.const("i8x64", (128 - middle + 128) % 256 - 128))
        e.store(to, 64 * k, first)
        e.store(to, 64 * (k + 1), second)
        total = e.dot_us(total, second, first)
    return e.b.sub(e.zero("i32x16"), total)


def emit_offset(e: Emit, fam: Any, scale: Any, offset: Any) -> Any:
    """The offset of a sub-block whose codes are ``middle`` lower: only families with offsets of their own need one."""
    moved = families.middle(fam) - fam.zero
    return e.fma(scale, e.const("f32x16", float(moved)), offset) if moved else offset


def words_of(e: Emit, parts: list[Any], tile: int) -> Any:
    """What is added to the products of 16 columns by token, <tile x i32>, from what ``activation_tiles.turned``
    returned: -1 * sum of ``x2 (x1 + 128)``."""
    words = joined(e.b, [e.bitcast(part, "i32x16") for part in parts])
    fours = [e.bitcast(e.part(words, tile * g, tile), f"i8x{4 * tile}") for g in range(4)]
    first, second = (joined(e.b, fours[i::2]) for i in range(2))
    assert first.type.count == 64, tile
    total = e.dot_us(e.zero("i32x16"), e.b.xor(first, e.const("i8x64", -128)), second)
    return e.b.sub(e.zero(f"i32x{tile}"), e.b.add(e.part(total, 0, tile), e.part(total, tile, tile)))


def words_apart(e: Emit, words: Any, sums: Any) -> Any:
    """``words`` of columns of which four stand apart (``activation_apart``), whose upper halves add up to ``sums``:
    these are multiplied by codes that are 128 higher than they say."""
    return e.b.sub(words, e.shl(sums, HIGH_BITS + 7))


def step(
    e: Emit, fam: Any, p: Any, base: Any, meta: Any, tokens: int, pitch: int, high: Any
) -> tuple[list[Any], Any]:  # fmt: skip
    """Dot products of the unit at ``p`` by token, <16 x float>, and their factor. ``high``: see ``unpacked._add``."""
    of_rows = e.load(p, families.numbers_at(fam, e.machine.name), "i32x16")
    acc = [e.b.add(of_rows, e.splat_load(meta, (PAIRED * pitch + t) * 4, "i32")) for t in range(tokens)]
    if high is not None:
        acc = [e.b.add(*both) for both in zip(acc, _upper(e, p, high, tokens, pitch), strict=True)]
    for k in range(0, 8, 2):
        y1, y2 = (e.load(p, 64 * (k + i), "i8x64") for i in range(2))
        for t in range(tokens):
            x1, x2 = (e.bytes4(base, ((k + i) * pitch + t) * 4) for i in range(2))
            acc[t] = e.dot_us(acc[t], e.b.add(x1, y2), e.b.add(x2, y1))
    scale = e.load(p, UNIT_CODES, "f32x16")
    return [e.i_to_f32(v) for v in acc], scale if high is None else e.b.fneg(scale)


def _upper(e: Emit, p: Any, high: Any, tokens: int, pitch: int) -> list[Any]:
    """What stands apart adds to the products, by token, <16 x i32>: ``activation_apart`` left it at ``high``. Codes of
    its four columns are made to stand 128 higher if they do not yet."""
    group = group_of(e, high, pitch)
    raised = e.b.shl(e.b.and_(e.b.xor(group, e.i64(1)), e.i64(1)), e.i64(7))
    raised = e.splat(e.b.trunc(raised, e.zero("i8x64").type.element), 64)
    codes = e.b.xor(e.load(e.at(p, group, 64), 0, "i8x64"), raised)
    zero = e.zero("i32x16")
    return [e.shl(e.dot_us(zero, codes, e.bytes4(high, 4 * t)), HIGH_BITS) for t in range(tokens)]
