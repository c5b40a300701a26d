"""TQ2_0: ``d * (code - 1)`` with two-bit codes and one scale for 256 weights."""
from .families import PlaneFamily


class TQ2_0(PlaneFamily):
    name = "tq2_0"
    max_code = 3
    zero = 1.0

    def prepare(self, e, p):
        return e.half_load(p, self.at("d"))

    def whole(self, e, d):
        return d, None

    def parts(self, e, p, d, s):
        return None, None


FAMILY = TQ2_0()
