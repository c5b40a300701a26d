"""Greedy merging against its definition."""
from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from ggblock.tokenizer.merge import merge


def naive_merge(symbols, priority):
    """Look at every pair, join the best one, start again."""
    symbols = list(symbols)
    while True:
        best = None
        for index in range(len(symbols) - 1):
            found = priority(symbols[index], symbols[index + 1])
            if found is not None and (best is None or found < best[0]):
                best = found, index
        if best is None:
            return symbols
        index = best[1]
        symbols[index : index + 2] = [symbols[index] + symbols[index + 1]]


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"a", b"b", "é".encode(), b"d"]), max_size=40), st.integers(0, 2**32))
def test_equals_the_definition(symbols: list[bytes], seed: int) -> None:
    rng = random.Random(seed)
    table: dict[bytes, float | None] = {}

    def priority(left: bytes, right: bytes) -> float | None:
        joined = left + right
        if joined not in table:
            table[joined] = float(rng.randrange(6)) if rng.random() < 0.6 else None
        return table[joined]

    # Both runs ask in different orders, so the table is filled for every text that can occur first.
    for start in range(len(symbols)):
        for stop in range(start + 1, len(symbols) + 1):
            priority(b"", b"".join(symbols[start:stop]))
    expected = naive_merge(symbols, priority)
    assert merge(list(symbols), priority) == expected


def test_ties_go_to_the_left() -> None:
    assert merge([b"a", b"a", b"a"], lambda left, right: 0 if left + right == b"aa" else None) == [b"aa", b"a"]


def test_nothing_to_merge() -> None:
    assert merge([], lambda left, right: 0) == []
    assert merge([b"x"], lambda left, right: 0) == [b"x"]
    assert merge([b"x", b"y"], lambda left, right: None) == [b"x", b"y"]


def test_a_long_run_takes_little_time() -> None:
    n_symbols = 50_000
    pieces = {b"a" * length for length in (2, 4, 8, 16)}
    result = merge([b"a"] * n_symbols, lambda left, right: -len(left + right) if left + right in pieces else None)
    assert b"".join(result) == b"a" * n_symbols
