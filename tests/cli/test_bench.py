"""``ggblock bench`` from outside."""
from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.tiny_models import is_one_line, run, run_here
from tests.inspect import schemas


def test_json_has_the_documented_shape(models: Path) -> None:
    done = run("bench", models / "text.gguf", "-p", "8,16", "-n", 4, "-d", 0, "-d", 32, "-r", 2, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    schemas.check(document, "bench")
    names = [entry["test"] for entry in document["results"]]
    assert names == ["pp8", "pp16", "tg4", "pp8@d32", "pp16@d32", "tg4@d32"]
    for entry in document["results"]:
        assert set(entry) == {"test", "tokens_per_s", "stddev"}
        assert entry["tokens_per_s"] > 0 and entry["stddev"] >= 0


def test_each_number_of_threads_is_told(models: Path) -> None:
    done = run("bench", models / "text.gguf", "-p", 8, "-n", 0, "-t", "1,2", "-r", 1, "--json")
    document = json.loads(done.stdout)
    schemas.check(document, "bench")
    assert [(e["test"], e["threads"], e["stddev"]) for e in document["results"]] == [
        ("pp8", 1, 0.0),
        ("pp8", 2, 0.0),
    ]


def test_all_logits_may_be_asked_for(models: Path) -> None:
    done = run("bench", models / "text.gguf", "-p", 0, "-n", 4, "-r", 1, "--all-logits", "--json")
    document = json.loads(done.stdout)
    schemas.check(document, "bench")
    assert [entry["test"] for entry in document["results"]] == ["tg4"]


def test_a_person_gets_a_line_a_test(models: Path) -> None:
    done = run("bench", models / "no_vocabulary.gguf", "-p", 8, "-n", 4, "-r", 2)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"pp8 +[\d.]+ ± [\d.]+ tokens/s\ntg4 +[\d.]+ ± [\d.]+ tokens/s\n", done.stdout)


@pytest.mark.parametrize(
    "arguments", [("-p", "0", "-n", "0"), ("-p", "x"), ("-p", "8,"), ("-d", "-1"), ("-t", "0"), ("-r", "0")]
)
def test_wrong_usage(models: Path, arguments: tuple[str, ...]) -> None:
    done = run_here("bench", models / "text.gguf", *arguments)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr


def test_a_damaged_file_is_one_line(models: Path) -> None:
    done = run_here("bench", models / "truncated.gguf")
    assert done.returncode == 1 and is_one_line(done.stderr) and done.stdout == ""
