"""README.md is true: its commands exist, its example runs, its links lead somewhere."""
from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from ggblock.cli.commands import COMMANDS
from ggblock.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_first_two_commands_run_the_main_job_and_the_tests() -> None:
    first, second = blocks("sh")[:2]
    assert first.count("\n") == second.count("\n") == 1
    assert re.search(r"pip install \. && \S+/ggblock run smollm2-135m-instruct -p ", first)
    assert re.search(r"pip install -e '\.\[test\]' && \S+/python -m pytest$", second.strip())


def test_ci_runs_the_second_command_as_it_stands_here() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "README.md" in script and "n == 2" in script


def test_every_command_is_in_the_table() -> None:
    assert set(re.findall(r"^\| `ggblock (\w+)", README, re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize("line", re.findall(r"`(ggblock [^`\n]+)`", README))
def test_every_option_that_is_named_exists(line: str) -> None:
    _, name, *rest = line.split()
    shown = CliRunner().invoke(main, [name, "--help"]).output
    for option in (word for word in rest if word.startswith("-")):
        assert re.search(rf"(?<![\w-]){re.escape(option)}\b", shown), f"{option} is not in ggblock {name} --help"


def test_the_python_example_runs(smollm2_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})
    *answer, tensor = capsys.readouterr().out.splitlines()
    assert re.search(r"\w.*\(\d+, 49152\)$", " ".join(answer))
    assert tensor == "llama (576, 576)"


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


def test_it_fits_on_a_page() -> None:
    assert len(README.splitlines()) <= 90 and max(map(len, README.splitlines())) <= 130
