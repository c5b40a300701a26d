"""TQ1_0: ``d * (digit - 1)`` with five base-3 digits a byte and one scale for 256 weights.

Digit ``n`` of a byte is what overflows it when ``byte * 3**n mod 256`` is multiplied by 3: 0, 1 or 2. That is one for
each of the two thresholds 256 / 3 and 512 / 3 that the byte reaches, so no multiplication is needed.

Where bytes of full range are multiplied, one token needs no digits either: 256 times digit ``n`` is three times
``byte * 3**n mod 256`` without ``byte * 3**(n + 1) mod 256``, so two dot products of such bytes take the place of two
comparisons and what makes numbers of them. On AVX2 one instruction multiplies 16 bytes by nine: what overflows them are
two digits as one number of at most eight, and what is left of them has the others. A table for the first of two digits
and one for the second then serve 32 bytes. GB/s of one core of Zen 4, weights in L2: 6.9 with comparisons for each
digit, 9.9 with signed ones, 11.9 with tables.
"""
from .families import RaggedFamily

#: The digits of a number of two: first, second.
UPPER, LOWER = [n // 3 for n in range(9)] + [0] * 7, [n % 3 for n in range(9)] + [0] * 7


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

    def whole(self, e, d):
        return d, None

    def parts(self, e, p, d, s):
        return None, None

    def walk(self, e, p):
        if not self.is_tail:
            yield from self._walk(e, p, self._products if e.machine.signed_bias else self._digits)

    def _walk(self, e, p, of_byte):
        for first in range(0, 52, 4):
            e.order()
            codes = of_byte(e, e.load(p, self.places[first], "i8x64"))
            for n in range(5 if first < 48 else 4):
                j = 32 * n + first if first < 32 else 160 + 16 * n + first - 32 if first < 48 else 240 + 4 * n
                yield j // 32, j % 32 // 4, next(codes)

    def _products(self, e, byte):
        while True:
            (following,) = e.held([e.b.add(e.b.add(byte, byte), byte)])  # LLVM would multiply by 27, in words
            yield byte, following
            byte = following

    def _digits(self, e, byte):
        even, odd = e.times(byte, 9, 0), e.times(byte, 0, 9)
        while True:
            (digits,) = e.held([e.odd_bytes(e.bitcast(e.lshr(even, 8), "i8x64"), e.bitcast(odd, "i8x64"))])
            yield e.lookup16(UPPER, digits)
            yield e.lookup16(LOWER, digits)
            even, odd = (e.times(e.bitcast(v, "i8x64"), 9, 0) for v in (even, odd))

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
