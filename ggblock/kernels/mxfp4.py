"""MXFP4: ``2**(e - 128) * value`` with a whole number from -12 to 12 looked up by a four-bit code."""
from .families import Family
from .q4_0 import nibbles

# twice the E2M1 numbers, plus 16: unsigned bytes, which every machine multiplies fastest
ABOVE = 16
CODES = tuple(ABOVE + v for v in (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12))


class MXFP4(Family):
    max_code = max(CODES)
    n_bytes = 17
    zero = float(ABOVE)

    def prepare(self, e, p):
        exponent = e.b.zext(e.load(p, 0, "i8x16"), e.zero("i32x16").type)
        # 2**(e - 127) as a float32's bits; that of e = 0 is denormal
        twice = e.call("umax", e.shl(exponent, 23), e.const("i32x16", 1 << 22))
        return e.b.fmul(e.bitcast(twice, "f32x16"), e.const("f32x16", 0.5))

    def parts(self, e, p, scale, s):
        return scale, None

    def codes(self, e, p, s, k):
        return e.lookup16(CODES, nibbles(e, p, 1, k))


FAMILY = MXFP4()
