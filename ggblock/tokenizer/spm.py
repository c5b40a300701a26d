"""SentencePiece-style vocabularies: merges by score over the whole text (``tokenizer.ggml.model`` = ``llama``)."""
from __future__ import annotations

import functools
import re

from .. import errors
from .bpe import SPACE_MARK
from .merge import merge
from .vocabulary import Vocabulary

_MARK = SPACE_MARK.encode()
_SHORT_CHARACTERS = 2_000
_CACHED_CHARACTERS = 48
_CACHED_SEGMENTS = 65_536


class ScoreMergeEncoder:
    """Ids of plain text: neighbours are merged, the pair whose piece has the highest score first.

    It needs nothing but the dictionary of pieces. As a ``tokenizers`` model the same vocabulary would need its merges
    spelled out, 514,847 for gemma's 262,144 pieces: 2.9 s of processor time to derive and build, 1.6 s to load
    from a cached copy, where reading the file's arrays takes 0.15 s.

    Scores order merges of the whole text, but no merge crosses a place where no piece has these two characters side
    by side. Text is cut at such places before U+2581, and the segments, mostly words, are remembered. Finding the
    characters that pieces join with U+2581 takes 30 ms for gemma, so the first few lines are merged whole.
    """

    def __init__(self, vocabulary: Vocabulary, add_space_prefix: bool) -> None:
        self._vocabulary = vocabulary
        self._ids = vocabulary.ids
        self._scores = vocabulary.scores or [0.0] * len(vocabulary.pieces)
        self._add_space_prefix = add_space_prefix
        self._segments: dict[str, list[int]] = {}
        self._n_encoded = 0

    def encode(self, text: str, after_special: bool) -> list[int]:
        """Ids of a piece of text that holds no special token.

        ``after_special``: a special token, or nothing at all, is before it.
        """
        if self._add_space_prefix and after_special:
            text = " " + text
        text = text.replace(" ", SPACE_MARK)
        self._n_encoded += len(text)
        if self._n_encoded <= _SHORT_CHARACTERS:
            return self._encode_segment(text)
        return self._encode_segments(text)

    def _encode_segments(self, text: str) -> list[int]:
        output: list[int] = []
        known = self._segments
        for segment in self._boundaries.split(text):
            ids = known.get(segment)
            if ids is None:
                ids = self._encode_segment(segment)
                if len(segment) <= _CACHED_CHARACTERS:
                    if len(known) >= _CACHED_SEGMENTS:
                        known.clear()
                    known[segment] = ids
            output += ids
        return output

    @functools.cached_property
    def _boundaries(self) -> re.Pattern[str]:
        """Matches the empty text before each U+2581 that no merge can join with what is before it."""
        separator = b"\xff"
        before_marks = separator.join(self._vocabulary.pieces).split(_MARK)[:-1]
        tails = {part[-4:] for part in before_marks}
        # An empty part lies between two marks, or at the very start, where the mark is the first of its piece.
        joining = {SPACE_MARK} if b"" in tails else set()
        for tail in tails:
            last = tail.decode("utf-8", "replace")[-1:]
            if not tail.endswith(separator):
                joining.add(last)
        members = "".join(re.escape(character) for character in sorted(joining) if character)
        return re.compile(f"(?<![{members}])(?={SPACE_MARK})" if members else f"(?={SPACE_MARK})")

    def _priority(self, left: bytes, right: bytes) -> float | None:
        token = self._ids.get(left + right)
        return None if token is None else -self._scores[token]

    def _encode_segment(self, text: str) -> list[int]:
        output = []
        for symbol in merge([character.encode() for character in text], self._priority):
            token = self._ids.get(symbol)
            if token is not None:
                output.append(token)
            else:
                output += [self._byte_token(byte) for byte in symbol]
        return output

    def _byte_token(self, byte: int) -> int:
        for piece in (b"<0x%02X>" % byte, b"%c" % byte):
            token = self._ids.get(piece)
            if token is not None:
                return token
        unknown = self._vocabulary.roles.get("unk")
        if unknown is None:
            raise errors.TokenizerError(f"no token for the byte 0x{byte:02X}, and none for unknown text")
        return unknown
