"""Q2_K: 16 sub-blocks of 16; ``d * sc * code - dmin * m``, scale and min the nibbles of one byte."""
from .families import Folded, PlaneFamily


class Q2_K(PlaneFamily):
    name = "q2_k"
    max_code = 3
    max_scale = 15
    has_offsets = True
    has_weights = True
    sub = 16
    folded = Folded(max_code=3 * 15)

    def prepare(self, e, p):
        return (e.half_load(p, self.at("d")), e.b.fneg(e.half_load(p, self.at("dmin")))), self.bytes_of(e, p, "scales")

    def whole(self, e, shared):
        return shared[0]

    def parts(self, e, p, shared, s):
        both = e.b.zext(shared[1][s], e.zero("i32x16").type)
        return e.and_(both, 15), e.lshr(both, 4)

    def folded_codes(self, e, p, shared, s):
        scale, _ = self.parts(e, p, shared, s)      # at most 15 times 3: bytes of a word do not reach each other
        codes = [e.bitcast(self.codes(e, p, s, k), "i32x16") for k in range(4)]
        return [e.bitcast(e.b.mul(code, scale), "i8x64") for code in codes]

    def weights(self, e, p, shared):
        return [e.bytes_lshr(e.load(p, self.at("scales", i), "i8x64"), 4, 15) for i in range(0, 16, 4)]


FAMILY = Q2_K()
