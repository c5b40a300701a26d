"""Cutting a text into scored chunks."""
from __future__ import annotations

import numpy as np
import pytest

from ggblock.errors import SettingError
from ggblock.evaluate.chunks import split


def test_whole_chunks_only() -> None:
    parts = split(range(23), 8)
    np.testing.assert_array_equal(parts.ids, np.arange(16).reshape(2, 8))
    assert parts.ids.dtype == np.int32
    assert parts.first_scored == 4
    assert parts.n_scored == 8


def test_limit_and_bos() -> None:
    parts = split(range(40), 8, limit=3, bos_id=99)
    assert parts.ids.shape == (3, 8)
    assert parts.ids[:, 0].tolist() == [99, 99, 99]
    assert parts.ids[1, 1:].tolist() == list(range(9, 16))


@pytest.mark.parametrize("size", [0, 1, 24])
def test_too_short(size: int) -> None:
    with pytest.raises(SettingError):
        split(range(23), size)
