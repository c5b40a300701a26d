"""IQ2_XXS: ``d * (1 + 2 n) / 8 * level`` with magnitudes of 8, 25 and 43; see ``levels``."""
from ..blocks.codebooks import IQ2_XXS
from .levels import Patterns, signed

FAMILY = Patterns(IQ2_XXS, signed((*IQ2_XXS.values, 0)), zero=0, sub=32, factor=0.125, parity=True)
