"""Samplers against their plain definitions, exact selection, the random stream."""
from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggblock.errors import ModelError, SettingError
from ggblock.runtime.sampling import Sampler, best, smallest_share
from ggblock.runtime.settings import Sampling
from tests.naive.llama import largest_alone
from tests.runtime import naive_sampling as naive

OPEN: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
"""Everything off, so that one stage can be looked at."""


def some_logits(n: int, seed: int = 0, spread: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(n) * spread).astype(np.float32)


def kept_ids(logits: np.ndarray, **options: Any) -> list[int]:
    ids, _ = Sampler(Sampling(**{**OPEN, **options}), len(logits), 64)._candidates(logits)
    return list(range(len(logits))) if ids is None else [int(i) for i in ids]


# --- selection


@pytest.mark.parametrize("n", [1, 2, 39, 40, 41, 1000, 4096, 4097, 10_001, 49_152, 70_003])
@pytest.mark.parametrize("k", [1, 2, 40, 300])
@pytest.mark.parametrize("kind", ["normal", "ties", "equal", "banned", "sorted", "reversed"])
def test_best_is_a_stable_sort(n: int, k: int, kind: str) -> None:
    values = some_logits(n, seed=n)
    if kind == "ties":
        values = np.round(values)
    elif kind == "equal":
        values[:] = 1.5
    elif kind == "banned":
        values[: n - n // 100 - 1] = -np.inf
    elif kind == "sorted":
        values.sort()
    elif kind == "reversed":
        values = np.sort(values)[::-1].copy()
    expected = sorted(range(n), key=lambda i: (-values[i], i))[:k]
    assert best(values, k).tolist() == expected


@pytest.mark.parametrize("n", [1, 5, 4096, 5000, 49_152])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95, 0.9999, 1.0])
@pytest.mark.parametrize("spread", [0.01, 3.0, 20.0])
def test_smallest_share_takes_the_fewest(n: int, share: float, spread: float) -> None:
    keys = -some_logits(n, seed=n, spread=spread)
    weights = np.exp(-keys - (-keys).max())
    order = smallest_share(keys, weights, share)
    total = weights.sum(dtype=np.float64)
    sums = np.cumsum(weights[order], dtype=np.float64) / total
    assert len(order) >= 1
    assert np.array_equal(order, np.argsort(keys, kind="stable")[: len(order)])
    assert sums[-1] >= share - 1e-9
    assert len(order) == 1 or sums[-2] < share


# --- each stage against its definition


@pytest.mark.parametrize("n", [3, 50, 5000, 20_000])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "value"),
    [("top_k", 1), ("top_k", 40), ("top_p", 0.0), ("top_p", 0.3), ("top_p", 0.95), ("min_p", 0.05), ("min_p", 0.9),
     ("typical", 0.0), ("typical", 0.2), ("typical", 0.9)],
)
def test_a_stage_alone(n: int, seed: int, name: str, value: float) -> None:
    logits = some_logits(n, seed=100 + seed)
    expected = getattr(naive, name)([(i, float(v)) for i, v in enumerate(logits)], value)
    assert sorted(kept_ids(logits, **{name: value})) == sorted(i for i, _ in expected)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 300),
    seed=st.integers(0, 1000),
    k=st.integers(0, 60),
    typical=st.floats(0.1, 1.0),
    top_p=st.floats(0.1, 1.0),
    min_p=st.floats(0.0, 0.5),
)
def test_the_chain_runs_in_the_documented_order(
    n: int, seed: int, k: int, typical: float, top_p: float, min_p: float
) -> None:
    logits = some_logits(n, seed=seed, spread=2.0)
    pairs = naive.top_k([(i, float(v)) for i, v in enumerate(logits)], k)
    pairs = naive.min_p(naive.top_p(naive.typical(pairs, typical), top_p), min_p)
    assert sorted(kept_ids(logits, top_k=k, typical=typical, top_p=top_p, min_p=min_p)) == sorted(i for i, _ in pairs)


