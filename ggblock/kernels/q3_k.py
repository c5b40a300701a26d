"""Q3_K: 16 sub-blocks of 16; ``d * (sc - 32) * (code - 4)``; the third bit of the codes and the upper two bits of the
scales are stored apart."""
from .families import PlaneFamily


class Q3_K(PlaneFamily):
    name = "q3_k"
    max_code = 7
    sub = 16
    zero = 4.0

    def prepare(self, e, p):
        # four scales of 16 rows each; low nibbles: scales 0-3 and 4-7, then 8-11 and 12-15 above them
        low = [e.load(p, self.at("scales_l", 4 * i), "i8x64") for i in range(2)]
        top = e.load(p, self.at("scales_h"), "i8x64")
        high = (e.bytes_shl(e.and_(top, 3), 4), e.bytes_shl(e.and_(top, 12), 2), e.and_(top, 0x30),
                e.bytes_lshr(top, 2, 0x30))
        scales = [e.b.or_(e.bytes_lshr(low[i % 2], 4 * (i // 2), 15), high[i]) for i in range(4)]
        return e.half_load(p, self.at("d")), [e.b.sub(sc, e.const("i8x64", 32)) for sc in scales]

    def whole(self, e, shared):
        return shared[0], None

    def parts(self, e, p, shared, s):
        return e.i_to_f32(e.part(shared[1][s // 4], 16 * (s % 4), 16)), None

    def power(self, s):
        return min(super().power(s), 4)     # seven times 16 is the most that a byte holds

    def numbers(self, e, p, j, up):
        return e.b.or_(self.planes(e, p, "qs", j, up), self.planes(e, p, "hmask", j, 2 + up))


FAMILY = Q3_K()
