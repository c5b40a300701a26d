"""Q5_K: Q4_K with a fifth bit; bit ``s`` of ``qh[l]`` belongs to weight ``l`` of sub-block ``s``."""
from .q4_k import Q4_K


class Q5_K(Q4_K):
    max_code = 31
    n_bytes = 176

    def codes(self, e, p, s, k):
        low = e.bytes_lshr(e.load(p, 16 * 48 + (s // 2) * 512 + k * 64, "i8x64"), 4 * (s % 2), 15)
        high = e.load(p, 16 * 16 + k * 64, "i8x64")
        high = e.bytes_lshr(high, s - 4, 16) if s >= 4 else e.and_(e.bytes_shl(e.and_(high, 1 << s), 4 - s), 16)
        return e.b.or_(low, high)


FAMILY = Q5_K()
