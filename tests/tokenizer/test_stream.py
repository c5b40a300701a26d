"""Streams give whole characters and lose nothing."""
from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ggblock.tokenizer.stream import TokenStream


def byte_stream() -> TokenStream:
    return TokenStream(lambda token: bytes([token]))


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_byte_by_byte(text: str) -> None:
    stream = byte_stream()
    parts = [stream.push(byte) for byte in text.encode()]
    assert "".join(parts) + stream.flush() == text
    assert all(len(part) <= 1 for part in parts)


@settings(deadline=None)
@given(st.binary())
def test_bytes_that_are_no_text(data: bytes) -> None:
    stream = byte_stream()
    assert "".join(stream.push(byte) for byte in data) + stream.flush() == data.decode("utf-8", "replace")


def test_a_character_appears_with_its_last_byte() -> None:
    stream = byte_stream()
    assert [stream.push(byte) for byte in "a😀".encode()] == ["a", "", "", "", "😀"]


def test_flushing_an_unfinished_character() -> None:
    stream = byte_stream()
    assert stream.push(0xF0) == ""
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""
    assert stream.push(0x41) == "A"
