"""NVFP4: 4 sub-blocks of 16; ``scale / 2 * value`` with E4M3 scales and the values of MXFP4."""
from .families import RaggedFamily
from .mxfp4 import ABOVE, CODES


class NVFP4(RaggedFamily):
    name = "nvfp4"
    max_code = max(CODES)
    sub = 16
    zero = float(ABOVE)

    def prepare(self, e, p):
        return None

    def parts(self, e, p, shared, s):
        byte = e.b.zext(e.load(p, self.at("d", s), "i8x16"), e.zero("i32x16").type)
        # exponent and mantissa as those of a float32, which is then 2**120 too small, denormals included
        scale = e.b.fmul(e.bitcast(e.shl(e.and_(byte, 127), 20), "f32x16"), e.const("f32x16", 2.0 ** 119))
        nan = e.b.icmp_unsigned("==", byte, e.const("i32x16", 127))
        return e.b.select(nan, e.zero("f32x16"), scale), None

    def codes(self, e, p, s, k):
        return e.lookup16(CODES, self.planes(e, p, "qs", 16 * s + 4 * k))


FAMILY = NVFP4()
