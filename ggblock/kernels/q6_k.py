"""Q6_K: 16 sub-blocks of 16; ``d * sc * (code - 32)`` with signed 8-bit scales."""
from .families import RaggedFamily


class Q6_K(RaggedFamily):
    name = "q6_k"
    max_code = 63
    sub = 16
    max_scale = 128
    zero = 32.0

    def prepare(self, e, p):
        return e.half_load(p, self.at("d")), self.bytes_of(e, p, "scales")

    def whole(self, e, shared):
        return shared[0], None

    def parts(self, e, p, shared, s):
        return e.b.sext(shared[1][s], e.zero("i32x16").type), None

    def codes(self, e, p, s, k):
        j = 16 * s + 4 * k
        return e.b.or_(self.planes(e, p, "ql", j), self.planes(e, p, "qh", j, 4))


FAMILY = Q6_K()
