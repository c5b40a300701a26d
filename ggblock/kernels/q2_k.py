"""Q2_K: 16 sub-blocks of 16; ``d * sc * code - dmin * m``, scale and min the nibbles of one byte."""
from .families import Family


def two_bits(e, p, first, s, k):
    """Codes ``4 k .. 4 k + 3`` of sub-block ``s`` (16 weights) of 256 two-bit codes from block byte ``first`` on.

    A half of 128 weights has 32 bytes; its quarters of 32 weights lie two bits above each other.
    """
    raw = e.load(p, 16 * (first + 32 * (s // 8) + 16 * (s % 2)) + 64 * k, "i8x64")
    return e.bytes_lshr(raw, 2 * (s // 2 % 4), 3)


class Q2_K(Family):
    max_code = 3
    block, n_bytes, sub = 256, 84, 16

    def prepare(self, e, p):
        return e.half_load(p, 16 * 80), e.b.fneg(e.half_load(p, 16 * 82))

    def scale(self, e, p, shared, s):
        d, minus_dmin = shared
        both = e.b.zext(e.load(p, 16 * s, "i8x16"), e.zero("i32x16").type)
        return e.b.fmul(d, e.u_to_f32(e.and_(both, 15))), e.b.fmul(minus_dmin, e.u_to_f32(e.lshr(both, 4)))

    def codes(self, e, p, s, k):
        return two_bits(e, p, 16, s, k)


FAMILY = Q2_K()
