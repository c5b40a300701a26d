"""Codebooks and lookup tables, entry by entry, against the ``gguf`` package."""
from __future__ import annotations

import dataclasses

import gguf.quants
import numpy as np
import pytest

from ggblock.blocks import codebooks as ours

from .codebooks import codebook, with_even_sign


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("IQ1", "IQ1_S"), ("IQ2_XXS", "IQ2_XXS"), ("IQ2_XS", "IQ2_XS"), ("IQ2_S", "IQ2_S"), ("IQ3_XXS", "IQ3_XXS"),
     ("IQ3_S", "IQ3_S")],
)
def test_codebook(name: str, theirs: str) -> None:
    book = getattr(ours, name)
    assert book.grid.shape == (book.size, book.width)
    np.testing.assert_array_equal(book.grid, codebook(theirs))
    with pytest.raises(ValueError, match="read-only"):
        book.grid[0, 0] = 1


def test_signs() -> None:
    every = np.arange(128, dtype=np.uint8)
    np.testing.assert_array_equal(ours.parity_signs(every), np.frombuffer(gguf.quants.IQ2_XXS.ksigns, np.uint8))
    assert ours.parity_signs(every).tolist() == [with_even_sign(i) for i in range(128)]


def test_levels() -> None:
    assert ours.IQ4_LEVELS.tolist() == list(gguf.quants.IQ4_NL.kvalues)
    assert ours.E2M1_DOUBLED.tolist() == list(gguf.quants.MXFP4.kvalues)


def test_a_damaged_codebook_is_noticed() -> None:
    damaged = dataclasses.replace(ours.IQ3_S, members="AAAA" + ours.IQ3_S.members[4:])
    with pytest.raises(ValueError, match="iq3_s"):
        _ = damaged.grid
