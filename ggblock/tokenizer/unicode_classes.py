"""Character classes as llama.cpp sees them: Unicode 15.1 whatever the Python version.

Splitting works on a *collapsed* text: ASCII stays, every other character becomes one character that stands for its
class. A plain ``re`` pattern can then say what needs ``\\p{..}`` elsewhere, and positions stay the same.
"""
from __future__ import annotations

import functools
import re
from bisect import bisect_right
from itertools import accumulate

# White_Space of Unicode; the list is closed since version 6.3.
WHITESPACE = frozenset(
    [*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]
)

COLLAPSED_SPACE = "\x0b"
COLLAPSED = {"N": "\xd1", "L": "\xd2", "P": "\xd3", "M": "\xd4", "S": "\xd5"}
COLLAPSED_OTHER = "\xd0"

# What a class contains in a collapsed text, written for the inside of a bracket expression.
CLASS_MEMBERS = {
    r"\p{N}": "0-9\xd1",
    r"\p{L}": "A-Za-z\xd2",
    r"\p{P}": r"!-#%-*,-/:;?@\[-\]_{}" + "\xd3",
    r"\p{M}": "\xd4",
    r"\p{S}": r"$+<=>^`|~" + "\xd5",
    # Case is only known for ASCII; every other letter counts as both.
    r"\p{Upper}": "A-Z\xd2",
    r"\p{Lower}": "a-z\xd2",
}


@functools.cache
def _runs() -> tuple[list[int], str]:
    from .unicode_table import RUNS

    runs = re.findall(r"([A-Z])(\d+)", RUNS)
    return list(accumulate((int(length) for _, length in runs), initial=0)), "".join(name for name, _ in runs)


def category(code_point: int) -> str:
    """First letter of the general category (``L N M P S Z C``), or ``X`` for a code point not assigned in 15.1."""
    starts, names = _runs()
    return names[bisect_right(starts, code_point) - 1]


class _Collapse(dict[int, str]):
    """A table for `str.translate`, filled as characters are met."""

    def __missing__(self, code_point: int) -> str:
        if code_point < 128:
            result = chr(code_point)
        elif code_point in WHITESPACE:
            result = COLLAPSED_SPACE
        else:
            result = COLLAPSED.get(category(code_point), COLLAPSED_OTHER)
        self[code_point] = result
        return result


_COLLAPSE = _Collapse()
_SPACES_ONLY = {code_point: COLLAPSED_SPACE for code_point in WHITESPACE if code_point >= 128}


def collapse(text: str) -> str:
    """Every character outside ASCII replaced by the one that stands for its class; same length."""
    return text if text.isascii() else text.translate(_COLLAPSE)


def collapse_spaces(text: str) -> str:
    """Only white space outside ASCII replaced; same length. For patterns that name characters, not classes."""
    return text if text.isascii() else text.translate(_SPACES_ONLY)
