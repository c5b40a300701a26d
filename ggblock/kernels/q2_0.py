"""Q2_0: ``d * (code - 1)``, 64 weights, two bits each in plain order.

A byte holds four neighbours, so the same bits of a row's four bytes are every fourth code of 16. One token's
activations are put in that order: a shift and a mask then take four codes of each row, where spreading a byte takes
five instructions.
"""
from .families import RaggedFamily


class Q2_0(RaggedFamily):
    name = "q2_0"
    max_code = 3
    zero = 1.0
    per_line = 4
    weave = tuple(4 * i + j for j in range(4) for i in range(4))

    def whole(self, e, d):
        return d, None

    def parts(self, e, p, d, s):
        return None, None

    def codes(self, e, p, s, k):
        if self.is_tail:
            return self.planes(e, p, "qs", 32 * s + 4 * k)
        # byte 8 s + k of a block holds the four codes; pairs of bits go 6, 12 and 18 bits up into bytes of their own
        byte = e.b.zext(e.load(p, 16 * (2 + 8 * s + k), "i8x16"), e.zero("i32x16").type)
        two = e.b.or_(byte, e.shl(byte, 12))
        return e.bitcast(e.and_(e.b.or_(two, e.shl(two, 6)), 0x03030303), "i8x64")

    def woven_codes(self, e, p, s, k):
        four = e.load(p, 16 * (2 + 8 * s + k // 4 * 4), "i8x64")  # bytes by row, then row by row
        rows = e.shuffle(four, [16 * i + row for row in range(16) for i in range(4)])
        return e.bytes_lshr(rows, 2 * (k % 4), 3)


FAMILY = Q2_0()
