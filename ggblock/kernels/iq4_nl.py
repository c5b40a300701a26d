"""IQ4_NL: ``d * level``, the level looked up by a four-bit code."""
from ..blocks.codebooks import IQ4_LEVELS
from .families import Family
from .q4_0 import nibbles


def raised(levels):
    """128 more, as the signed bytes of the same bits."""
    return tuple((level + 256) % 256 - 128 for level in levels)


class Levels:
    """Codes that are levels: a family has their numbers, from 0 to 15, as ``index``."""

    signed = True
    levels = tuple(int(level) for level in IQ4_LEVELS)
    raised = raised(levels)

    def codes(self, e, p, s, k):
        return e.lookup16(self.levels, self.index(e, p, s, k))

    def raised_codes(self, e, p, s, k):
        return e.lookup16(self.raised, self.index(e, p, s, k))


class IQ4_NL(Levels, Family):
    n_bytes = 18

    def parts(self, e, p, d, s):
        return d, None

    def index(self, e, p, s, k):
        return nibbles(e, p, 2, k)


FAMILY = IQ4_NL()
