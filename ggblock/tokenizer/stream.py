"""Turning tokens into text one at a time."""
from __future__ import annotations

import codecs
from collections.abc import Callable


class TokenStream:
    """Text of tokens as they come, in whole characters: a character that spans tokens appears with its last one.

    Bytes that are no UTF-8 become U+FFFD as soon as that is certain.
    """

    def __init__(self, piece: Callable[[int], bytes]) -> None:
        self._piece = piece
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that ``token`` completes; often empty.

        Raises `errors.TokenizerError` for an id outside the vocabulary.
        """
        return self._decoder.decode(self._piece(token))

    def flush(self) -> str:
        """What is left of an unfinished character, as U+FFFD; the stream can be used again."""
        rest = self._decoder.decode(b"", True)
        self._decoder.reset()
        return rest
