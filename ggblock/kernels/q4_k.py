"""Q4_K: 8 sub-blocks of 32; ``d * sc * code - dmin * m`` with 6-bit scales and mins."""
from .families import PlaneFamily


def scales_and_mins(e, p, first):
    """Scales and mins of 8 sub-blocks, 6 bits each in 12 units of a byte from ``first`` of a panel block on: two pairs
    of <64 x i8>, sub-blocks 0-3 and 4-7, 16 rows each.

    Bytes 0-3 hold the scales of sub-blocks 0-3 and 4-7 their mins in the low 6 bits; the top 2 bits belong to
    sub-blocks 4-7, whose low 4 bits are in bytes 8-11 (scale low nibble, min high nibble).
    """
    a, m, h = (e.load(p, first + 64 * i, "i8x64") for i in range(3))
    scales = (e.and_(a, 63), e.b.or_(e.and_(h, 15), e.bytes_lshr(a, 2, 0x30)))
    mins = (e.and_(m, 63), e.b.or_(e.bytes_lshr(h, 4, 15), e.bytes_lshr(m, 2, 0x30)))
    return scales, mins


class Q4_K(PlaneFamily):
    name = "q4_k"
    max_code = 15
    has_offsets = True
    max_scale = 63

    def prepare(self, e, p):
        d, dmin = e.half_load(p, self.at("d")), e.half_load(p, self.at("dmin"))
        return (d, e.b.fneg(dmin)), scales_and_mins(e, p, self.at("scales"))

    def whole(self, e, shared):
        return shared[0]

    def parts(self, e, p, shared, s):
        wide = e.zero("i32x16").type
        return tuple(e.b.zext(e.part(v[s // 4], 16 * (s % 4), 16), wide) for v in shared[1])


FAMILY = Q4_K()
