"""Greedy pair merging, the heart of byte pair encoding and of SentencePiece-style vocabularies alike."""
from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush


def merge(symbols: list[bytes], priority: Callable[[bytes, bytes], float | None]) -> list[bytes]:
    """Merge neighbours, the lowest priority first and the leftmost among equals, until no pair has a priority.

    ``symbols``: the bytes to start from; the list is used up.
    ``priority(left, right)``: a number that orders the merges, or None when the two must not be joined.
    Returns the remaining symbols in order. O(n log n) for n symbols.
    """
    count = len(symbols)
    heap: list[tuple[float, int, int]] = []  # priority, index of the left symbol, bytes of the joined symbol
    for index in range(count - 1):
        left, right = symbols[index], symbols[index + 1]
        found = priority(left, right)
        if found is not None:
            heap.append((found, index, len(left) + len(right)))
    if not heap:
        return symbols
    heapify(heap)
    following = list(range(1, count + 1))
    preceding = list(range(-1, count - 1))
    while heap:
        _, index, n_bytes = heappop(heap)
        left = symbols[index]
        after = following[index]
        if not left or after == count:
            continue
        # Symbols only grow, so the size tells whether this entry still speaks of the pair it was made for.
        if len(left) + len(symbols[after]) != n_bytes:
            continue
        joined = left + symbols[after]
        symbols[index] = joined
        symbols[after] = b""
        after = following[after]
        following[index] = after
        if after < count:
            preceding[after] = index
            found = priority(joined, symbols[after])
            if found is not None:
                heappush(heap, (found, index, n_bytes + len(symbols[after])))
        before = preceding[index]
        if before >= 0:
            found = priority(symbols[before], joined)
            if found is not None:
                heappush(heap, (found, before, len(symbols[before]) + n_bytes))
    return [symbol for symbol in symbols if symbol]
