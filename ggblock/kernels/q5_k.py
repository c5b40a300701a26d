"""Q5_K: Q4_K with a fifth bit; bit ``s`` of ``qh[l]`` belongs to weight ``l`` of sub-block ``s``."""
from .families import Family
from .q4_k import scales_and_mins


class Q5_K(Family):
    max_code = 31
    block, n_bytes = 256, 176

    def prepare(self, e, p):
        return (e.half_load(p, 0), e.b.fneg(e.half_load(p, 32)), *scales_and_mins(e, p, 4))

    def scale(self, e, p, shared, s):
        d, minus_dmin, sc, mn = shared
        sc, mn = (e.u_to_f32(e.part(v[s // 4], 16 * (s % 4), 16)) for v in (sc, mn))
        return e.b.fmul(d, sc), e.b.fmul(minus_dmin, mn)

    def codes(self, e, p, s, k):
        low = e.bytes_lshr(e.load(p, 16 * 48 + (s // 2) * 512 + k * 64, "i8x64"), 4 * (s % 2), 15)
        high = e.load(p, 16 * 16 + k * 64, "i8x64")
        high = e.bytes_lshr(high, s - 4, 16) if s >= 4 else e.and_(e.bytes_shl(e.and_(high, 1 << s), 4 - s), 16)
        return e.b.or_(low, high)


FAMILY = Q5_K()
