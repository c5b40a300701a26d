"""Q6_K: 16 sub-blocks of 16; ``d * sc * (code - 32)`` with signed 8-bit scales."""
from .families import Family


class Q6_K(Family):
    max_code = 63
    block, n_bytes, sub = 256, 210, 16

    def prepare(self, e, p):
        return e.half_load(p, 16 * 208)

    def scale(self, e, p, d, s):
        scale = e.b.fmul(d, e.i_to_f32(e.load(p, 16 * (192 + s), "i8x16")))
        return scale, e.b.fmul(scale, e.const("f32x16", -32.0))

    def codes(self, e, p, s, k):
        half, quarter, k = s // 8, s % 8 // 2, 4 * (s % 2) + k    # quarters of 32 weights inside each half of 128
        low = e.load(p, 16 * (64 * half + 32 * (quarter % 2)) + k * 64, "i8x64")
        high = e.load(p, 16 * (128 + 32 * half) + k * 64, "i8x64")
        high = e.bytes_shl(e.and_(high, 3), 4) if quarter == 0 else \
            e.bytes_shl(e.and_(high, 12), 2) if quarter == 1 else e.bytes_lshr(high, 2 * quarter - 4, 0x30)
        return e.b.or_(e.bytes_lshr(low, 4 * (quarter // 2), 15), high)


FAMILY = Q6_K()
