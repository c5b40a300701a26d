"""How fast a model reads and writes: the measurements behind ``ggblock bench``.

A test is named as in llama-bench: ``pp512`` reads 512 tokens at once, ``tg128`` writes 128 one by one, and
``tg128@d4096`` does so with 4,096 tokens already in the KV cache. Tokens are random, and none is drawn: a step of
``tg`` ends when the logit of the most likely next token is there, as when text is written at temperature 0, and with
``best`` 0 when the logits of all tokens are.
"""
from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from ggblock import errors
from ggblock.runtime.cache import CHUNK_TOKENS, Engine
from ggblock.runtime.model import Model


@dataclass(frozen=True)
class Case:
    """What to measure: ``n_tokens`` of prefill ("pp") or decode ("tg") after ``depth`` tokens."""

    kind: Literal["pp", "tg"]
    n_tokens: int
    depth: int = 0

    @property
    def name(self) -> str:
        """``pp512``, ``tg128@d4096``."""
        return f"{self.kind}{self.n_tokens}" + (f"@d{self.depth}" if self.depth else "")


@dataclass(frozen=True)
class Measurement:
    """Tokens a second of every repetition."""

    test: Case
    samples: tuple[float, ...]

    @property
    def tokens_per_s(self) -> float:
        """Mean of the repetitions."""
        return statistics.fmean(self.samples)

    @property
    def stddev(self) -> float:
        """Sample standard deviation of the repetitions; 0 for a single one."""
        return statistics.stdev(self.samples) if len(self.samples) > 1 else 0.0


def cases_of(prompts: Iterable[int], generations: Iterable[int], depths: Iterable[int]) -> list[Case]:
    """Every prefill and every decode length at every depth; a length of 0 is left out."""
    prompts, generations = list(prompts), list(generations)
    tests = []
    for depth in depths:
        tests += [Case("pp", n, depth) for n in prompts if n]
        tests += [Case("tg", n, depth) for n in generations if n]
    return tests


def context_for(tests: Iterable[Case]) -> int:
    """Tokens that the context must hold for these tests."""
    return max(test.depth + test.n_tokens for test in tests)


def measure(
    model: Model,
    tests: Iterable[Case],
    repetitions: int = 5,
    clock: Callable[[], float] = time.perf_counter,
    best: int = 1,
) -> Iterator[Measurement]:
    """Run the tests in order, each after a warm-up, and yield each as it is done.

    What stands before the test in the cache (``depth``) is not timed. ``best``: how many of the largest logits a step
    of decode asks for; 0: all.

    Raises:
        ContextOverflow: the model's context is shorter than a test.
        SettingError: fewer than one repetition.
    """
    if repetitions < 1:
        raise errors.SettingError("outside its range", where="repetitions", expected="1 or larger", actual=repetitions)
    engine = model.engine
    random = np.random.Generator(np.random.PCG64(0))
    model.cache.forget()  # the tests write into the KV cache behind its back
    filled = 0
    for test in tests:
        model.cache.check_fits(test.depth + test.n_tokens)
        if filled > test.depth:
            filled = 0
        _read(engine, random, filled, test.depth - filled)
        filled = test.depth
        step = _read if test.kind == "pp" else partial(_write, best=best)
        step(engine, random, test.depth, test.n_tokens if test.kind == "pp" else min(test.n_tokens, 4))
        samples = []
        for _ in range(repetitions):
            start = clock()
            step(engine, random, test.depth, test.n_tokens)
            samples.append(test.n_tokens / max(clock() - start, 1e-9))
        yield Measurement(test, tuple(samples))


def _read(engine: Engine, random: np.random.Generator, position: int, n_tokens: int) -> None:
    ids = random.integers(0, engine.n_vocab, n_tokens).tolist()
    for start in range(0, n_tokens, CHUNK_TOKENS):
        engine.forward(ids[start : start + CHUNK_TOKENS], position + start)


def _write(engine: Engine, random: np.random.Generator, position: int, n_tokens: int, best: int) -> None:
    for offset, token in enumerate(random.integers(0, engine.n_vocab, n_tokens).tolist()):
        engine.forward([token], position + offset, best=best)
