"""Q3_K: 16 sub-blocks of 16; ``d * (sc - 32) * (code - 4)``; the third bit of the codes and the upper two bits of the
scales are stored apart."""
from .families import PlaneFamily


class Q3_K(PlaneFamily):
    name = "q3_k"
    max_code = 7
    sub = 16
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
        # what else is a multiple of a shift then needs the same one for two of the third bits
        return 4 if lift == 0 and s // 2 % 4 == 3 and self.max_code << 4 <= most else lift

    def numbers(self, e, p, j, up):
        return e.b.or_(self.planes(e, p, "qs", j, up), self.planes(e, p, "hmask", j, 2 + up))


FAMILY = Q3_K()
