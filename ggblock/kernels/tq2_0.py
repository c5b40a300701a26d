"""TQ2_0: ``d * (code - 1)`` with two-bit codes and one scale for 256 weights."""
from .families import Family


class TQ2_0(Family):
    block, n_bytes = 256, 66

    def prepare(self, e, p):
        d = e.half_load(p, 16 * 64)
        return d, e.b.fneg(d)

    def scale(self, e, p, shared, s):
        return shared

    def codes(self, e, p, s, k):
        return e.bytes_lshr(e.load(p, 16 * 32 * (s // 4) + 64 * k, "i8x64"), 2 * (s % 4), 3)


FAMILY = TQ2_0()
