"""F16: panel block of 8 columns by 16 rows, one IEEE half each."""
from .families import FloatFamily


class F16(FloatFamily):
    n_bytes = 16
    in_words = True

    def weights(self, e, p, k):
        return e.half_load(p, k * 32)


FAMILY = F16()
