"""Q8_0: ``d * code`` with signed bytes."""
from .families import Family


class Q8_0(Family):
    n_bytes = 34
    signed = True

    def parts(self, e, p, d, s):
        return d, None

    def codes(self, e, p, s, k):
        return e.load(p, 32 + 64 * k, "i8x64")


FAMILY = Q8_0()
