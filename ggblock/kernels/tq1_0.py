"""TQ1_0: ``d * (digit - 1)`` with five base-3 digits a byte and one scale for 256 weights.

Digit ``n`` of a byte is what overflows it when ``byte * 3**n mod 256`` is multiplied by 3: 0, 1 or 2. That is one for
each of the two thresholds 256 / 3 and 512 / 3 that the byte reaches, so no multiplication is needed.
"""
from .families import RaggedFamily


def digit(e, byte, n):
    """Digit ``n`` of 64 bytes."""
    for _ in range(n):
        byte = e.b.add(e.b.add(byte, byte), byte)
    above = [e.b.sext(e.b.icmp_unsigned(">=", byte, e.const("i8x64", t)), byte.type) for t in (86, 171)]
    return e.b.sub(e.b.sub(e.zero("i8x64"), above[0]), above[1])


class TQ1_0(RaggedFamily):
    name = "tq1_0"
    max_code = 2
    zero = 1.0

    def prepare(self, e, p):
        return e.half_load(p, self.at("d"))

    def parts(self, e, p, d, s):
        return d, None

    def codes(self, e, p, s, k):
        if self.is_tail:                # one run of bytes for all weights
            n_bytes = self.fields["qs"].n_bytes
            n, first = divmod(32 * s + 4 * k, n_bytes)
        elif s < 5:                     # weights 0-159: digit s of bytes 0-31
            first, n = 4 * k, s
        elif s < 7 or k < 4:            # weights 160-239: digits 0-4 of bytes 32-47
            first, n = 32 + 4 * (k % 4), 2 * (s - 5) + k // 4
        else:                           # weights 240-255: digits 0-3 of bytes 48-51
            first, n = 48, k - 4
        return digit(e, e.load(p, self.places[first], "i8x64"), n)


FAMILY = TQ1_0()
