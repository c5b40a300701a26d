"""Rows of IQ1, IQ2 and IQ3 as rows of ``levels``, when a file is loaded. Apart from the families, which need no Numba.

What a block says is told to the bit by ``spec/blocks``. Of each eight columns it has the patterns, one or two, and a
byte or less that says which are negative (of IQ1: which way all are shifted).
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba.core import types
from numba.core.extending import intrinsic

from ..blocks import by_name
from ..simd.emit import Emit, llvm_type
from ..simd.vec import MACHINE
from .args import arg
from .families import family
from .levels import SIGNS

EIGHTS = 32     # of columns in a block
LOW, THIRD = 0x0303030303030303, 0x0404040404040404    # bits of numbers of three


class Source:
    """The fields of one block at ``p``, all numbers as ``i64``."""

    def __init__(self, e: Emit, p: Any, name: str) -> None:
        self.e, self.p, self.name, self.kind = e, p, name, by_name(name)

    def number(self, byte: int, kind: str, bit: int = 0, bits: int = 64) -> Any:
        """Bits ``bit`` and on of the whole number at ``byte``."""
        e, value = self.e, self.e.load(self.p, byte, kind)
        value = e.b.zext(value, llvm_type("i64")) if kind != "i64" else value
        value = e.b.lshr(value, e.i64(bit)) if bit else value
        return e.b.and_(value, e.i64((1 << bits) - 1)) if bits < 64 else value

    def field(self, name: str, i: int) -> Any:
        """Number ``i`` of a field of whole numbers."""
        field = self.kind.field(name)
        if field.kind == "uint":
            byte, bit = field.place(i)
            return self.number(byte, "i8", bit, field.bits)
        return self.number(field.offset + i * field.bits // 8, f"i{field.bits}")

    def joined(self, low: Any, high: Any, bit: int) -> Any:
        return self.e.b.or_(low, self.e.b.shl(high, self.e.i64(bit)))

    def eight(self, j: int) -> tuple[list[Any], Any]:
        """Of columns ``8 j .. 8 j + 7``: the patterns, and what says their signs."""
        field, joined = self.field, self.joined
        if self.name == "iq3_s":
            return [joined(field("qs", i), field("qh", i), 8) for i in (2 * j, 2 * j + 1)], self.signs(j)
        if self.name == "iq3_xxs":
            word = self.kind.field("signs").offset + j // 4 * 4
            return [field("qs", 2 * j), field("qs", 2 * j + 1)], self.number(word, "i32", 7 * (j % 4), 7)
        if self.name == "iq2_xxs":
            pair = self.kind.field("qs").offset + j // 4 * 8
            return [self.number(pair + j % 4, "i8")], self.number(pair + 4, "i32", 7 * (j % 4), 7)
        if self.name == "iq2_xs":
            word = self.kind.field("qs").offset + 2 * j
            return [self.number(word, "i16", 0, 9)], self.number(word, "i16", 9)
        if self.name == "iq2_s":
            return [joined(field("qs", j), field("qh", j), 8)], self.signs(j)
        if self.name == "iq1_s":
            word = self.kind.field("qh").offset + j // 4 * 2
            high = self.number(word, "i16", 3 * (j % 4), 3)
            return [joined(field("qs", j), high, 8)], self.number(word, "i16", 15)
        byte, bit = self.kind.field("qh").place(j)
        return [joined(field("qs", j), self.number(byte, "i8", bit, 3), 8)], self.number(byte, "i8", bit + 3, 1)

    def signs(self, j: int) -> Any:
        return self.number(self.kind.field("signs").offset + j, "i8")

    def scale(self, s: int) -> Any:
        """The four bits of sub-block ``s``."""
        if self.name == "iq3_xxs":
            return self.number(self.kind.field("signs").offset + 4 * s, "i32", 28)
        if self.name == "iq2_xxs":
            return self.number(self.kind.field("qs").offset + 8 * s + 4, "i32", 28)
        if self.name == "iq1_s":
            return self.number(self.kind.field("qh").offset + 2 * s, "i16", 12, 3)
        if self.name == "iq1_m":
            return self.number(self.kind.field("scales").offset + s // 4 * 2, "i16", 3 * (s % 4), 3)
        return self.field("scales", s)

    def half(self) -> Any:
        if self.name != "iq1_m":
            return self.e.load(self.p, 0, "i16")
        value, at = self.e.i64(0), self.kind.field("scales").offset
        for i in range(4):
            value = self.joined(value, self.number(at + 2 * i, "i16", 12), 4 * i)
        return self.e.b.trunc(value, llvm_type("i16"))


@intrinsic(prefer_literal=True)
def rewrite(typingctx, name, source, out, n, tables):
    """``n`` blocks of a type from ``source`` as rows of the blocks of ``levels`` to ``out``."""
    of = name.literal_value
    fam, size = family(of), by_name(of).block_bytes

    def codegen(c, builder, s, a):
        e = Emit(builder, MACHINE)

        def block(i: Any, carried: Any) -> Any:
            p, to = carried
            given = Source(e, p, of)
            e.store(to, 0, given.half())
            for byte in range(fam.first - 2):
                two = given.joined(given.scale(2 * byte), given.scale(2 * byte + 1), 4)
                e.store(to, 2 + byte, e.b.trunc(two, llvm_type("i8")))
            for first in range(0, EIGHTS, 4):
                eights = [_numbers(e, a[4], *given.eight(j)) for j in range(first, first + 4)]
                _write(e, fam.bits, eights, e.at(to, fam.first + first * fam.bits))
            return [e.at(p, size), e.at(to, fam.n_bytes)]

        e.loop(e.i64(0), a[3], 1, a[1:3], block)
        return c.get_dummy_value()

    return types.void(name, *[types.int64] * 4), codegen


def _numbers(e: Emit, tables: Any, patterns: Sequence[Any], signs: Any) -> Any:
    """The numbers of eight columns, a byte each."""
    b, width = e.b, 8 // len(patterns)
    value = e.load(e.at(tables, signs, 8), 0, "i64")
    for i, pattern in enumerate(patterns):
        of = e.load(e.at(tables, pattern, width), 8 * SIGNS, f"i{8 * width}")
        of = b.shl(b.zext(of, value.type), e.i64(32 * i)) if width == 4 else of
        value = b.or_(value, of)
    return value


def _write(e: Emit, bits: int, eights: list[Any], to: Any) -> None:
    """The numbers of 32 columns, as the page of ``levels`` has them."""
    b = e.b

    def together(values: list[Any], step: int) -> Any:
        total = values[0]
        for i, value in enumerate(values[1:], 1):
            total = b.or_(total, b.shl(value, e.i64(i * step)))
        return total

    if bits == 4:
        e.store(to, 0, together([eights[0], eights[2]], 4))
        e.store(to, 8, together([eights[1], eights[3]], 4))
        return
    last = eights[3]
    low, third = b.shl(b.and_(last, e.i64(LOW)), e.i64(6)), b.shl(b.and_(last, e.i64(THIRD)), e.i64(4))
    third = b.or_(third, b.lshr(third, e.i64(31)))
    rest = [low, third, b.lshr(low, e.i64(32))]  # in their lower half
    for i, (eight, bits_of_last) in enumerate(zip(eights, rest)):
        both = b.or_(eight, b.lshr(eight, e.i64(29)))
        e.store(to, 4 * i, b.trunc(b.or_(both, bits_of_last), llvm_type("i32")))


def make_levels(name: str) -> Any:
    """Columns: blocks, how many, where they go as blocks of ``levels``, row by row, ``levels.tables``. Split by
    blocks."""
    size, n_bytes = by_name(name).block_bytes, int(family(name).n_bytes)

    def levels(op, thread, n_threads):
        first, end = arg(op, 1) * thread // n_threads, arg(op, 1) * (thread + 1) // n_threads
        rewrite(name, arg(op, 0) + first * size, arg(op, 2) + first * n_bytes, end - first, arg(op, 3))

    return levels
