"""Q2_0: ``d * (code - 1)``, 64 weights, two bits each in plain order."""
from .families import RaggedFamily


class Q2_0(RaggedFamily):
    name = "q2_0"
    max_code = 3
    zero = 1.0

    def parts(self, e, p, d, s):
        return d, None

    def codes(self, e, p, s, k):
        if self.is_tail:
            return self.planes(e, p, "qs", 32 * s + 4 * k)
        # byte 8 s + k of a block holds the four codes; pairs of bits go 6, 12 and 18 bits up into bytes of their own
        byte = e.b.zext(e.load(p, 16 * (2 + 8 * s + k), "i8x16"), e.zero("i32x16").type)
        two = e.b.or_(byte, e.shl(byte, 12))
        return e.bitcast(e.and_(e.b.or_(two, e.shl(two, 6)), 0x03030303), "i8x64")


FAMILY = Q2_0()
