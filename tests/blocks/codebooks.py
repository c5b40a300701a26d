"""The codebooks as the ``gguf`` package holds them, for the scalar decoders; nothing from ggblock."""
from __future__ import annotations

from functools import cache

import gguf.quants


@cache
def codebook(name: str) -> list[list[int]]:
    """Patterns of ``IQ2_XXS``, ``IQ2_XS``, ``IQ2_S``, ``IQ3_XXS``, ``IQ3_S`` or ``IQ1_S``."""
    family = getattr(gguf.quants, name)
    family.init_grid()
    return [[int(value) for value in row] for row in family.grid.reshape(family.grid_shape)]


def with_even_sign(seven_bits: int) -> int:
    """Eight sign bits, an even number of which are set."""
    return seven_bits + 128 * (seven_bits.bit_count() % 2)
