"""MXFP4: ``2**(e - 128) * value`` with a whole number from -12 to 12 looked up by a four-bit code."""
from .families import Family
from .q4_0 import nibbles

# twice the E2M1 numbers, plus 12: unsigned bytes, which every machine multiplies fastest
ABOVE = 12
CODES = tuple(ABOVE + v for v in (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12))


class MXFP4(Family):
    max_code = 2 * ABOVE
    n_bytes = 17
    zero = float(ABOVE)

    def prepare(self, e, p):
        i32 = e.zero("i32x16").type
        exponent = e.b.zext(e.load(p, 0, "i8x16"), i32)
        # the two smallest scales, 2**-128 and 2**-127, are denormal
        normal = e.shl(e.b.sub(exponent, e.const("i32x16", 1)), 23)
        small = e.b.add(e.const("i32x16", 0x200000), e.shl(exponent, 21))
        is_small = e.b.icmp_unsigned("<", exponent, e.const("i32x16", 2))
        return e.bitcast(e.b.select(is_small, small, normal), "f32x16")

    def parts(self, e, p, scale, s):
        return scale, None

    def codes(self, e, p, s, k):
        return e.lookup16(CODES, nibbles(e, p, 1, k))


FAMILY = MXFP4()
