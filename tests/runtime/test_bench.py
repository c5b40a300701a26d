"""The benchmark measures what its names say."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ggblock.errors import ContextOverflow, SettingError
from ggblock.runtime import Model
from ggblock.runtime.bench import Case, Measurement, cases_of, context_for, measure

OpenTiny = Callable[..., Model]


def test_names_and_order() -> None:
    cases = cases_of([8, 0], [4], [0, 16])
    assert [case.name for case in cases] == ["pp8", "tg4", "pp8@d16", "tg4@d16"]
    assert context_for(cases) == 24


def test_mean_and_deviation() -> None:
    measured = Measurement(Case("pp", 8), (1.0, 2.0, 3.0))
    assert measured.tokens_per_s == 2.0 and measured.stddev == pytest.approx(1.0)
    assert Measurement(Case("pp", 8), (5.0,)).stddev == 0.0


def test_forward_passes_are_those_that_the_names_promise(open_tiny: OpenTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_tiny("llama_f32", context=64)
    calls: list[tuple[int, int]] = []
    asked: set[tuple[int, int]] = set()
    clock = iter(range(1000))
    forward = model.engine.forward

    def counted(ids: Any, position: int, all_logits: bool = False, best: int = 0) -> np.ndarray:
        assert all(0 <= i < model.n_vocab for i in ids)
        calls.append((position, len(ids)))
        asked.add((len(ids), best))
        return forward(ids, position, all_logits, best)

    monkeypatch.setattr(model.engine, "forward", counted)
    cases = cases_of([8], [3], [0, 16])
    results = list(measure(model, cases, repetitions=2, clock=lambda: float(next(clock))))
    pp = [(0, 8)] * 3  # one of them is the warm-up
    tg = [(0, 1), (1, 1), (2, 1)] * 3
    deep_pp = [(16, 8)] * 3
    deep_tg = [(16, 1), (17, 1), (18, 1)] * 3
    assert calls == [*pp, *tg, (0, 16), *deep_pp, *deep_tg]
    assert asked == {(8, 0), (16, 0), (1, 1)}
    assert [r.tokens_per_s for r in results] == [8.0, 3.0, 8.0, 3.0]  # the clock ticks once a repetition
    assert all(len(r.samples) == 2 and r.stddev == 0.0 for r in results)


def test_what_the_cache_held_is_forgotten(open_tiny: OpenTiny) -> None:
    model = open_tiny("llama_f32", context=64)
    before = model.generate([1, 2, 3, 4], 5, temperature=0, reuse=True).run()
    list(measure(model, [Case("pp", 8)], repetitions=1))
    after = model.generate([1, 2, 3, 4], 5, temperature=0, reuse=True).run()
    assert after.ids == before.ids and after.timings.reused_tokens == 0


def test_faults(open_tiny: OpenTiny) -> None:
    model = open_tiny("llama_f32", context=16)
    with pytest.raises(ContextOverflow):
        list(measure(model, [Case("tg", 9, 8)]))
    with pytest.raises(SettingError):
        list(measure(model, [Case("tg", 1)], repetitions=0))
