"""What a template may use up while it renders: steps, time, and the size of what it makes.

Every limit is checked before the memory is taken or the time spent. Text is measured in characters; a container
counts its elements and everything below them, because printing or comparing it walks all of that, also when the same
list is inside it many times over.
"""
from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping

MAX_STEPS = 1_000_000
MAX_CHARACTERS = 4 * 2**20
MAX_BITS = 65_536
MAX_DEPTH = 64
_MAX_DIGITS = 5
_NUMBER = re.compile(r"\d+")


class LimitReached(Exception):
    """A template wanted more than its budget."""


class Budget:
    """One rendering's account. ``seconds``: wall time from now on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._steps = 0
        self._printed = 0
        self._max_characters: float = MAX_CHARACTERS
        # id of a container: itself (so that the id stays taken), its size and depth. Templates cannot change one.
        self._known: dict[int, tuple[object, int, int]] = {}

    def allow(self, values: Iterable[object]) -> None:
        """Take in what the template is given: the larger it is, the more the template may make of it."""
        self._max_characters = float("inf")
        self._max_characters = MAX_CHARACTERS + 4 * sum(self.measure(value)[0] for value in values)

    def step(self) -> None:
        """Count a step: a loop's turn, a call, a filter."""
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise LimitReached(f"more than {MAX_STEPS} steps")
        if time.monotonic() > self._deadline:
            raise LimitReached(f"more than {self._seconds:g} seconds")

    def printing(self, n_characters: int) -> None:
        """Count characters on their way into the text or into a variable."""
        self._printed += n_characters
        if self._printed > self._max_characters:
            raise LimitReached(f"more than {self._max_characters} characters of text")

    def making(self, size: float) -> None:
        """Refuse a single value that would have this size."""
        if size > self._max_characters:
            raise LimitReached(f"a value larger than {self._max_characters}")

    def measure(self, value: object) -> tuple[int, int]:
        """Size and depth of a value; raises `LimitReached` when it is too large or too deep."""
        if isinstance(value, str):
            return len(value), 0
        if not isinstance(value, (list, tuple, dict)):
            return 1, 0
        known = self._known.get(id(value))
        if known is not None:
            return known[1], known[2]
        parts: Iterable[object] = value
        if isinstance(value, dict):
            parts = [*value.keys(), *value.values()]
        size, depth = 2, 0
        for part in parts:
            part_size, part_depth = self.measure(part)
            size += part_size + 2
            depth = max(depth, part_depth)
            self.making(size)
        if depth >= MAX_DEPTH:
            raise LimitReached(f"data nested more than {MAX_DEPTH} levels")
        self._known[id(value)] = value, size, depth + 1
        return size, depth + 1

    def checked(self, value: object) -> object:
        """``value`` after measuring it."""
        self.making(self.measure(value)[0])
        return value

    def adding(self, left: object, right: object) -> None:
        """Refuse ``left + right`` or ``left ~ right`` that would be too large."""
        if isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
            self.making(self.measure(left)[0] + self.measure(right)[0])

    def multiplying(self, left: object, right: object) -> None:
        """Refuse ``left * right`` that would be too large."""
        for value, factor in ((left, right), (right, left)):
            if isinstance(value, (str, list, tuple)) and isinstance(factor, int):
                self.making(self.measure(value)[0] * max(0, factor))
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > MAX_BITS:
            raise LimitReached("a number with too many digits")

    def raising(self, base: object, exponent: object) -> None:
        """Refuse ``base ** exponent`` that would be too large."""
        if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > MAX_BITS:
            raise LimitReached("a number with too many digits")

    def formatting(self, pattern: str, values: Iterable[object]) -> None:
        """Refuse to fill a ``%`` or ``{}`` pattern that pads to huge widths or repeats huge values."""
        if re.search(r"%[^%a-zA-Z]*\*|\{[^{}]*\{", pattern.replace("{{", "")):
            raise LimitReached("a format whose width comes from a value")
        if any(len(number) > _MAX_DIGITS for number in _NUMBER.findall(pattern)):
            raise LimitReached("a format with a huge width")
        n_fields = pattern.count("%") + pattern.count("{")
        widest = max((int(number) for number in _NUMBER.findall(pattern)), default=0)
        largest = max((self.measure(value)[0] for value in values), default=0)
        self.making(len(pattern) + n_fields * (widest + largest))

    def padding(self, width: object) -> None:
        """Refuse to pad text to a huge width."""
        if isinstance(width, int):
            self.making(width)

    def replacing(self, text: str, old: object, new: object) -> None:
        """Refuse ``text.replace(old, new)`` that would be too large."""
        if isinstance(old, str) and isinstance(new, str):
            self.making(len(text) + (text.count(old) if old else len(text) + 1) * len(new))

    def joining(self, separator: str, values: list[object]) -> None:
        """Refuse ``separator.join(values)`` that would be too large."""
        self.making(sum(self.measure(value)[0] for value in values) + len(separator) * len(values))


def values_of(args: Iterable[object], kwargs: Mapping[str, object]) -> list[object]:
    """All values of a call, and those inside a single mapping or tuple, as formatting takes them."""
    values: list[object] = [*args, *kwargs.values()]
    for value in list(values):
        if isinstance(value, dict):
            values += value.values()
        elif isinstance(value, (list, tuple)):
            values += value
    return values
