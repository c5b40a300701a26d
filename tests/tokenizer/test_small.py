"""Small vocabularies that show every cut, against llama.cpp's ids: each pre-tokenizer, each switch, each kind."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ggblock
from ggblock.format.metadata import Typed
from ggblock.format.writer import GgufWriter
from ggblock.tokenizer import Tokenizer, from_metadata

from .golden_files import golden

REQUIRED = (
    "default gpt-2 llama-bpe qwen2 qwen35 smollm deepseek-llm deepseek-coder falcon starcoder refact command-r mpt"
    " tekken gpt-4o"
).split()
CASES = golden("small")["cases"]


def case_name(case: dict[str, Any]) -> str:
    changes = ",".join(f"{key.split('.')[-1]}={value}" for key, value in case["changes"].items())
    return f"{case['vocabulary']}[{changes}]"


def tokenizer_of(case: dict[str, Any]) -> Tokenizer:
    return from_metadata({**golden("small")["vocabularies"][case["vocabulary"]], **case["changes"]})


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_ids_equal_llama_cpp(case: dict[str, Any]) -> None:
    tokenizer = tokenizer_of(case)
    wrong = [
        line
        for line, plain, parsed in zip(golden("small")["lines"], case["plain"], case["parsed"], strict=True)
        if tokenizer.tokenize(line) != plain or tokenizer.tokenize(line, False, True) != parsed
    ]
    assert wrong == []
    assert sorted(tokenizer.eog_ids) == case["eog"]


def test_every_required_pre_tokenizer_has_a_case() -> None:
    assert set(REQUIRED) <= {case["changes"].get("tokenizer.ggml.pre") for case in CASES}


def test_cases_tell_the_pre_tokenizers_apart() -> None:
    """Golden ids could not fail if the vocabulary did not show the cuts: the families differ from each other."""
    families = ["default", "gpt-2", "llama-bpe", "qwen2", "qwen35", "smollm", "deepseek-llm", "deepseek-coder",
                "deepseek-v3", "falcon", "tekken", "gpt-4o"]  # fmt: skip
    ids = {case["changes"].get("tokenizer.ggml.pre"): str(case["plain"]) for case in CASES if len(case["changes"]) == 1}
    assert len({ids[name] for name in families}) == len(families)


@pytest.mark.parametrize("vocabulary", ["byte_pairs", "pieces", "word_pieces"])
def test_a_file_with_nothing_but_a_vocabulary(vocabulary: str, tmp_path: Path) -> None:
    metadata: dict[str, object] = dict(golden("small")["vocabularies"][vocabulary])
    if vocabulary == "byte_pairs":
        metadata["tokenizer.ggml.pre"] = "gpt-2"
    metadata["tokenizer.ggml.token_type"] = Typed("i32[]", metadata["tokenizer.ggml.token_type"])
    path = tmp_path / "vocabulary.gguf"
    with GgufWriter(path, metadata, []):
        pass
    tokenizer = ggblock.load_tokenizer(path)
    changes = {"tokenizer.ggml.pre": "gpt-2"} if vocabulary == "byte_pairs" else {}
    case = next(case for case in CASES if case["vocabulary"] == vocabulary and case["changes"] == changes)
    path.unlink()  # the tokenizer has all it needs, and the file is closed, also on Windows
    for line, ids in zip(golden("small")["lines"][:50], case["plain"], strict=False):
        assert tokenizer.tokenize(line) == ids
