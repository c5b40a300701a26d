"""IQ4_NL: ``d * level``, the level looked up by a four-bit code."""
from .families import Family
from .q4_0 import nibbles

LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
#: 128 more, as the signed bytes of the same bits.
RAISED = tuple((level + 256) % 256 - 128 for level in LEVELS)


class IQ4_NL(Family):
    n_bytes = 18
    signed = True

    def parts(self, e, p, d, s):
        return d, None

    def codes(self, e, p, s, k):
        return e.lookup16(LEVELS, nibbles(e, p, 2, k))

    def raised_codes(self, e, p, s, k):
        return e.lookup16(RAISED, nibbles(e, p, 2, k))


FAMILY = IQ4_NL()
