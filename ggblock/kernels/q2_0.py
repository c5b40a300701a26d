"""Q2_0: ``d * (code - 1)``, 64 weights, two bits each in plain order.

A byte holds four neighbours, so the same bits of a row's four bytes are every fourth code of 16. One token's
activations are put in that order: a mask and half a shift then take four codes of each row, where spreading a byte
takes five instructions. GB/s of one core of Zen 4, weights in L2: AVX2 12.6 while LLVM brought a row's bytes together,
17.6 now; AVX-512 26.5 and 28.9.
"""
from .families import RaggedFamily


class Q2_0(RaggedFamily):
    name = "q2_0"
    max_code = 3
    zero = 1.0
    weave = tuple(4 * i + j for j in range(4) for i in (0, 2, 1, 3))  # as ``rows_of_bytes`` has them

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

    def woven(self, e, p, s):
        for first in range(8 * s, 8 * s + 8, 4):
            e.order()
            rows = e.rows_of_bytes(e.load(p, 16 * (2 + first), "i8x64"))
            for j in range(4):
                yield e.bytes_lshr(rows, j // 2 * 4, 3 << j % 2 * 2), j % 2 * 2


FAMILY = Q2_0()
