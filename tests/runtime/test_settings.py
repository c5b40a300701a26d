"""Ranges of the sampling settings."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ggblock.errors import SettingError
from ggblock.runtime.settings import Sampling


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", "hot"),
        ("temperature", True),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 1.01),
        ("top_p", -0.1),
        ("min_p", 2),
        ("typical", -1),
        ("repeat_penalty", 0.0),
        ("repeat_last_n", -2),
        ("frequency_penalty", math.inf),
        ("presence_penalty", math.nan),
        ("seed", -1),
        ("seed", 2**64),
        ("seed", 1.0),
        ("logit_bias", [1, 2]),
        ("logit_bias", {-1: 0.0}),
        ("logit_bias", {"a": 0.0}),
        ("logit_bias", {1: math.inf}),
        ("logit_bias", {1: math.nan}),
        ("logit_bias", {1: "x"}),
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(SettingError) as caught:
        Sampling(**{name: value})
    assert caught.value.where == name


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(SettingError) as caught:
        Sampling.from_options({"temprature": 1.0})
    assert caught.value.where == "temprature" and "temperature" in str(caught.value)


def test_borders_and_numpy_numbers_are_accepted() -> None:
    settings = Sampling(
        temperature=0,
        top_k=np.int64(0),  # type: ignore[arg-type]
        top_p=np.float32(1.0),  # type: ignore[arg-type]
        min_p=1,
        typical=0,
        repeat_last_n=-1,
        seed=2**64 - 1,
        logit_bias={np.int64(3): -math.inf},  # type: ignore[dict-item]
    )
    assert settings.is_greedy and dict(settings.logit_bias) == {3: -math.inf}


def test_the_bias_cannot_be_changed_afterwards() -> None:
    bias = {1: 1.0}
    settings = Sampling(logit_bias=bias)
    bias[2] = 1.0
    assert dict(settings.logit_bias) == {1: 1.0}
    with pytest.raises(TypeError):
        settings.logit_bias[1] = 2.0  # type: ignore[index]
