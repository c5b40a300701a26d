"""Stop strings in a stream of text pieces."""
from __future__ import annotations

from collections.abc import Iterable

from ggblock import errors


class StopFilter:
    """Lets text through up to the first stop string, however the text is cut into pieces.

    The match that is *complete* first ends the text (of two that end at the same character, the longer one), so
    the outcome does not depend on the pieces. Text is held back only while it may still be the start of a stop string.

    Args:
        stops: strings; none of them is ever emitted.

    Raises:
        SettingError: an empty stop string, or something that is no string.
    """

    def __init__(self, stops: Iterable[str] = ()) -> None:
        if isinstance(stops, str):
            stops = (stops,)
        self._stops = tuple(dict.fromkeys(stops))
        for stop in self._stops:
            if not isinstance(stop, str) or not stop:
                raise errors.SettingError("not a text of one or more characters", where="stop", actual=repr(stop))
        self._held = ""
        self.matched: str | None = None
        """The stop string that ended the text."""

    def push(self, piece: str) -> str:
        """Text that is now certain to stand before any stop string. After a match nothing more comes out."""
        if self.matched is not None:
            return ""
        text = self._held + piece
        found: tuple[int, int, str] | None = None
        for stop in self._stops:
            start = text.find(stop)
            if start >= 0 and (found is None or (start + len(stop), start) < found[:2]):
                found = (start + len(stop), start, stop)
        if found is not None:
            self.matched = found[2]
            self._held = ""
            return text[: found[1]]
        hold = max((_overlap(text, stop) for stop in self._stops), default=0)
        cut = len(text) - hold
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """What is still held back, when no more text will come."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper start of ``stop`` that ends ``text``."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
