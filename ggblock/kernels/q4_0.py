"""Q4_0: ``d * (code - 8)``; low nibbles hold weights 0-15, high nibbles 16-31."""
from .families import Family


def nibbles(e, p, first, k):
    """Codes ``4 k .. 4 k + 3`` of 32 weights kept as 16 bytes from block byte ``first`` on."""
    raw = e.load(p, 16 * first + 64 * (k % 4), "i8x64")
    return e.bytes_lshr(raw, 4 * (k // 4), 15)


class Q4_0(Family):
    max_code = 15
    n_bytes = 18
    zero = 8.0

    def parts(self, e, p, d, s):
        return d, None

    def codes(self, e, p, s, k):
        return nibbles(e, p, 2, k)


FAMILY = Q4_0()
