"""Q1_0: ``d * (2 * bit - 1)``, 128 weights, lowest bit first.

Codes here are 0 and 16: bits are spread over bytes, where the smaller of a bit from the fifth on and 16 is 16 or 0. To
make it 1 takes a comparison, which is as expensive as a dot product. One token's activations are put in an order in
which the same bit of a row's four bytes is taken by a shift and a mask.
"""
from ..simd.emit import PLACE_ROWS
from .families import RaggedFamily


class Q1_0(RaggedFamily):
    name = "q1_0"
    max_code = 16
    zero = 8.0
    tables = "1t"
    place_rows = PLACE_ROWS  # the order of rows in ``places_of_bytes``
    weave = tuple(8 * i + j for j in range(8) for i in range(4))

    def prepare(self, e, p):
        return e.b.fmul(e.half_load(p, 0), e.const("f32x16", 0.125))

    def whole(self, e, eighth):
        return eighth, None

    def parts(self, e, p, eighth, s):
        return None, None

    def signs(self, e, p, s):
        return e.load(p, 16 * (2 + 4 * s), "i8x64")

    def places_of_bytes(self, e, p, s):
        """The bytes of ``signs`` place by place, those of 16 rows together."""
        return e.places_of_bytes(self.signs(e, p, s))

    def codes(self, e, p, s, k):
        if self.is_tail:
            return e.bytes_shl(self.planes(e, p, "qs", 32 * s + 4 * k), 4)
        return sixteens(e, self.signs(e, p, s), k)

    def woven(self, e, p, s):
        e.order()
        word = self.signs(e, p, s)
        for k in range(8):
            yield e.bytes_lshr(word, k - 4, 16) if k > 4 else e.bytes_shl(e.and_(word, 1 << k), 4 - k), 0


def sixteens(e, word, k):
    """16 where bit ``4 k + i`` of a row's word (four bytes of <64 x i8>) is set, in its byte ``i``, else 0."""
    if k % 2 == 0:
        word = e.bytes_shl(word, 4)  # what leaves its byte is masked off
    byte = e.shuffle(word, [4 * (i // 4) + k // 2 for i in range(64)])
    bit = e.b.and_(byte, e.bytes([16 << i % 4 for i in range(64)]))
    return e.call("umin", bit, e.const("i8x64", 16))


FAMILY = Q1_0()
