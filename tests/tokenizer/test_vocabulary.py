"""What metadata may say, leave out or get wrong."""
from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ggblock
from ggblock import errors
from ggblock.format.writer import GgufWriter
from ggblock.tokenizer import from_metadata
from ggblock.tokenizer.bpe import BYTE_SYMBOLS
from ggblock.tokenizer.vocabulary import CONTROL, NORMAL, USER_DEFINED, read

KEY = "tokenizer.ggml."
BYTES = BYTE_SYMBOLS


def byte_level(**changes: object) -> dict[str, object]:
    """A vocabulary of 256 bytes and whatever ``changes`` say; a None takes a key away."""
    metadata: dict[str, object] = {
        KEY + "model": "gpt2",
        KEY + "pre": "gpt-2",
        KEY + "tokens": [*BYTES, "ab", "<|im_start|>", "<|im_end|>", "<|endoftext|>"],
        KEY + "token_type": [1] * 257 + [3] * 3,
        KEY + "merges": ["a b"],
    }
    for name, value in changes.items():
        if value is None:
            del metadata[KEY + name]
        else:
            metadata[KEY + name] = value
    return metadata


def scored(tokens: list[str], scores: list[float], types: list[int], **changes: object) -> dict[str, object]:
    metadata: dict[str, object] = {
        KEY + "model": "llama", KEY + "tokens": tokens, KEY + "scores": scores, KEY + "token_type": types,
    }  # fmt: skip
    metadata.update((KEY + name, value) for name, value in changes.items())
    return metadata


@pytest.mark.parametrize(
    ("metadata", "error", "word"),
    [
        ({}, errors.MissingVocabulary, "no tokenizer"),
        ({KEY + "model": "no_vocab"}, errors.MissingVocabulary, "no tokenizer"),
        (byte_level(tokens=None), errors.MissingVocabulary, "no tokens"),
        (byte_level(tokens=[]), errors.MissingVocabulary, "no tokens"),
        (byte_level(merges=None), errors.MissingVocabulary, "merges"),
        (byte_level(model="t5"), errors.TokenizerError, "t5"),
        (byte_level(model=7), errors.WrongKeyKind, "model"),
        (byte_level(tokens=[1, 2]), errors.WrongKeyKind, "tokens"),
        (byte_level(tokens="abc"), errors.WrongKeyKind, "tokens"),
        (byte_level(merges=[b"a"]), errors.WrongKeyKind, "merges"),
        (byte_level(pre=1), errors.WrongKeyKind, "pre"),
        (byte_level(bos_token_id="x"), errors.WrongKeyKind, "bos_token_id"),
        (byte_level(bos_token_id=True), errors.WrongKeyKind, "bos_token_id"),
        (byte_level(add_bos_token=1), errors.WrongKeyKind, "add_bos_token"),
        (byte_level(token_type=[1]), errors.TokenizerError, "fewer entries"),
        (byte_level(token_type=["a"]), errors.WrongKeyKind, "token_type"),
        (byte_level(token_type=3), errors.WrongKeyKind, "token_type"),
        (scored(["a"], [], [1]), errors.TokenizerError, "fewer entries"),
    ],
)
def test_faults_have_names(metadata: dict[str, object], error: type[errors.GgblockError], word: str) -> None:
    with pytest.raises(error) as caught:
        from_metadata(metadata)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_a_vocabulary_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    with GgufWriter(path, {"general.architecture": "llama"}, []):
        pass
    with pytest.raises(errors.MissingVocabulary, match="empty.gguf"):
        ggblock.load_tokenizer(path)


def test_an_unknown_pre_tokenizer_warns_and_the_default_is_used() -> None:
    with pytest.warns(UserWarning, match="'tomorrow'.*'default' is used"):
        tokenizer = from_metadata(byte_level(pre="tomorrow"))
    default = from_metadata(byte_level(pre="default"))
    assert tokenizer.tokenize("1234 it's...") == default.tokenize("1234 it's...")
    with pytest.warns(UserWarning, match="names no pre-tokenizer"):
        from_metadata(byte_level(pre=None))


def test_known_names_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_metadata(byte_level())
        from_metadata(scored(["a"], [0.0], [1]))


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "ok \udc80"])
def test_lone_surrogates_are_refused(text: str) -> None:
    with pytest.raises(errors.InvalidText, match="surrogate"):
        from_metadata(byte_level()).tokenize(text)


@pytest.mark.parametrize("token", [-1, 260, 10**9])
def test_ids_outside_the_vocabulary_are_refused(token: int) -> None:
    tokenizer = from_metadata(byte_level())
    for call in (tokenizer.piece, tokenizer.token_text, tokenizer.is_special, tokenizer.stream().push):
        with pytest.raises(errors.TokenizerError, match="no such token"):
            call(token)
    with pytest.raises(errors.TokenizerError):
        tokenizer.detokenize([1, token])


def test_special_tokens_are_parsed_only_on_request() -> None:
    tokenizer = from_metadata(byte_level())
    text = "<|im_start|>ab"
    assert tokenizer.tokenize(text, parse_special=True) == [257, 256]
    plain = tokenizer.tokenize(text)
    assert 257 not in plain and tokenizer.detokenize(plain) == text
    assert tokenizer.is_special(257) and not tokenizer.is_special(256)
    assert tokenizer.detokenize([257, 256, 258]) == "ab"
    assert tokenizer.detokenize([257, 256, 258], special=True) == "<|im_start|>ab<|im_end|>"
    assert tokenizer.piece(257) == b"<|im_start|>"


