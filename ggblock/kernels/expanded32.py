"""What other types without a kernel of their own become when they are loaded: ``scale * code``, a signed byte a weight
and a float32 scale for 32 weights. Made by ``engine.weights``; it is no type of any file."""
from .families import Family


class Expanded(Family):
    signed = True
    n_bytes = 36

    def prepare(self, e, p):
        return None

    def parts(self, e, p, shared, s):
        return e.load(p, 0, "f32x16"), None

    def codes(self, e, p, s, k):
        return e.load(p, 16 * 4 + 64 * k, "i8x64")


FAMILY = Expanded()
