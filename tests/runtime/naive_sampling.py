"""The stages of sampling by their plain definitions: Python loops over (id, logit) pairs, no NumPy.

Written from the settings' documentation; the naive twin of ``ggblock/runtime/sampling.py``.
"""
from __future__ import annotations

import math

Pairs = list[tuple[int, float]]


def by_likelihood(pairs: Pairs) -> Pairs:
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


def softmax(pairs: Pairs, temperature: float = 1.0) -> dict[int, float]:
    top = max(logit for _, logit in pairs)
    weights = {i: math.exp((logit - top) / temperature) for i, logit in pairs}
    total = math.fsum(weights.values())
    return {i: weight / total for i, weight in weights.items()}


def top_k(pairs: Pairs, k: int) -> Pairs:
    return by_likelihood(pairs)[:k] if k else pairs


def _until(pairs: Pairs, probabilities: dict[int, float], share: float) -> Pairs:
    kept: Pairs = []
    total = 0.0
    for pair in pairs:
        kept.append(pair)
        total += probabilities[pair[0]]
        if total >= share:
            break
    return kept


def top_p(pairs: Pairs, share: float) -> Pairs:
    return _until(by_likelihood(pairs), softmax(pairs), share) if share < 1 else pairs


def min_p(pairs: Pairs, ratio: float) -> Pairs:
    if ratio == 0:
        return pairs
    probabilities = softmax(pairs)
    most = max(probabilities.values())
    return [pair for pair in pairs if probabilities[pair[0]] >= ratio * most]


def typical(pairs: Pairs, share: float) -> Pairs:
    if share >= 1:
        return pairs
    probabilities = softmax(pairs)
    entropy = -math.fsum(p * math.log(p) for p in probabilities.values() if p > 0)

    def oddness(pair: tuple[int, float]) -> float:
        p = probabilities[pair[0]]
        return math.inf if p == 0 else abs(-math.log(p) - entropy)

    return _until(sorted(pairs, key=oddness), probabilities, share)


def penalties(pairs: Pairs, window: list[int], repeat: float, frequency: float, presence: float) -> Pairs:
    result = []
    for i, logit in pairs:
        count = window.count(i)
        if count:
            logit = logit / repeat if logit > 0 else logit * repeat
            logit = logit - count * frequency - presence
        result.append((i, logit))
    return result
