"""The group `ggblock`: its table, its exit codes, and the one line that every failure becomes."""
from __future__ import annotations

import errno
import json
import os
import re
import resource
import subprocess
import sys
import types
import warnings
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ggblock import __version__
from ggblock.cli import common
from ggblock.cli.commands import COMMANDS
from ggblock.cli.main import main
from ggblock.errors import GgblockError, Truncated
from tests.inspect import schemas

ROOT = Path(__file__).resolve().parents[2]


def ggblock(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the real command in its own process."""
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", "ggblock", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def test_the_table_and_the_files_agree() -> None:
    folder = ROOT / "ggblock" / "cli"
    files = {path.stem for path in folder.glob("*.py") if "\ndef command(" in path.read_text(encoding="utf-8")}
    assert files == set(COMMANDS)
    assert [module for module, _ in COMMANDS.values()] == [f"ggblock.cli.{name}" for name in COMMANDS]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_an_example_and_json(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output and f"ggblock {name}" in result.output.partition("Example")[2]
    assert "--json" in result.output


def test_the_json_of_every_command_is_documented_and_tested() -> None:
    """A schema for each command, listed in the table, and a test that checks real output against it."""
    names = {path.name.removesuffix(".schema.json") for path in schemas.FOLDER.glob("*.schema.json")}
    table = (schemas.FOLDER / "README.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| `ggblock (\w+)[^`]*` \| \[(\w+)\]", table, re.MULTILINE))
    assert set(listed) == set(COMMANDS)
    assert set(re.findall(r"\]\((\w+)\.schema\.json\)", table)) == names
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    checked = set(re.findall(r"schemas\.check\(.*?\"(\w+)\"\)", tests))
    assert checked >= names, names - checked


def test_the_catalog_as_json() -> None:
    document = json.loads(ggblock("pull", "--list", "--json").stdout)
    schemas.check(document, "catalog")
    assert {each["name"] for each in document} >= {"smollm2-135m-instruct"}


def test_help_names_every_command_and_is_fast() -> None:
    ggblock("--help")  # the first one may compile the sources to bytecode
    times = []
    for _ in range(3):  # processor time, because other processes may keep the machine busy
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = ggblock("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert result.returncode == 0 and result.stderr == ""
    for name, (_, short_help) in COMMANDS.items():
        assert name in result.stdout and short_help.split()[0] in result.stdout
    assert min(times) < 0.25


def test_version() -> None:
    result = ggblock("--version")
    assert (result.returncode, result.stdout) == (0, f"ggblock {__version__}\n")


@pytest.mark.parametrize("arguments", [["no-such-command"], ["pull", "--no-such-option"], ["pull"], ["pull", "a", "b"]])
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    result = ggblock(*arguments)
    assert result.returncode == 2 and result.stdout == ""
    assert "Error" in result.stderr and "Traceback" not in result.stderr


def test_a_named_failure_is_1_and_one_line() -> None:
    result = ggblock("pull", "no-such-model")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("ggblock: no-such-model: ") and result.stderr.count("\n") == 1


def invoke(monkeypatch: pytest.MonkeyPatch, action: object) -> click.testing.Result:
    """Invoke a command that calls ``action``, through the real group."""
    module = types.ModuleType("ggblock_test_command")
    module.command = click.command()(lambda: action())  # type: ignore[attr-defined, operator]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(COMMANDS, "act", (module.__name__, "Act."))
    return CliRunner().invoke(main, ["act"])


def raising(error: BaseException) -> object:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (GgblockError("two\nlines", file="m.gguf"), 1, "ggblock: m.gguf: two\\nlines\n"),
        (
            Truncated("the header", file="m.gguf", offset_bytes=4, expected="8 bytes", actual=3),
            1,
            "ggblock: m.gguf: the header (byte 4; expected 8 bytes; found 3)\n",
        ),
        (KeyboardInterrupt(), 130, "ggblock: interrupted\n"),
        (PermissionError(errno.EACCES, "Permission denied", "m.gguf"), 1, "ggblock: m.gguf: Permission denied\n"),
        (OSError("odd"), 1, "ggblock: odd\n"),
        (MemoryError(), 1, "ggblock: out of memory\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, ""),
    ],
)
def test_failures_become_one_line(
    error: BaseException, exit_code: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = invoke(monkeypatch, raising(error))
    assert (result.exit_code, result.stdout, result.stderr) == (exit_code, "", line)


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(invoke(monkeypatch, raising(KeyError("mistake"))).exception, KeyError)


STRUCK = '''
import signal, sys, time, types, click
from ggblock.cli.commands import COMMANDS
from ggblock.cli.main import main

class Constructed:
    def __init__(self):
        signal.raise_signal(signal.SIGINT)
        self.pointer = None
    def __del__(self):
        self.pointer

class Dropped:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def drop():
    Dropped()
    for _ in range(1000):
        time.sleep(0.01)
    click.echo("went on")

def act():
    {"constructor": Constructed, "destructor": drop}[sys.argv.pop()]()

module = sys.modules["acts"] = types.ModuleType("acts")
module.command = click.command()(act)
COMMANDS["act"] = ("acts", "Act.")
signal.signal(signal.SIGINT, signal.default_int_handler)
main(["act"])
'''


@pytest.mark.parametrize("where", ["constructor", "destructor"])
def test_an_interrupt_within_a_library_is_one_line(where: str) -> None:
    result = subprocess.run([sys.executable, "-c", STRUCK, where], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "ggblock: interrupted\n")


def test_warnings_become_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # put back afterwards
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = invoke(monkeypatch, lambda: warnings.warn("an odd\nthing", stacklevel=2))
    assert (result.exit_code, result.stderr) == (0, "ggblock: warning: an odd thing\n")


def test_a_reader_that_leaves_is_no_failure_to_talk_about() -> None:
    program = "from ggblock.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "pull", "--list"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 1


def test_a_terminal_that_lacks_a_character_shows_a_question_mark() -> None:
    program = "import click; from ggblock.cli.main import main; main.callback(); click.echo('caf\\u00e9 \\u2603')"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        timeout=60,
    )
    assert result.stdout == b"caf\xe9 ?\n", result.stderr


def test_json_is_one_document_in_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    common.emit_json({"text": "naïve ☃", "n": 1})
    assert json.loads(capsys.readouterr().out) == {"text": "naïve ☃", "n": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        common.emit_json(float("nan"))


def test_progress_is_shown_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with common.progress_bar("fetching") as progress:
        assert progress is None  # pytest's stderr is no terminal


def test_progress_on_a_terminal_is_on_stderr() -> None:
    import pty

    program = (
        "from ggblock.cli.common import progress_bar\n"
        "with progress_bar('fetching tiny') as progress:\n"
        "    for n in range(0, 101, 10): progress(n * 1000, 100_000)\n"
        "print('the end')\n"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # the other side has closed
            break
        if not chunk:
            break
        seen += chunk
    os.close(ours)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, b"the end\n")
    assert b"fetching tiny" in seen and b"100.0/100.0 kB" in seen
