"""What the engine is to reach beside llama.cpp, model by model, and whether measured figures do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ROOF = 0.95  # of the read bandwidth, where a goal names it
SCALING = 1.85  # prefill on two threads over prefill on one


@dataclass(frozen=True)
class Goal:
    """Ratios to llama.cpp on two threads. ``decode`` 0: only the roof counts; ``roof``: decode is to be near it."""

    prefill: float
    decode: float
    deep: float
    roof: float = 0.0

    def ratio(self, kind: str, depth: int) -> float:
        """For a test of ``kind`` "pp" or "tg" after ``depth`` tokens; 0 where there is none."""
        return self.prefill if kind == "pp" else self.deep if depth else self.decode


@dataclass(frozen=True)
class Entry:
    """A row of the table: a catalog model (``source``), or the random one as ``source`` type."""

    title: str
    source: str
    goal: Goal
    is_random: bool = False


def _random(type_name: str, label: str, goal: Goal) -> Entry:
    return Entry(f"1.07 B random, {label}", type_name, goal, is_random=True)


TABLE: Mapping[str, Entry] = {
    "smollm2": Entry("SmolLM2-135M Q4_1", "smollm2-135m-instruct", Goal(6.5, 2.4, 3.3)),
    "gemma3": Entry("gemma-3-270m Q4_K_M", "gemma-3-270m", Goal(2.6, 1.8, 1.8)),
    "b1-q4_k_m": _random("q4_k_m", "Q4_K_M", Goal(2.1, 1.2, 2.1, ROOF)),
    "b1-q2_k": _random("q2_k", "Q2_K", Goal(2.4, 0.0, 2.0, ROOF)),
    "b1-q6_k": _random("q6_k", "Q6_K", Goal(2.6, 0.0, 2.0, ROOF)),
}


def verdict(value: float, goal: float) -> str:
    """ "pass", or how far a figure falls short."""
    return "pass" if value >= goal else f"**short by {1 - value / goal:.0%}**"