def test_the_order_matters_where_it_should() -> None:
    # Probabilities .5 .3 .1 .1: top-k first leaves .625 .375, so top-p 0.6 keeps one; the other order would keep two.
    logits = np.log(np.array([0.5, 0.3, 0.1, 0.1], dtype=np.float32))
    assert kept_ids(logits, top_p=0.6) == [0, 1]
    assert kept_ids(logits, top_k=2, top_p=0.6) == [0]
    # The filters see the probabilities before the temperature.
    assert kept_ids(logits, top_p=0.6, temperature=100.0) == [0, 1]


@pytest.mark.parametrize("settings_", [{"repeat_penalty": 1.3}, {"frequency_penalty": 0.7}, {"presence_penalty": -2.0},
                                       {"repeat_penalty": 0.8, "frequency_penalty": 0.1, "presence_penalty": 0.2}])
@pytest.mark.parametrize("last_n", [1, 5, 64, -1])
def test_penalties(settings_: dict[str, float], last_n: int) -> None:
    n_ctx = 12
    logits = some_logits(30, seed=5)
    text = [int(i) for i in np.random.default_rng(1).integers(0, 10, 20)]
    sampler = Sampler(Sampling(repeat_last_n=last_n, **settings_), 30, n_ctx)  # type: ignore[arg-type]
    sampler.accept(text[:15])
    sampler.accept(text[15:])
    window = text[-(n_ctx if last_n < 0 else last_n) :]
    expected = naive.penalties(
        [(i, float(v)) for i, v in enumerate(logits)],
        window,
        settings_.get("repeat_penalty", 1.0),
        settings_.get("frequency_penalty", 0.0),
        settings_.get("presence_penalty", 0.0),
    )
    np.testing.assert_allclose(sampler._adjusted(logits), [v for _, v in expected], rtol=1e-6, atol=1e-6)


def test_a_window_of_nothing_turns_the_penalties_off() -> None:
    sampler = Sampler(Sampling(repeat_last_n=0, repeat_penalty=2.0), 10, 64)
    sampler.accept(range(10))
    logits = some_logits(10)
    assert sampler._adjusted(logits) is logits


def test_logits_are_left_as_they_are() -> None:
    logits = some_logits(100)
    before = logits.copy()
    sampler = Sampler(Sampling(repeat_penalty=2.0, logit_bias={3: -math.inf}, seed=1), 100, 64)
    sampler.accept(range(50))
    sampler.sample(logits)
    assert np.array_equal(logits, before)


# --- choosing


@pytest.mark.parametrize(
    ("options", "n_best"),
    [
        ({"temperature": 0}, 1),
        ({}, 40),
        ({"top_k": 7, "typical": 0.5}, 7),
        ({"top_k": 0}, 0),
        ({"temperature": 0, "repeat_penalty": 1.1}, 0),
        ({"temperature": 0, "repeat_penalty": 1.1, "repeat_last_n": 0}, 1),
        ({"logit_bias": {3: 1.0}}, 0),
    ],
)
def test_only_so_many_of_the_largest_count(options: dict[str, Any], n_best: int) -> None:
    """What is below them may be anything that is."""
    rng = np.random.default_rng(5)
    samplers = [Sampler(Sampling(seed=2, **options), 3000, 100) for _ in range(2)]
    assert samplers[0].n_best == n_best
    for _ in range(50):
        logits = (3 * rng.normal(size=3000)).astype(np.float32)
        assert samplers[0].sample(logits) == samplers[1].sample(largest_alone(logits, n_best or 3000))


def test_greedy_takes_the_first_of_the_largest() -> None:
    logits = np.array([0.0, 2.0, 2.0, 1.0], dtype=np.float32)
    assert Sampler(Sampling(temperature=0), 4, 8).sample(logits) == 1


