"""Q3_K: 16 sub-blocks of 16; ``d * (sc - 32) * (code - 4)``; the third bit of the codes and the upper two bits of the
scales are stored apart."""
from .families import Folded, PlaneFamily


class Q3_K(PlaneFamily):
    name = "q3_k"
    max_code = 7
    sub = 16
    folded = Folded(max_code=128, signed=True)      # -4 times -32; its negative fits a byte, so all are negative
    max_scale = 32
    has_weights = True
    zero = 4.0

    def prepare(self, e, p):
        # four scales of 16 rows each; low nibbles: scales 0-3 and 4-7, then 8-11 and 12-15 above them
        low = [e.load(p, self.at("scales_l", 4 * i), "i8x64") for i in range(2)]
        top = e.load(p, self.at("scales_h"), "i8x64")
        high = (e.bytes_shl(e.and_(top, 3), 4), e.bytes_shl(e.and_(top, 12), 2), e.and_(top, 0x30),
                e.bytes_lshr(top, 2, 0x30))
        scales = [e.b.or_(e.bytes_lshr(low[i % 2], 4 * (i // 2), 15), high[i]) for i in range(4)]
        return e.half_load(p, self.at("d")), scales, [e.b.sub(sc, e.const("i8x64", 32)) for sc in scales]

    def whole(self, e, shared):
        return shared[0], None

    def parts(self, e, p, shared, s):
        return e.b.sext(e.part(shared[2][s // 4], 16 * (s % 4), 16), e.zero("i32x16").type), None

    def weights(self, e, p, shared):
        return shared[1]

    def lift(self, s, most):
        lift = super().lift(s, most)
        # low bits that need a shift anyway go four bits up: third bits then need fewer different shifts
        return 4 if lift == 0 and s // 2 % 4 == 3 and self.max_code << 4 <= most else lift

    def folded_codes(self, e, p, shared, s):
        # (4 - code) * t + 128, t = sc - 32: -t times the low two bits and 128 from a table, 4 t where no third bit is
        b, ones = e.b, e.const("i32x16", 0x01010101)
        t = b.mul(e.b.zext(e.part(shared[2][s // 4], 16 * (s % 4), 16), ones.type), ones)
        t, four = e.bitcast(t, "i8x64"), e.bytes_shl(e.and_(e.bitcast(t, "i8x64"), 63), 2)
        minus = b.sub(e.zero("i8x64"), t)
        times = b.add(b.and_(minus, e.bytes([0, -1] * 32)), b.and_(b.add(minus, minus), e.bytes([0, 0, -1, -1] * 16)))
        table, row = b.xor(times, e.const("i8x64", -128)), e.bytes([4 * (i // 4 % 4) for i in range(64)])
        out = []
        for k in range(4):
            j = 16 * s + 4 * k
            low = e.lookup_rows(table, b.or_(self.planes(e, p, "qs", j), row))
            third = self.planes(e, p, "hmask", j)
            without = b.icmp_unsigned("==", third, e.zero("i8x64"))
            out.append(b.add(low, b.select(without, four, e.zero("i8x64"))))
        return out

    def numbers(self, e, p, j, up):
        return e.b.or_(self.planes(e, p, "qs", j, up), self.planes(e, p, "hmask", j, 2 + up))


FAMILY = Q3_K()
