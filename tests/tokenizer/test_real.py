"""The two real vocabularies against llama.cpp's ids and texts (judgement 2 of the first issue)."""
from __future__ import annotations

import sys
import time
from pathlib import Path
from subprocess import run

import pytest

import ggblock
from ggblock.tokenizer import Tokenizer
from ggblock.tokenizer.bpe import BYTE_SYMBOLS

from .golden_files import golden

MODELS = {"smollm2": "smollm2_path", "gemma3": "gemma3_path"}


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def path(name: str, request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(MODELS[name])
    return found


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> Tokenizer:
    return ggblock.load_tokenizer(path)


def test_ids_equal_llama_cpp(name: str, tokenizer: Tokenizer) -> None:
    lines, expected = golden("lines"), golden(name)
    assert len(lines) == len(expected["plain"]) == len(expected["parsed"]) == 2600
    wrong = [
        line
        for line, plain, parsed in zip(lines, expected["plain"], expected["parsed"], strict=True)
        if tokenizer.tokenize(line) != plain
        or tokenizer.tokenize(line, add_special=False, parse_special=True) != parsed
    ]
    assert wrong == []


def test_texts_equal_llama_cpp(name: str, tokenizer: Tokenizer) -> None:
    expected = golden(name)
    for ids, text in zip(expected["parsed"], expected["text"], strict=True):
        assert tokenizer.detokenize(ids) == text


def test_text_comes_back(name: str, tokenizer: Tokenizer) -> None:
    lines = golden("lines")
    if name == "smollm2":  # its vocabulary has no token for some bytes; llama.cpp leaves them out too
        known = {byte for byte, symbol in enumerate(BYTE_SYMBOLS) if tokenizer.token_id(symbol) is not None}
        assert set(range(256)) - known and known.issuperset(b"Hello \n")
        lines = [line for line in lines if known.issuperset(line.encode())]
        assert len(lines) > 1500
    else:
        lines = [line for line in lines if "\u2581" not in line]  # which stands for a space in this vocabulary
    for line in lines:
        ids = tokenizer.tokenize(line)
        assert tokenizer.detokenize(ids) == line
        stream = tokenizer.stream()
        assert "".join([*(stream.push(token) for token in ids), stream.flush()]) == line


def test_end_tokens_equal_llama_cpp(name: str, tokenizer: Tokenizer) -> None:
    assert sorted(tokenizer.eog_ids) == golden(name)["eog"]


def test_roles(name: str, tokenizer: Tokenizer) -> None:
    roles = {"smollm2": (49152, 1, 2, False), "gemma3": (262144, 2, 1, True)}
    assert (tokenizer.n_vocab, tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos) == roles[name]
    assert tokenizer.bos_id is not None and tokenizer.is_special(tokenizer.bos_id)
    assert tokenizer.detokenize([tokenizer.bos_id]) == ""
    assert tokenizer.detokenize([tokenizer.bos_id], special=True) == tokenizer.token_text(tokenizer.bos_id)


def test_repeated_and_long_texts(tokenizer: Tokenizer) -> None:
    lines = [line for line in golden("lines")[:800] if line.isprintable() and "  " not in line and line.isascii()]
    text = "\n".join(lines * 2)
    ids = tokenizer.tokenize(text)
    assert tokenizer.tokenize(text) == ids
    assert tokenizer.detokenize(ids) == text


def test_loading_and_long_texts_are_quick(path: Path) -> None:
    """Processor time, the least of three, so that a busy machine does not matter, nor one whose neighbour uses the
    core's other thread meanwhile; the bounds are several times what was measured.

    Measured on a Zen 5: SmolLM2 0.05 s and gemma 0.13 s to load; 100 kB of prose in 0.08 s and 0.25 s.
    """
    text = " ".join(line for line in golden("lines") if line.isascii() and line.isprintable())
    text = (text * (100_000 // len(text) + 1))[:100_000]
    loading, reading = [], []
    for _ in range(3):
        start = time.process_time()
        tokenizer = ggblock.load_tokenizer(path)
        loaded = time.process_time()
        tokenizer.tokenize(text)
        loading.append(loaded - start)
        reading.append(time.process_time() - loaded)
    assert min(loading) < 0.5
    assert min(reading) < 1.0


def test_no_numba_and_no_jinja(path: Path) -> None:
    program = (
        "import sys, ggblock\n"
        f"ggblock.load_tokenizer({str(path)!r}).tokenize('Hi')\n"
        "print([m for m in ('numba', 'llvmlite', 'torch', 'jinja2', 'tokenizers') if m in sys.modules])"
    )
    result = run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "[]"
