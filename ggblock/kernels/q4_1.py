"""Q4_1: ``d * code + m``."""
from .families import Family
from .q4_0 import nibbles


class Q4_1(Family):
    max_code = 15
    has_offsets = True
    n_bytes = 20

    def parts(self, e, p, d, s):
        return d, e.half_load(p, 32)

    def codes(self, e, p, s, k):
        return nibbles(e, p, 4, k)


FAMILY = Q4_1()
