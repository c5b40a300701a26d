"""IQ4_XS: 8 sub-blocks of 32; ``d * (sc - 32) * level`` with the levels of IQ4_NL and 6-bit scales."""
from .families import Family
from .iq4_nl import LEVELS
from .q4_0 import nibbles


class IQ4_XS(Family):
    block, n_bytes = 256, 136
    signed = True

    def prepare(self, e, p):
        wide = e.zero("i32x16").type
        return e.half_load(p, 0), e.b.zext(e.load(p, 32, "i16x16"), wide)      # bits 2 s, 2 s + 1: the top of scale s

    def scale(self, e, p, shared, s):
        d, high = shared
        low = e.b.zext(e.load(p, 16 * (4 + s // 2), "i8x16"), high.type)
        low = e.and_(e.lshr(low, 4 * (s % 2)), 15)
        high = e.shl(e.and_(e.lshr(high, 2 * s), 3), 4)
        sc = e.b.sub(e.b.or_(low, high), e.const("i32x16", 32))
        return e.b.fmul(d, e.i_to_f32(sc)), None

    def codes(self, e, p, s, k):
        return e.lookup16(LEVELS, nibbles(e, p, 8 + 16 * s, k))


FAMILY = IQ4_XS()
