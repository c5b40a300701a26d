"""The fast search for string offsets against a naive twin."""
from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggblock import errors
from ggblock.format import strings


def naive(data: bytes, start: int, count: int, big: bool) -> list[int]:
    """One length after the other, or ValueError when the data end too soon."""
    starts = [start]
    for _ in range(count):
        at = starts[-1]
        if at + 8 > len(data):
            raise ValueError
        length = int.from_bytes(data[at : at + 8], "big" if big else "little")
        if at + 8 + length > len(data):
            raise ValueError
        starts.append(at + 8 + length)
    return starts


def check(data: bytes, start: int, count: int, big: bool) -> None:
    try:
        expected = naive(data, start, count, big)
    except ValueError:
        with pytest.raises((errors.Truncated, errors.StringTooLong)):
            strings.scan(data, start, len(data), count, big_endian=big, file="f", key="k")
        return
    found = strings.scan(data, start, len(data), count, big_endian=big, file="f", key="k")
    assert found.dtype == np.int64 and found.tolist() == expected


def packed(items: list[bytes], big: bool) -> bytes:
    return b"".join(struct.pack(">Q" if big else "<Q", len(item)) + item for item in items)


def kinds_of_items() -> dict[str, list[bytes]]:
    rng = random.Random(1)
    words = [rng.randbytes(rng.randrange(1, 30)) for _ in range(20_000)]
    return {
        "words": words,
        "empty": [b""] * 20_000,
        "some empty": [b"" if rng.random() < 0.01 else word for word in words],
        "some long": [word * 40 if rng.random() < 0.01 else word for word in words],
        "zeros": [bytes(rng.randrange(40)) for _ in range(20_000)],
        "looks like lengths": [struct.pack("<QQ", 1, 2) for _ in range(20_000)],
        "one huge": [*words[:5000], bytes(600_000), *words[5000:]],
        "all long": [b"x" * 256] * 3000,
    }


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("name", kinds_of_items())
def test_scan_equals_naive(name: str, big: bool):
    items = kinds_of_items()[name]
    data = b"head!" + packed(items, big) + b"tail"
    check(data, 5, len(items), big)
    check(data, 5, len(items) // 2, big)
    check(data[:-5], 5, len(items), big)  # the last string is cut
    check(packed(items, big)[: len(data) // 2], 0, len(items), big)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=20), st.integers(0, 300).map(bytes)), min_size=60, max_size=300),
    st.booleans(), st.data(),
)
def test_scan_equals_naive_on_anything(items: list[bytes], big: bool, data: st.DataObject):
    raw = bytearray(packed(items, big))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(0), st.integers(0, 40)))
    check(bytes(raw[: len(raw) - cut]), 0, len(items), big)


def test_window_borders_do_not_matter(monkeypatch: pytest.MonkeyPatch):
    items = kinds_of_items()["words"][:2000]
    data = packed(items, False)
    for window in (16, 17, 100, 1000, len(data) - 1, len(data), len(data) + 1):
        monkeypatch.setattr(strings, "WINDOW_BYTES", window)
        for run in (1, 7):
            monkeypatch.setattr(strings, "PLAIN_RUN", run)
            check(data, 0, len(items), False)
