"""Q5_1: ``d * code + m`` with five bits."""
from .families import Family
from .q4_0 import nibbles
from .q5_0 import fifth_bits


class Q5_1(Family):
    max_code = 31
    has_offsets = True
    n_bytes = 24
    per_line = 8

    def parts(self, e, p, d, s):
        return d, e.half_load(p, 32)

    def codes(self, e, p, s, k):
        return e.b.or_(nibbles(e, p, 8, k), fifth_bits(e, p, 4, k))


FAMILY = Q5_1()
