"""F32: panel block of 8 columns by 16 rows, one float32 each."""
from .families import FloatFamily


class F32(FloatFamily):
    n_bytes = 32

    def weights(self, e, p, k):
        return e.load(p, k * 64, "f32x16")


FAMILY = F32()
