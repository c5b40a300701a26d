"""Q8_0 in two parts, as the engine keeps an output matrix (``sieve``): the upper six bits of every code with the
scales, and the lower two bits in a region of their own behind the panels of all rows.

A code plus 128 is ``u = 4 c + l``. A panel block has the 16 scales; of ``c``'s low four bits those of weights ``4 k``
to ``4 k + 3`` and of the four after them in one line; and its high two bits of 16 weights in one line, between the two
lines that go with it. A block of the second region has ``l``, 16 weights a line.
"""

from __future__ import annotations

from typing import Any

from .families import Family

SPREAD = 1.5  # the lower bits add at most so many steps to the middle of what they may add, or take them off


def _nibbles(e: Any, p: Any, k: int) -> tuple[Any, int]:
    """(the line with the low bits of ``c`` of weights ``4 k`` and on, the bit at which they are)."""
    return e.load(p, 32 + 64 * (k // 2 + (k % 4 + 2) // 4 + k // 4), "i8x64"), k % 2 * 4


def _pairs(e: Any, p: Any, k: int) -> tuple[Any, int]:
    """The same of the high bits."""
    return e.load(p, 96 + 192 * (k // 4), "i8x64"), k % 4 * 2


def moved(e: Any, value: Any, at: int, to: int, bits: int) -> Any:
    """``bits`` bits of every byte from bit ``at`` to bit ``to``, the others zero."""
    if at >= to:
        return e.bytes_lshr(value, at - to, ((1 << bits) - 1) << to)
    return e.bytes_shl(e.and_(value, ((1 << bits) - 1) << at), to - at)


class Upper(Family):
    """What is known without the second region: weights whose lower bits are in the middle of what they may be."""

    n_bytes = 26
    max_code = 63
    zero = 32.0
    has_offsets = True
    per_line = 4

    def parts(self, e: Any, p: Any, d: Any, s: int) -> tuple[Any, Any]:
        return e.b.fmul(d, e.const("f32x16", 4.0)), e.b.fmul(d, e.const("f32x16", SPREAD))

    def codes(self, e: Any, p: Any, s: int, k: int) -> Any:
        return e.b.or_(moved(e, *_nibbles(e, p, k), 0, 4), moved(e, *_pairs(e, p, k), 4, 2))


class Lower(Family):
    """What the lower bits add to that or take off it. A place is a pair, of the panel block and of the block of the
    second region, as for ``Parted``."""

    n_bytes = 26
    second = 8
    max_code = 3
    has_offsets = True
    per_line = 4

    def prepare(self, e: Any, p: Any) -> Any:
        return e.half_load(p[0], 0)

    def parts(self, e: Any, p: Any, d: Any, s: int) -> tuple[Any, Any]:
        return d, e.b.fmul(d, e.const("f32x16", -SPREAD))

    def codes(self, e: Any, p: Any, s: int, k: int) -> Any:
        return moved(e, e.load(p[1], 64 * (k // 4), "i8x64"), k % 4 * 2, 0, 2)


class Parted(Family):
    """The whole: exactly Q8_0."""

    n_bytes = 26
    second = 8
    signed = True

    def prepare(self, e: Any, p: Any) -> Any:
        return e.half_load(p[0], 0)

    def parts(self, e: Any, p: Any, d: Any, s: int) -> tuple[Any, Any]:
        return d, None

    def raised_codes(self, e: Any, p: Any, s: int, k: int) -> Any:
        upper = e.b.or_(moved(e, *_nibbles(e, p[0], k), 2, 4), moved(e, *_pairs(e, p[0], k), 6, 2))
        return e.b.or_(upper, LOWER.codes(e, p, s, k))

    def codes(self, e: Any, p: Any, s: int, k: int) -> Any:
        return e.b.xor(self.raised_codes(e, p, s, k), e.const("i8x64", -128))


FAMILY = Parted()
UPPER, LOWER = Upper(), Lower()
