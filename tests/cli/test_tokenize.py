"""``ggblock tokenize`` from outside."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gguf
import pytest

from tests.cli import tiny_models
from tests.cli.tiny_models import is_one_line, run
from tests.inspect import schemas
from tests.oracle import tiny


@pytest.fixture(scope="module")
def vocabulary_only(models: Path) -> Path:
    path = models / "vocabulary_only.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    vocabulary = tiny.vocabulary("gpt2")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_types(vocabulary["token_type"])
    writer.add_token_merges(vocabulary["merges"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("name", ["text.gguf", "vocabulary_only.gguf"])
def test_ids_and_pieces(models: Path, vocabulary_only: Path, name: str) -> None:
    done = run("tokenize", models / name, "the <|im_end|> é", "--parse-special", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    schemas.check(document, "tokenize")
    tokens = tiny.vocabulary("gpt2")["tokens"]
    assert document["pieces"] == ["t", "he", " ", "<|im_end|>", " ", "\\xc3", "\\xa9"]
    assert [tokens[i] for i in document["ids"]] == ["t", "he", "Ġ", "<|im_end|>", "Ġ", "Ã", "©"]


def test_a_person_gets_a_line_a_token(models: Path) -> None:
    done = run("tokenize", models / "text.gguf", "-", stdin="he\n")
    assert done.returncode == 0, done.stderr
    tokens = tiny.vocabulary("gpt2")["tokens"]
    assert done.stdout == f'{tokens.index("he"):8d}  "he"\n{tokens.index("Ċ"):8d}  "\\n"\n'


def test_special_tokens_are_text_unless_asked_for(models: Path) -> None:
    document = json.loads(run("tokenize", models / "text.gguf", "<|im_end|>", "--json").stdout)
    assert 2 not in document["ids"] and "".join(document["pieces"]) == "<|im_end|>"


def test_a_file_without_vocabulary_is_one_line(models: Path) -> None:
    done = run("tokenize", models / "no_vocabulary.gguf", "text")
    assert done.returncode == 1 and is_one_line(done.stderr) and "no_vocabulary.gguf" in done.stderr


def test_a_lone_surrogate_is_refused(models: Path) -> None:
    done = subprocess.run(
        [*tiny_models.command("tokenize", models / "text.gguf"), b"a\xff"],
        capture_output=True, env=tiny_models.environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 1 and is_one_line(done.stderr.decode())


def test_no_engine_is_imported(models: Path) -> None:
    program = (
        "import sys\n"
        "from ggblock.cli.main import main\n"
        f"main(['tokenize', {str(models / 'text.gguf')!r}, 'the rain'], standalone_mode=False)\n"
        "print([m for m in ('numba', 'llvmlite', 'torch') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, env=tiny_models.environment(), text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
