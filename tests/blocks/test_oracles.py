"""Bit-exact with the ``gguf`` and ``libgguf`` packages on random blocks, fresh ones for every run of hypothesis."""
from __future__ import annotations

import warnings

import gguf
import libgguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggblock import blocks

from .common import assert_same_floats, random_blocks

BY_GGUF = [
    "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq1_s", "iq1_m",
    "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq4_nl", "iq4_xs", "tq1_0", "tq2_0", "mxfp4", "nvfp4",
]
BY_LIBGGUF = [name for name in BY_GGUF if name not in ("f16", "bf16")] + ["q1_0"]


@pytest.mark.parametrize("name", BY_GGUF)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_blocks=st.integers(1, 40))
def test_gguf(name: str, seed: int, n_blocks: int) -> None:
    data = random_blocks(name, n_blocks, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # infinite and NaN scales
        expected = gguf.dequantize(data, gguf.GGMLQuantizationType[name.upper()])
    assert_same_floats(blocks.by_name(name).decode(data), expected)


@pytest.mark.parametrize("name", BY_LIBGGUF)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_blocks=st.integers(1, 40))
def test_libgguf(name: str, seed: int, n_blocks: int) -> None:
    block, data = blocks.by_name(name), random_blocks(name, n_blocks, seed)
    expected = libgguf.dequantize_rows(data.reshape(1, -1), block.ggml_id, n_per_row=n_blocks * block.block_size)
    assert_same_floats(block.decode(data), np.asarray(expected))
