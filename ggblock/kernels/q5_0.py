"""Q5_0: ``d * (code - 16)``; bit ``j`` of a 32-bit word is the fifth bit of weight ``j``."""
from .families import Family
from .q1_0 import sixteens
from .q4_0 import nibbles


def fifth_bits(e, p, first, k):
    """16 where bit ``4 k + i`` of the word at block byte ``first`` is set, in byte ``i`` of every lane."""
    return sixteens(e, e.load(p, 16 * first, "i8x64"), k)


class Q5_0(Family):
    max_code = 31
    n_bytes = 22
    zero = 16.0
    per_line = 8

    def parts(self, e, p, d, s):
        return d, None

    def codes(self, e, p, s, k):
        return e.b.or_(nibbles(e, p, 6, k), fifth_bits(e, p, 2, k))


FAMILY = Q5_0()
