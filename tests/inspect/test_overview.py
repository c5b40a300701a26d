"""The facts and notes of a file."""
from __future__ import annotations

from pathlib import Path

import pytest

import ggblock
from ggblock.inspect import overview, words
from ggblock.inspect.consistency import contradictions
from tests.format import craft
from tests.inspect import crafted


def facts_of(path: Path) -> overview.Overview:
    with ggblock.open(path) as file:
        return overview.overview(file)


def codes(path: Path) -> set[str]:
    return {note.code for note in facts_of(path).notes}


def test_a_plain_file(tmp_path: Path) -> None:
    facts = facts_of(crafted.write(tmp_path / "m.gguf"))
    assert (facts.architecture, facts.n_layers, facts.context, facts.file_type) == ("llama", 2, 128, "Q4_K_M")
    assert facts.n_weights == sum(each.n_weights for each in facts.types) and facts.n_tensors == 8
    assert facts.bits_per_weight == pytest.approx(8 * facts.tensor_bytes / facts.n_weights)
    assert facts.special == {"bos": 1} and facts.n_tokens == 64 and not facts.has_checksums
    assert {note.code for note in facts.notes} == {"tied_output", "no_template"}


def test_real_files(smollm2_path: Path, gemma3_path: Path) -> None:
    small = facts_of(smollm2_path)
    assert (small.n_weights, small.n_tensors, small.architecture) == (134_515_008, 272, "llama")
    assert small.bits_per_weight == pytest.approx(5.744, abs=5e-4)
    gemma = facts_of(gemma3_path)
    fallback = next(note for note in gemma.notes if note.code == "fallback")
    assert "91 tensors of Q5_0, Q8_0" in fallback.text and "640" in fallback.text


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"general.alignment": 64}, "alignment"),
        ({"general.architecture": None}, "missing_key"),
        ({"llama.block_count": 3}, "contradiction"),
        ({"llama.embedding_length": 512}, "contradiction"),
        ({"llama.feed_forward_length": 500}, "contradiction"),
        ({"llama.attention.head_count": 4, "llama.attention.key_length": 100}, "contradiction"),
        ({"tokenizer.ggml.tokens": ["a"] * 65}, "contradiction"),
        ({"tokenizer.ggml.tokens": ["a"] * 60}, "padded_vocabulary"),
        ({"tokenizer.ggml.bos_token_id": 64}, "contradiction"),
        ({"tokenizer.ggml.model": None}, "missing_key"),
        ({"general.quantization_version": None}, "missing_key"),
        ({"llama.vocab_size": 10}, "contradiction"),
        ({"odd\x07key": "x"}, "odd_name"),
    ],
)
def test_notes(changes: dict[str, object], code: str, tmp_path: Path) -> None:
    plain = codes(crafted.write(tmp_path / "plain.gguf"))
    assert code not in plain
    metadata = {key: value for key, value in {**crafted.METADATA, **changes}.items() if value is not None}
    assert code in codes(crafted.write(tmp_path / "m.gguf", metadata))


def test_gaps_and_an_empty_file(tmp_path: Path) -> None:
    path = crafted.write(tmp_path / "m.gguf")
    with path.open("ab") as stream:
        stream.write(bytes(100))
    assert "gap" in codes(path)
    (tmp_path / "none.gguf").write_bytes(craft.container([]))
    assert "no_tensors" in codes(tmp_path / "none.gguf")


def test_the_fallback_note_needs_a_k_type_in_sight(tmp_path: Path) -> None:
    short = [("a.weight", "q5_0", (4, 320)), ("b.weight", "q4_k", (4, 256))]
    assert "fallback" in codes(crafted.write(tmp_path / "k.gguf", {"general.architecture": "x"}, short))
    assert "fallback" not in codes(crafted.write(tmp_path / "q.gguf", {"general.architecture": "x"}, short[:1]))


def test_contradictions_say_what_they_expect(tmp_path: Path) -> None:
    path = crafted.write(tmp_path / "m.gguf", {**crafted.METADATA, "llama.block_count": 7})
    with ggblock.open(path) as file:
        (found,) = contradictions(file)
    assert (found.where, found.expected, found.actual) == ("llama.block_count", 2, 7)


def test_words() -> None:
    assert words.count(134515008) == "134.5 M" and words.count(576) == "576"
    assert words.size(98_362_432) == "98.36 MB"
    assert words.readable("a\nb\udcff") == "a\\nb\\xff"
    assert (words.real(0.1), words.real(1e-9), words.real(float("nan"))) == ("0.1", "1e-9", "nan")
    assert words.json_number(float("inf")) == "inf" and words.shorten("abcdef", 4) == "abc…"
