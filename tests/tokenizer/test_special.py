"""Special tokens in a text."""
from __future__ import annotations

import numpy as np

from ggblock.tokenizer.special import SpecialTokens
from ggblock.tokenizer.vocabulary import CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Vocabulary


def vocabulary(**tokens: int) -> Vocabulary:
    pieces = [text.encode() for text in tokens]
    ids = {piece: index for index, piece in enumerate(pieces)}
    return Vocabulary("gpt2", pieces, ids, np.array(list(tokens.values()), np.uint8), [], {}, frozenset())


def test_longest_first_wherever_it_is() -> None:
    special = SpecialTokens(vocabulary(**{"<a>": CONTROL, "b<a>c": CONTROL, "x": NORMAL}))
    assert special.partition("1<a>2b<a>c3", True) == ["1", 0, "2", 1, "3"]


def test_order_is_by_length_not_from_left_to_right() -> None:
    special = SpecialTokens(vocabulary(abc=CONTROL, cdefg=CONTROL))
    assert special.partition("abcdefg", True) == ["ab", 1]


def test_hidden_ones_only_on_request() -> None:
    special = SpecialTokens(vocabulary(**{"<c>": CONTROL, "<u>": UNKNOWN, "<d>": USER_DEFINED}))
    assert special.partition("<c><u><d>", False) == ["<c><u>", 2]
    assert special.partition("<c><u><d>", True) == [0, 1, 2]


def test_white_space_is_swallowed_where_asked() -> None:
    tokens = vocabulary(**{"<m>": CONTROL, "<n>": CONTROL})
    special = SpecialTokens(tokens, strip_before=frozenset([0]), strip_after=frozenset([1]))
    assert special.partition("a \n<m> b <n>\t c", True) == ["a", 0, " b ", 1, "c"]
    assert special.partition(" <m><n> ", True) == [0, 1]


def test_nothing_to_find() -> None:
    special = SpecialTokens(vocabulary(**{"<m>": CONTROL}))
    assert special.partition("", True) == []
    assert special.partition("<m", True) == ["<m"]
