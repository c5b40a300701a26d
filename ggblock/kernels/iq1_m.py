"""IQ1_M: ``d * (1 + 2 n) * (digit + shift)``, -1, 0 or 1 and an eighth more or less; see ``levels``."""
from ..blocks.codebooks import IQ1
from .levels import Patterns, shifted

FAMILY = Patterns(IQ1, shifted(IQ1.values), zero=16, sub=16, factor=0.125, by_eight=True)
