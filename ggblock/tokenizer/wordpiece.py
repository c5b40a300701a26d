"""WordPiece: words, then the longest piece that fits, from left to right (``tokenizer.ggml.model`` = ``bert``)."""
from __future__ import annotations

import unicodedata

from .unicode_classes import WHITESPACE, category
from .vocabulary import Vocabulary

_WORD_START = "\u2581".encode()
# Ideographs that stand alone. The sixth block starts at U+2B920, as in the tokenizer that BERT files come from.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


def _is_ideograph(code_point: int) -> bool:
    return any(first <= code_point <= last for first, last in _IDEOGRAPHS)


class WordPieceEncoder:
    """Ids of plain text; a word that the pieces cannot spell becomes one unknown token.

    ``lowercase``, ``strip_accents``: the normalization that the file asks for.
    """

    def __init__(self, vocabulary: Vocabulary, lowercase: bool, strip_accents: bool) -> None:
        self._ids = vocabulary.ids
        self._unknown = vocabulary.roles.get("unk")
        self._longest = max(len(piece) for piece in vocabulary.pieces)
        self._lowercase = lowercase
        self._strip_accents = strip_accents

    def words(self, text: str) -> list[str]:
        """The words of a text: cut at white space, around punctuation and around ideographs, and normalized."""
        words = []
        current = ""
        for character in text:
            if self._strip_accents and category(ord(character)) != "X":
                character = unicodedata.normalize("NFD", character)[0]
            code_point = ord(character)
            if code_point in WHITESPACE:
                words.append(current)
                current = ""
                continue
            kind = category(code_point)
            if code_point in (0, 0xFFFD) or kind == "C" or (self._strip_accents and kind == "M"):
                continue
            shown = character.lower()[0] if self._lowercase and kind != "X" else character
            if kind == "P" or (kind == "S" and code_point < 0x7F) or _is_ideograph(code_point):
                words += [current, shown]
                current = ""
            else:
                current += shown
        words.append(current)
        return [word for word in words if word]

    def encode(self, text: str) -> list[int]:
        """Ids of a piece of text that holds no special token."""
        output: list[int] = []
        for word in self.words(text):
            ids = self._encode_word(_WORD_START + word.encode())
            if ids:
                output += ids
            elif self._unknown is not None:
                output.append(self._unknown)
        return output

    def _encode_word(self, word: bytes) -> list[int]:
        output = []
        start = 0
        while start < len(word):
            for stop in range(min(len(word), start + self._longest + 1), start, -1):
                token = self._ids.get(word[start:stop])
                if token is not None:
                    output.append(token)
                    start = stop
                    break
            else:
                return []
        return output
