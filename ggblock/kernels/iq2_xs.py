"""IQ2_XS: ``d * (1 + 2 n) / 8 * level`` with magnitudes of 8, 25 and 43; see ``levels``."""
from ..blocks.codebooks import IQ2_XS
from .levels import Patterns, signed

FAMILY = Patterns(IQ2_XS, signed((*IQ2_XS.values, 0)), zero=0, sub=16, factor=0.125, parity=True)
