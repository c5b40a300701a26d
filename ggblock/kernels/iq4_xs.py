"""IQ4_XS: 8 sub-blocks of 32; ``d * (sc - 32) * level`` with the levels of IQ4_NL and 6-bit scales."""
from .families import RaggedFamily
from .iq4_nl import Levels


class IQ4_XS(Levels, RaggedFamily):
    name = "iq4_xs"
    max_scale = 32

    def prepare(self, e, p):
        wide = e.zero("i32x16").type
        high = e.load(p, self.at("scales_h"), "i16x16")      # bits 2 s, 2 s + 1: the top of scale s
        return e.half_load(p, self.at("d")), e.b.zext(high, wide)

    def whole(self, e, shared):
        return shared[0], None

    def parts(self, e, p, shared, s):
        high = shared[1]
        low = e.b.zext(e.load(p, self.at("scales_l", s // 2), "i8x16"), high.type)
        low = e.and_(e.lshr(low, 4 * (s % 2)), 15)
        high = e.shl(e.and_(e.lshr(high, 2 * s), 3), 4)
        sc = e.b.sub(e.b.or_(low, high), e.const("i32x16", 32))
        return sc, None

    def index(self, e, p, s, k):
        return self.planes(e, p, "qs", 32 * s + 4 * k)


FAMILY = IQ4_XS()