def test_bias_and_penalties_act_on_greedy_too() -> None:
    logits = np.array([0.0, 2.0, 1.9, 1.0], dtype=np.float32)
    assert Sampler(Sampling(temperature=0, logit_bias={1: -math.inf}), 4, 8).sample(logits) == 2
    assert Sampler(Sampling(temperature=0, logit_bias={3: 5.0}), 4, 8).sample(logits) == 3
    sampler = Sampler(Sampling(temperature=0, repeat_penalty=1.5), 4, 8)
    sampler.accept([1])
    assert sampler.sample(logits) == 2


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.7}, {"temperature": 0.5}, {"temperature": 2.0}])
def test_drawn_frequencies_are_the_probabilities(options: dict[str, Any]) -> None:
    logits = np.array([1.0, 0.5, 0.0, -0.5, -1.0, -3.0], dtype=np.float32)
    sampler = Sampler(Sampling(**{**OPEN, "seed": 7, **options}), 6, 64)
    n_draws = 20_000
    drawn = Counter(sampler.sample(logits) for _ in range(n_draws))
    pairs = naive.top_p(naive.top_k([(i, float(v)) for i, v in enumerate(logits)], options.get("top_k", 0)),
                        options.get("top_p", 1.0))
    expected = naive.softmax(pairs, options.get("temperature", 1.0))
    assert set(drawn) <= set(expected)
    for token, p in expected.items():  # five standard deviations of a binomial share
        assert abs(drawn[token] / n_draws - p) < 5 * math.sqrt(p * (1 - p) / n_draws)


@pytest.mark.parametrize("n", [10, 50_000])
def test_a_tiny_temperature_is_greedy_and_a_huge_one_is_even(n: int) -> None:
    logits = some_logits(n)
    assert Sampler(Sampling(**{**OPEN, "temperature": 1e-45}), n, 64).sample(logits) == int(logits.argmax())
    sampler = Sampler(Sampling(**{**OPEN, "temperature": 1e30, "seed": 1}), n, 64)
    assert abs(np.mean([sampler.sample(logits) for _ in range(200)]) / n - 0.5) < 0.1


def test_same_seed_same_tokens() -> None:
    logits = [some_logits(3000, seed=i) for i in range(20)]
    runs = []
    for seed in (3, 3, 4):
        sampler = Sampler(Sampling(seed=seed), 3000, 64)
        runs.append([sampler.sample(row) for row in logits])
    assert runs[0] == runs[1] != runs[2]


def test_the_random_stream_is_the_promised_one() -> None:
    # Computed once with NumPy's Generator(PCG64(seed)).random(), which turns the same raw numbers into the same floats.
    logits = np.zeros(1000, dtype=np.float32)
    sampler = Sampler(Sampling(**{**OPEN, "seed": 42}), 1000, 64)
    expected = [int(u * 1000) for u in np.random.Generator(np.random.PCG64(42)).random(10)]
    assert [sampler.sample(logits) for _ in range(10)] == expected == [773, 438, 858, 697, 94, 975, 761, 786, 128, 450]


def test_without_a_seed_one_is_drawn_and_told() -> None:
    first, second = (Sampler(Sampling(), 1000, 64) for _ in range(2))
    assert first.seed != second.seed
    logits = some_logits(1000)
    again = Sampler(Sampling(seed=first.seed), 1000, 64)
    assert [first.sample(logits) for _ in range(5)] == [again.sample(logits) for _ in range(5)]


# --- faults


@pytest.mark.parametrize("n", [10, 50_000])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"top_k": 0}])
def test_logits_that_are_not_finite_are_an_error(n: int, bad: float, options: dict[str, Any]) -> None:
    logits = some_logits(n)
    logits[n // 2] = bad
    with pytest.raises(ModelError, match="finite"):
        Sampler(Sampling(**options), n, 64).sample(logits)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}])
def test_nothing_left_to_choose_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="banned"):
        Sampler(Sampling(logit_bias=dict.fromkeys(range(5), -math.inf), **options), 5, 64).sample(some_logits(5))


def test_banned_tokens_are_never_drawn() -> None:
    logits = np.zeros(8, dtype=np.float32)
    sampler = Sampler(Sampling(**{**OPEN, "seed": 1, "logit_bias": dict.fromkeys(range(7), -math.inf)}), 8, 64)
    assert {sampler.sample(logits) for _ in range(50)} == {7}


def test_a_bias_outside_the_vocabulary_is_an_error() -> None:
    with pytest.raises(SettingError, match="vocabulary"):
        Sampler(Sampling(logit_bias={10: 1.0}), 10, 64)
