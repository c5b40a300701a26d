"""Finding tokens that stand for themselves in a text: control tokens, user-defined ones and the like."""
from __future__ import annotations

from dataclasses import dataclass

from .vocabulary import CONTROL, UNKNOWN, USER_DEFINED, Vocabulary

_ASCII_SPACES = " \t\n\v\f\r"
_SPACES = frozenset(_ASCII_SPACES)
_HEAD = 4


@dataclass(frozen=True)
class _Special:
    text: str
    token: int
    hidden: bool  # only found when special tokens are parsed


class SpecialTokens:
    """Cuts text at the special tokens in it.

    The longest token wins wherever in the text it is, then the next longest in what is left: this is llama.cpp's
    order, not that of a scan from left to right. User-defined tokens are always found, control and unknown tokens
    only on request. ``strip_before`` and ``strip_after``: ids that swallow the white space on that side.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        strip_before: frozenset[int] = frozenset(),
        strip_after: frozenset[int] = frozenset(),
    ) -> None:
        ids = vocabulary.ids_with(CONTROL | USER_DEFINED | UNKNOWN)
        ids.sort(key=lambda token: -len(vocabulary.pieces[token]))
        self._ordered = []
        self._by_head: dict[str, list[int]] = {}
        for place, token in enumerate(ids):
            text = vocabulary.pieces[token].decode("utf-8", "surrogateescape")
            hidden = bool(vocabulary.bits[token] & (CONTROL | UNKNOWN))
            self._ordered.append(_Special(text, token, hidden))
            # Thousands of tokens share few beginnings; a beginning that is not in the text rules all of them out.
            self._by_head.setdefault(text[:_HEAD], []).append(place)
        self._strip_before = strip_before
        self._strip_after = strip_after

    def partition(self, text: str, parse_special: bool) -> list[str | int]:
        """The text in order: plain text as ``str``, never empty, and ids of special tokens as ``int``."""
        found = []
        for head, places in self._by_head.items():
            if head in text:
                found += [place for place in places if self._ordered[place].text in text]
        fragments: list[str | int] = [text] if text else []
        for place in sorted(found):
            special = self._ordered[place]
            if not special.hidden or parse_special:
                fragments = [part for fragment in fragments for part in self._cut(fragment, special)]
        return fragments

    def _cut(self, fragment: str | int, special: _Special) -> list[str | int]:
        if isinstance(fragment, int) or special.text not in fragment:
            return [fragment]
        parts: list[str | int] = []
        start = 0
        while (found := fragment.find(special.text, start)) >= 0:
            before = fragment[start:found]
            if special.token in self._strip_before:
                before = before.rstrip(_ASCII_SPACES)
            if before:
                parts.append(before)
            parts.append(special.token)
            start = found + len(special.text)
            if special.token in self._strip_after:
                while fragment[start : start + 1] in _SPACES:
                    start += 1
        if start < len(fragment):
            parts.append(fragment[start:])
        return parts
