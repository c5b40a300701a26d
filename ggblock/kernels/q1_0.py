"""Q1_0: ``d * (2 * bit - 1)``, 128 weights, lowest bit first."""
from .families import RaggedFamily


class Q1_0(RaggedFamily):
    name = "q1_0"
    max_code = 1
    zero = 0.5

    def prepare(self, e, p):
        d = e.half_load(p, 0)
        return e.b.fadd(d, d)

    def parts(self, e, p, twice, s):
        return twice, None

    def codes(self, e, p, s, k):
        if self.is_tail:
            return self.planes(e, p, "qs", 32 * s + 4 * k)
        # the byte that holds bits 4 k .. 4 k + 3 of every row's word, four times; one bit is left in each
        word = e.load(p, 16 * (2 + 4 * s), "i8x64")
        byte = e.shuffle(word, [4 * (i // 4) + k // 2 for i in range(64)])
        bit = e.b.and_(byte, e.bytes([1 << (4 * (k % 2) + i % 4) for i in range(64)]))
        return e.call("umin", bit, e.const("i8x64", 1))


FAMILY = Q1_0()
