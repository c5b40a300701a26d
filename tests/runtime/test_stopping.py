"""Stop strings, however the text is cut."""
from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggblock.errors import SettingError
from ggblock.runtime.stopping import StopFilter


def cut_at_first_complete(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The definition, character by character: the longest stop string that ends at the first place where any ends."""
    for end in range(1, len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            longest = max(ended, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(
    text=st.text("abc", max_size=30),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=4),
    cuts=st.lists(st.integers(0, 30), max_size=10),
)
def test_any_cut_gives_the_same_text(text: str, stops: list[str], cuts: list[int]) -> None:
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    stop_filter = StopFilter(stops)
    emitted = ""
    for start, end in itertools.pairwise(places):
        emitted += stop_filter.push(text[start:end])
        # Nothing is held back without need: the rest is the start of some stop string.
        if stop_filter.matched is None:
            held = text[:end][len(emitted) :]
            assert text[:end].startswith(emitted)
            assert not held or any(stop.startswith(held) and stop != held for stop in stops)
    emitted += stop_filter.flush()
    assert (emitted, stop_filter.matched) == cut_at_first_complete(text, stops)


def test_a_stop_string_over_three_pieces_is_never_seen() -> None:
    stop_filter = StopFilter(["\nUser:"])
    assert [stop_filter.push(piece) for piece in ("Hi.", "\nUs", "er", ": what")] == ["Hi.", "", "", ""]
    assert stop_filter.matched == "\nUser:" and stop_filter.push("more") == "" and stop_filter.flush() == ""


def test_a_false_start_comes_out() -> None:
    stop_filter = StopFilter(["\nUser:"])
    assert [stop_filter.push(piece) for piece in ("a\nUs", "eful")] == ["a", "\nUseful"]


def test_a_single_string_is_one_stop_string() -> None:
    assert StopFilter("end").push("the end") == "the "


@pytest.mark.parametrize("stop", ["", 3, None])
def test_an_unusable_stop_string_is_refused(stop: object) -> None:
    with pytest.raises(SettingError):
        StopFilter([stop])  # type: ignore[list-item]
