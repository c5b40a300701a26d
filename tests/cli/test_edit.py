"""``ggblock edit``, ``ggblock diff`` and ``ggblock completion`` from outside."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from ggblock.cli.commands import COMMANDS
from ggblock.cli.main import main
from tests.inspect import crafted, schemas

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return crafted.write(tmp_path / "m.gguf")


def ggblock(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments], catch_exceptions=False)


def test_edit_then_diff(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    result = ggblock("edit", path, "--set", "general.name=new", "--set", "x.y:f64=1.5", "--remove", "general.file_type",
                     "--rename-tensor", "output_norm.weight=on.weight", "-o", out, "--json")  # fmt: skip
    assert result.exit_code == 0
    schemas.check(json.loads(result.stdout), "edit")
    shown = ggblock("diff", path, out)
    assert shown.exit_code == 1
    assert shown.stdout.splitlines() == [
        "metadata",
        "  ~ general.name: str tiny -> str new",
        "  - general.file_type = u32 15",
        "  + x.y = f64 1.5",
        "tensors",
        "  - output_norm.weight: F32 256, 1024 bytes",
        "  + on.weight: F32 256, 1024 bytes",
        "7 tensors are equal",
    ]
    document = json.loads(ggblock("diff", path, out, "--json").stdout)
    schemas.check(document, "diff")
    assert not document["same"]


def test_diff_of_equal_files_is_0(path: Path, tmp_path: Path) -> None:
    same = Path(shutil.copy(path, tmp_path / "same.gguf"))
    result = ggblock("diff", path, same)
    assert (result.exit_code, result.stdout) == (0, "the same metadata and 8 equal tensors\n")


def test_diff_of_types_and_data(path: Path, tmp_path: Path) -> None:
    tensors = [(n, "q8_0" if n == "blk.0.attn_q.weight" else k, s) for n, k, s in crafted.TENSORS]
    other = crafted.write(tmp_path / "o.gguf", None, tensors)
    shown = ggblock("diff", path, other).stdout
    assert "~ blk.0.attn_q.weight: Q4_K 256 x 256, 36864 bytes -> Q8_0" in shown and "normalised squared error" in shown
    data = bytearray(path.read_bytes())
    data[-1024 - 3] ^= 64
    (tmp_path / "d.gguf").write_bytes(data)
    assert "1 block of IQ4_NL differ, first 4095" in ggblock("diff", path, tmp_path / "d.gguf").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--set", "a=1"], 2, "one of -o OUT and --in-place"),
        (["-o", "x.gguf"], 2, "nothing to change"),
        (["--set", "a=1", "--set", "a=2", "-o", "x.gguf"], 2, "set twice"),
        (["--rename-tensor", "a", "-o", "x.gguf"], 2, "OLD=NEW"),
        (["--remove", "nope", "-o", "x.gguf"], 1, "no such key to remove"),
        (["--set", "general.name=" + "x" * 9999, "--in-place"], 1, "does not fit in its place"),
        (["--set", "llama.block_count=many", "-o", "x.gguf"], 1, "not a value of that kind (expected u32; found many)"),
    ],
)
def test_bad_edits(arguments: list[str], code: int, words: str, path: Path) -> None:
    before = path.read_bytes()
    result = ggblock("edit", path, *arguments)
    assert result.exit_code == code and words in result.stderr and "Traceback" not in result.stderr
    assert path.read_bytes() == before and not Path("x.gguf").exists()


def test_in_place(path: Path) -> None:
    assert ggblock("edit", path, "--set", "general.name=abcd", "--in-place").exit_code == 0
    assert ggblock("dump", path, "--key", "general.name").stdout == "abcd\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    if shell != "bash":  # click asks bash for its version; the others need no shell
        script = ggblock("completion", shell).stdout
        assert "_GGBLOCK_COMPLETE" in script
    document = json.loads(ggblock("completion", shell, "--json").stdout)
    schemas.check(document, "completion")
    assert f"{shell}_complete" in document["script"]


def test_completion_without_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert "fish_complete" in ggblock("completion").stdout
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert ggblock("completion").exit_code == 2


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment in which the command is on the path, as pip's script puts it there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "ggblock"
    script.write_text(f"#!{sys.executable}\nfrom ggblock.cli.main import main\nmain(prog_name='ggblock')\n")
    script.chmod(0o755)
    return {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{folder}:{os.environ['PATH']}"}


def completions(words: str, count: int, environment: dict[str, str]) -> list[str]:
    """What bash is offered for the word at place ``count``, through the variables of click's script."""
    asked = {"_GGBLOCK_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    run = subprocess.run(["ggblock"], capture_output=True, text=True, env={**environment, **asked})
    return [line.partition(",")[2] for line in run.stdout.splitlines() if line]


def test_completions(path: Path, installed: dict[str, str]) -> None:
    assert completions("ggblock ver", 1, installed) == ["verify"]
    assert "--tensor" in completions("ggblock dump --t", 2, installed)
    found = completions(f"ggblock dump {path} --tensor blk.1.", 4, installed)
    assert found == ["blk.1.attn_q.weight", "blk.1.ffn_up.weight"]
    assert completions(f"ggblock edit {path} --remove llama.c", 4, installed) == ["llama.context_length"]
    assert completions("ggblock dump /nonexistent --tensor b", 4, installed) == []
    assert completions(f"ggblock dump {path} --key general.n", 4, installed) == ["general.name"]
    assert completions("ggblock pull smol", 2, installed) == ["smollm2-135m-instruct"]
    assert completions("ggblock run m --reset --k", 4, installed) == ["--kv"]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_option_of_every_command_is_completed(name: str) -> None:
    """Without a process: what click offers for a half-typed option is every long option that ``--help`` lists."""
    command = main.get_command(click.Context(main), name)
    assert command is not None
    found = {item.value for item in ShellComplete(main, {}, "ggblock", "X").get_completions([name], "--")}
    assert found == {each for p in command.params for each in p.opts if each.startswith("--")} | {"--help"}
    models = {p.name for p in command.params if isinstance(p, click.Argument)} & {"model", "first", "second"}
    if models:
        items = ShellComplete(main, {}, "ggblock", "X").get_completions([name], "gem")
        assert [(item.type, item.value) for item in items] == [("file", "gem"), ("plain", "gemma-3-270m")]


def test_the_script_works_in_a_real_bash(path: Path, installed: dict[str, str]) -> None:
    """The script as bash runs it: sourced, then asked for completions of a half-typed line."""
    program = f"""
eval "$(ggblock completion bash)"
compopt() {{ :; }}  # bash has it only while it completes
for line in "ggblock dump {path} --tensor blk.1.f" "ggblock run smol" "ggblock warm"; do
    COMP_WORDS=($line); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
    _ggblock_completion ggblock
    echo "${{COMPREPLY[@]}}"
done
"""
    run = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=installed)
    assert run.stdout.split() == ["blk.1.ffn_up.weight", "smollm2-135m-instruct", "warmup"], run.stderr
