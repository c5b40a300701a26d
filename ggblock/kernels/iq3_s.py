"""IQ3_S: ``d * (1 + 2 n) * level`` with all odd numbers from -15 to 15; see ``levels``."""
from ..blocks.codebooks import IQ3_S
from .levels import Patterns, signed

FAMILY = Patterns(IQ3_S, signed(IQ3_S.values), zero=16, sub=32, factor=1.0)
