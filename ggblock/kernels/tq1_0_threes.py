"""TQ1_0 as one token is multiplied by tables (``digit_tables``): the engine makes numbers of three digits of it.

Three weights of -1, 0 and 1 are ``9 a + 3 b + c``, -13 to 13: four bits for how large that is and one for its sign. A
row of 256 weights has its half, then five parts of 48 weights and one of 16, 56 bytes where TQ1_0 has 54.

- Of a part of 48, number ``i`` (0 to 15) is of weights ``i``, ``16 + i`` and ``32 + i``. Two bytes have the signs, the
  first of even ``i`` and the second of odd ones; then byte ``j`` of eight holds numbers ``j`` and, in its upper half,
  ``8 + j``. Bit ``7 - 4 * (j % 4 // 2) - 2 * (j // 4)`` is the sign of number ``j``, the bit below that of ``8 + j``.
- The last part is a byte with numbers 0 and 2 and one with 1 and 3, of weights ``i``, ``4 + i`` and ``8 + i``; a byte
  whose bits from the top on are their signs; and one for the last four weights, two in each half, as ``3 a + b`` of
  0, 1 and 2.

Zero has a sign where ``i`` is odd, so that the half steps by which tables miss it cancel out.
"""
from __future__ import annotations

from ..simd.machines import joined
from .families import Family

PARTS, PART_BYTES = 5, 10
REST = 2 + PARTS * PART_BYTES  # byte at which the last part begins
N_BYTES = REST + 4
OF_TQ1_0 = 54  # bytes of a block

#: Digits of ``3 a + b``, and of the numbers from 0 on: each of -1, 0 and 1 as 0, 1 and 2.
TWOS = [tuple(n // power % 3 for n in range(9)) + (0,) * 7 for power in (3, 1)]
THREES = [tuple((n + 13) // power % 3 for n in range(14)) + (1,) * 2 for power in (9, 3, 1)]


def sign_bit(i: int) -> int:
    """The bit of a byte of signs that number ``i`` of a part has."""
    j = i % 8
    return int(0x80 >> 4 * (j % 4 // 2) + 2 * (j // 4) + i // 8)


class Threes(Family):
    block = 256
    n_bytes = N_BYTES
    max_code = 2
    zero = 1.0
    tables = "1d"

    def whole(self, e, d):
        return d, None

    def parts(self, e, p, d, s):
        return None, None

    def codes(self, e, p, s, k):
        column = 32 * s + 4 * k
        if column < 48 * PARTS:
            part, digit, first = column // 48, column % 48 // 16, column % 16
            signs = e.load(p, 16 * (2 + PART_BYTES * part), "i8x32")
            numbers = e.load(p, 16 * (4 + PART_BYTES * part + first % 8), "i8x64")
            numbers = e.bytes_lshr(numbers, first // 8 * 4, 15)
            signs = joined(e.b, [signs, signs])
            bits = [sign_bit(first + i) for i in range(4)]
        elif column < 252:
            digit, bits = (column - 240) // 4, [0x80, 0x40, 0x20, 0x10]
            both = e.load(p, 16 * REST, "i8x32")
            halves = [e.and_(both, 15), e.and_(e.bitcast(e.lshr(e.bitcast(both, "i16x16"), 4), "i8x32"), 15)]
            numbers, signs = joined(e.b, halves), e.load(p, 16 * (REST + 2), "i8x16")
            signs = joined(e.b, [signs] * 4)
        else:
            both = e.load(p, 16 * (REST + 3), "i8x16")
            upper = e.and_(e.bitcast(e.lshr(e.bitcast(both, "i16x8"), 4), "i8x16"), 15)
            twos = joined(e.b, [e.and_(both, 15)] * 2 + [upper] * 2)
            found = [e.lookup16(table, twos) for table in TWOS]
            by_turns = [i + 64 * (i // 16 % 2) for i in range(64)]
            return e.rows_of_places(e.b.shuffle_vector(*found, e.lanes(by_turns)))
        code = e.lookup16(THREES[digit], numbers)
        bit = e.bytes([bits[i // 16] for i in range(64)])
        is_negative = e.b.icmp_unsigned("==", e.b.and_(signs, bit), bit)
        code = e.b.select(is_negative, e.b.sub(e.const("i8x64", 2), code), code)
        return e.rows_of_places(code)


FAMILY = Threes()
