"""Cutting text into words: properties that hold for every pre-tokenizer, and what single ones are known for."""
from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggblock.tokenizer import unicode_classes
from ggblock.tokenizer.pretokenize import PRE_TOKENIZERS, split

from .golden_files import golden

TEXTS = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \n\r\t'12aBé好\u3000\u0301")))


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_pieces_give_the_text_back(name: str) -> None:
    for line in golden("small")["lines"]:
        pieces = split(line, PRE_TOKENIZERS[name].patterns)
        assert "".join(pieces) == line
        assert all(pieces)


@settings(deadline=None)
@given(TEXTS, st.sampled_from(sorted(PRE_TOKENIZERS)))
def test_pieces_give_any_text_back(text: str, name: str) -> None:
    pieces = split(text, PRE_TOKENIZERS[name].patterns)
    assert "".join(pieces) == text
    assert all(pieces)


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("gpt-2", "it's  12 x", ["it", "'s", " ", " 12", " x"]),
        ("llama-bpe", "IT'S 12345 x\n\n y", ["IT", "'S", " ", "123", "45", " x", "\n\n", " y"]),
        ("qwen2", "a12", ["a", "1", "2"]),
        ("smollm", "a12 3", ["a", "1", "2", " ", "3"]),
        ("falcon", "1234...", ["123", "4", "..."]),
        ("tekken", "camelCase HTTPServer", ["camel", "Case", " HTTPServer"]),
        ("gpt-4o", "we'll", ["we'll"]),
        ("qwen35", "e\u0301a", ["e\u0301a"]),
        ("qwen2", "e\u0301a", ["e", "\u0301a"]),
        ("deepseek-llm", "好a \n", ["好", "a", " ", "\n"]),
        ("superbpe", "1234567", ["1", "234", "567"]),
        ("default", "", []),
    ],
)
def test_known_cuts(name: str, text: str, pieces: list[str]) -> None:
    assert split(text, PRE_TOKENIZERS[name].patterns) == pieces


def test_the_table_of_categories_agrees_with_python() -> None:
    """Two versions of Unicode agree on nearly every character that both know."""
    letters = [(unicode_classes.category(c), unicodedata.category(chr(c))[0]) for c in range(0x20000)]
    both = [(ours, theirs) for ours, theirs in letters if ours != "X" and theirs != "C"]
    assert len(both) > 60_000
    assert sum(ours != theirs for ours, theirs in both) <= 20


def test_white_space_is_unicodes() -> None:
    ours = {chr(c) for c in unicode_classes.WHITESPACE}
    assert ours == {chr(c) for c in range(0x10000) if chr(c).isspace()} - set("\x1c\x1d\x1e\x1f")


@settings(deadline=None)
@given(TEXTS)
def test_collapsing_keeps_positions(text: str) -> None:
    for collapsed in (unicode_classes.collapse(text), unicode_classes.collapse_spaces(text)):
        assert len(collapsed) == len(text)
        assert all(ours == theirs for ours, theirs in zip(collapsed, text, strict=True) if theirs.isascii())


def test_a_long_hard_text_takes_little_time() -> None:
    """No pattern may go back over what it has read again and again."""
    for name in PRE_TOKENIZERS:
        for text in (" " * 9_999, "A" * 9_999, "好" * 9_999, " a" * 5_000, "!" * 9_999, "\n " * 5_000):
            assert "".join(split(text, PRE_TOKENIZERS[name].patterns)) == text
