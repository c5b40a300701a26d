"""IQ3_XXS: ``d * (1 + 2 n) / 4 * level`` with eight magnitudes from 4 to 62; see ``levels``."""
from ..blocks.codebooks import IQ3_XXS
from .levels import Patterns, signed

FAMILY = Patterns(IQ3_XXS, signed(IQ3_XXS.values), zero=0, sub=32, factor=0.25, parity=True)