def test_bos_and_eos_as_the_file_says() -> None:
    metadata = byte_level(bos_token_id=257, eos_token_id=258, add_bos_token=True, add_eos_token=True)
    tokenizer = from_metadata(metadata)
    assert tokenizer.tokenize("ab") == [257, 256, 258]
    assert tokenizer.tokenize("ab", add_special=False) == [256]
    assert tokenizer.tokenize("") == [257, 258]
    assert from_metadata(byte_level(pre="llama-bpe", bos_token_id=257)).add_bos  # what that family does by default
    assert not from_metadata(byte_level(pre="llama-bpe", add_bos_token=False)).add_bos


def test_ids_of_roles_outside_the_vocabulary_are_ignored() -> None:
    tokenizer = from_metadata(byte_level(bos_token_id=4_000_000_000, eos_token_id=258, add_bos_token=True))
    assert tokenizer.eos_id == 258
    assert tokenizer.bos_id == 11  # llama.cpp's default for this kind
    assert 11 not in tokenizer.eog_ids


def test_end_tokens_are_recognized_by_their_text() -> None:
    tokenizer = from_metadata(byte_level(eos_token_id=256))
    assert tokenizer.eog_ids == {256, 258, 259}
    assert tokenizer.eot_id == 258


def test_gpt_oss_keeps_its_message_end() -> None:
    tokens = [*BYTES, "<|end|>", "<|return|>", "<|call|>", "<|channel|>", "<|endoftext|>"]
    vocabulary = read(byte_level(tokens=tokens, token_type=[1] * 256 + [3] * 5, eos_token_id=257))
    assert vocabulary.end_ids == {257, 258, 260}
    assert [int(vocabulary.bits[token]) for token in (256, 257, 259)] == [USER_DEFINED, CONTROL, USER_DEFINED]


def test_types_beyond_the_known_ones_are_undefined() -> None:
    vocabulary = read(byte_level(token_type=[99, -5, 6, *[1] * 257]))
    assert vocabulary.bits[:4].tolist() == [0, 0, 32, NORMAL]


def test_numpy_and_lists_are_both_taken() -> None:
    types = np.array([1] * 257 + [3] * 3, np.int32)
    assert from_metadata(byte_level(token_type=types)).is_special(257)


def test_a_merge_named_twice_counts_the_first_time() -> None:
    merges = ["a b", "b c", "a b"]
    metadata = byte_level(merges=merges, tokens=[*BYTES, "ab", "bc"], token_type=None)
    assert from_metadata(metadata).tokenize("abc") == [256, BYTES.index("c")]


def test_scores_decide_and_unknown_text_becomes_bytes_or_unknown() -> None:
    tokens = ["<unk>", "▁", "a", "b", "ab", "▁a", "<0xC3>", "<0xA9>"]
    scores = [0.0, -9.0, -9.0, -9.0, -1.0, -2.0, 0.0, 0.0]
    types = [2, 1, 1, 1, 1, 1, 6, 6]
    tokenizer = from_metadata(scored(tokens, scores, types, add_bos_token=False, unknown_token_id=0))
    assert tokenizer.tokenize("ab") == [1, 4]  # "ab" is better than "▁a"
    assert tokenizer.tokenize("é") == [1, 6, 7]
    assert tokenizer.tokenize("z") == [1, 0]
    assert tokenizer.detokenize([1, 6, 7]) == "é"
    assert tokenizer.detokenize([6]) == "\ufffd"
    bare = from_metadata(scored(["a"], [0.0], [1], add_bos_token=False, add_space_prefix=False))
    assert bare.tokenize("a") == [0]


def test_no_way_to_write_a_byte_is_an_error() -> None:
    metadata = scored(["a"], [0.0], [1], add_bos_token=False)
    vocabulary = read(metadata)
    vocabulary.roles.pop("unk")
    from ggblock.tokenizer.spm import ScoreMergeEncoder

    with pytest.raises(errors.TokenizerError, match="0x7A"):
        ScoreMergeEncoder(vocabulary, False).encode("z", True)


@pytest.mark.parametrize("count", [1, 60, 3000])
def test_segments_do_not_change_ids(count: int) -> None:
    """Cutting long text where no merge can cross gives the ids of the text merged whole."""
    from ggblock.tokenizer.spm import ScoreMergeEncoder

    from .golden_files import golden

    vocabulary = read(golden("small")["vocabularies"]["pieces"])
    encoder: Any = ScoreMergeEncoder(vocabulary, True)
    assert "▁" in encoder._boundaries.pattern
    text = " ".join(golden("small")["lines"])[: count * 20].replace(" ", "▁")
    assert encoder._encode_segments(text) == encoder._encode_segment(text)


def test_word_pieces() -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁he", "llo", "▁,", "▁é", "▁e", "▁你", "▁好"]
    metadata: dict[str, object] = {
        KEY + "model": "bert", KEY + "tokens": tokens, KEY + "token_type": [3, 2, 3, 3, *[1] * 7],
        KEY + "bos_token_id": 2, KEY + "seperator_token_id": 3, KEY + "unknown_token_id": 1,
    }  # fmt: skip
    tokenizer = from_metadata(metadata)
    assert tokenizer.tokenize("Hello, HELLO") == [2, 4, 5, 6, 4, 5, 3]
    assert tokenizer.tokenize("é xyz 你好", add_special=False) == [8, 1, 9, 10]
    assert tokenizer.detokenize([2, 4, 5, 6, 4, 5, 3]) == "hello , hello".replace(" ,", ",")
    kept = from_metadata({**metadata, KEY + "normalizer.lowercase": False})
    assert kept.tokenize("é He", add_special=False) == [7, 1]
