"""``ggblock dump`` from outside: what it prints, how fast, and what it says about bad input."""
from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ggblock.cli.main import main
from ggblock.format import GgufWriter, TensorSpec
from tests.blocks.common import assert_same_floats
from tests.format import craft
from tests.inspect import crafted, paper, schemas

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crafted.write(tmp_path_factory.mktemp("dump") / "m.gguf")


def dump(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["dump", *map(str, arguments)], catch_exceptions=False)


def test_overview(path: Path) -> None:
    result = dump(path)
    assert result.exit_code == 0 and result.stderr == ""
    head = result.stdout.splitlines()[:6]
    assert "8 tensors, 13 metadata keys" in head[0]
    assert [line.split()[0] for line in head[1:]] == ["what", "weights", "context", "tokenizer", "profile"]
    for name, _, _ in crafted.TENSORS:
        assert re.search(rf"^  {re.escape(name)} .* \d+\.\d\d$", result.stdout, re.MULTILINE)
    assert "no output.weight" in result.stdout


def test_json_is_the_documented_one(path: Path, gemma3_path: Path) -> None:
    for file in (path, gemma3_path):
        document = json.loads(dump(file, "--json").stdout)
        schemas.check(document, "dump")
    schemas.check(json.loads(dump(path, "--key", "tokenizer.ggml.tokens", "--json").stdout), "key")
    tensor = json.loads(dump(path, "--tensor", "blk.0.attn_q.weight", "--json").stdout)
    schemas.check(tensor, "tensor")
    schemas.check(json.loads(dump(path, "--tensor", "blk.0.attn_q.weight", "--block", 1, "--json").stdout), "block")
    compared = dump(path, "--tensor", "output_norm.weight", "--reference", path, "--json")
    schemas.check(json.loads(compared.stdout), "tensor")


def test_the_schema_checker_finds_what_is_wrong(path: Path) -> None:
    document = json.loads(dump(path, "--json").stdout)
    for change in ({"tensors": 1}, {"extra": 1}, {"schema": "ggblock/dump/2"}):
        with pytest.raises(AssertionError):
            schemas.check({**document, **change}, "dump")
    del document["file"]["notes"]
    with pytest.raises(AssertionError, match="notes"):
        schemas.check(document, "dump")


@pytest.mark.parametrize("order", ["name", "type", "bytes", "bits", "offset", "weights"])
def test_sort(order: str, path: Path) -> None:
    tensors = json.loads(dump(path, "--sort", order, "--json").stdout)["tensors"]
    assert sorted(t["name"] for t in tensors) == sorted(name for name, _, _ in crafted.TENSORS)
    key = {"bytes": "n_bytes", "bits": "bits_per_weight", "offset": "offset_bytes", "weights": "n_weights"}
    values = [t[key.get(order, order)] for t in tensors]
    assert values == sorted(values, reverse=order in ("bytes", "bits", "weights"))


def test_grep_key_and_full(path: Path) -> None:
    found = dump(path, "--grep", "attn_q").stdout
    assert "blk.1.attn_q.weight" in found and "ffn" not in found
    assert dump(path, "--key", "tokenizer.ggml.tokens").stdout.split() == [f"t{i}" for i in range(64)]
    assert dump(path, "--key", "general.name").stdout == "tiny\n"
    assert "'t63'" in dump(path, "--full").stdout and "'t63'" not in dump(path).stdout


def test_block_from_the_command_line_by_hand(path: Path) -> None:
    """The judged case: from the printed bytes of one Q4_K super-block to its 256 weights."""
    import ggblock

    text = dump(path, "--tensor", "blk.0.attn_q.weight", "--row", 7, "--block", 0, "--weight", 200).stdout
    weights = paper.check_claims(paper.read_text(text.split("\n", 2)[2]))
    with ggblock.open(path) as file:
        assert_same_floats(weights, file.tensors["blk.0.attn_q.weight"].rows(7, 8)[0, :256])
    assert "weight 200 by hand" in text
    same = dump(path, "--tensor", "blk.0.attn_q.weight", "--block", 7, "--weight", 200).stdout
    assert same == text, "256 columns are one block a row"


def test_a_ggb_file(tmp_path: Path) -> None:
    """The profile, the order of each tensor, and one block of a panel by hand."""
    import ggblock
    from tests.inspect import test_panel_files

    plain, path = test_panel_files.write(tmp_path / "m.gguf", False), test_panel_files.write(tmp_path / "m.ggb")
    text = dump(path).stdout
    assert re.search(r"^  profile +GGB in GGUF v3, .* 4 tensors in panels of 16 rows; with checksums$", text, re.M)
    assert re.search(r"^  a.weight +19 x 256 +Q4_K/16 ", text, re.MULTILINE)
    schemas.check(json.loads(dump(path, "--json").stdout), "dump")
    arguments = ["--tensor", "a.weight", "--row", 18, "--block", 0]
    weights = paper.check_claims(paper.read_text(dump(path, *arguments).stdout.split("\n", 2)[2]))
    with ggblock.open(plain) as file:
        assert_same_floats(weights, file.tensors["a.weight"].rows(18, 19)[0])
    assert "panel 1, place 2 of 16 in it" in dump(path, *arguments, "--hex").stdout
    compared = dump(path, "--tensor", "a.weight", "--reference", plain).stdout
    assert "16 rows interleaved in a panel" in compared and "largest error 0.0" in compared
    same = CliRunner().invoke(main, ["diff", str(plain), str(path)])
    assert same.exit_code == 0 and "only how the files are stored differs" in same.stdout
    assert CliRunner().invoke(main, ["verify", str(path)]).exit_code == 0


def test_hex_has_a_colour_for_each_field(path: Path) -> None:
    arguments = ["dump", str(path), "--tensor", "blk.0.attn_q.weight", "--block", "0", "--hex"]
    plain = CliRunner().invoke(main, arguments).stdout
    coloured = CliRunner().invoke(main, arguments, color=True).stdout
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain
    section = coloured.partition("bytes\n")[2]
    assert len(set(re.findall(r"\x1b\[3\dm", section))) == 4


def test_png(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.png"
    result = dump(path, "--tensor", "blk.0.attn_q.weight", "--png", out, "--map", "peak")
    assert result.exit_code == 0 and "256 rows by 1 blocks" in result.stderr
    assert out.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--tensor", "nope"], 1, "no such tensor"),
        (["--tensor", "blk.0.attn_k.weight"], 1, "did you mean blk.0.attn_q.weight?"),
        (["--tensor", "blk.0.attn_q.weight", "--block", "256"], 1, "no such block (expected 0 to 255; found 256)"),
        (["--tensor", "blk.0.attn_q.weight", "--block", "-1"], 1, "no such block"),
        (["--tensor", "blk.0.attn_q.weight", "--row", "256", "--block", "0"], 1, "no such row"),
        (["--tensor", "blk.0.attn_q.weight", "--block", "0", "--weight", "256"], 1, "no such weight"),
        (["--tensor", "output_norm.weight", "--png", "x.png", "--map", "scale"], 1, "have no scales"),
        (["--key", "nope"], 1, "no such key"),
        (["--block", "0"], 2, "--block needs --tensor"),
        (["--png", "x.png"], 2, "--png needs --tensor"),
        (["--tensor", "output_norm.weight", "--row", "0"], 2, "--row needs --block"),
        (["--tensor", "output_norm.weight", "--hex"], 2, "--hex needs --block"),
        (["--tensor", "output_norm.weight", "--map", "error"], 2, "needs --reference"),
        (["--tensor", "output_norm.weight", "--reference", "/nonexistent"], 1, "no such file"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], code: int, words: str, path: Path) -> None:
    result = dump(path, *arguments)
    assert result.exit_code == code and result.stdout == ""
    assert words in result.stderr and "Traceback" not in result.stderr
    assert code == 2 or result.stderr.count("\n") == 1


def test_a_picture_never_replaces_the_file(path: Path) -> None:
    before = path.read_bytes()
    result = dump(path, "--tensor", "blk.0.attn_q.weight", "--png", path)
    assert result.exit_code == 1 and "also being read" in result.stderr and path.read_bytes() == before


def test_the_tool_in_the_checkout_is_the_same(path: Path) -> None:
    tool = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "block_dump.py"), str(path), "--sort", "bytes"],
        capture_output=True, text=True, cwd="/", env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert tool.stdout == dump(path, "--sort", "bytes").stdout and tool.stderr == ""


def cpu_seconds(arguments: list[str], cache: Path) -> float:
    """Least processor time of two runs of a Python process that may keep its bytecode, after one that makes it."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(cache)
    used = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run = subprocess.run([sys.executable, *arguments], capture_output=True, cwd=ROOT, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run.returncode == 0, run.stderr
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(used[1:])


def test_it_opens_any_file_at_once(gemma3_path: Path, tmp_path: Path) -> None:
    """At most 0.3 s, and only the header is read: also of a file with a terabyte that is not there.

    Measured as processor time, which other processes disturb less. On a machine so busy or slow that NumPy and click
    alone take longer than 0.15 s to import, twice their time is allowed.
    """
    huge = tmp_path / "huge.gguf"
    head = craft.container([craft.key("general.architecture", 8, craft.text(b"x"))],
                           [craft.tensor("w", (1 << 20, 1 << 18), 0, 0)])
    with huge.open("wb") as stream:
        stream.write(head)
        stream.truncate(-(-len(head) // 32) * 32 + (1 << 40))
    many = tmp_path / "many.gguf"  # the experts of a large model, each a tensor of its own
    names = [(f"blk.{i // 64}.ffn_up.{i % 64}.weight", "q4_0", (1, 32)) for i in range(3000)]
    specs = [TensorSpec(*each) for each in names]
    with GgufWriter(many, {"general.architecture": "x"}, specs) as writer:
        for spec in specs:
            writer.write(spec.name, np.zeros((1, 18), np.uint8))
    for file in (huge, many, gemma3_path):
        for attempt in range(3):  # processor time, too, grows while others use the caches and the core's other thread
            used = cpu_seconds(["-m", "ggblock", "dump", str(file)], tmp_path / "cache")
            if used <= 0.3:
                break
            limit = max(0.3, 2 * cpu_seconds(["-c", "import numpy, click"], tmp_path / "cache"))
            assert attempt < 2 or used <= limit, f"{file.name}: {used:.2f} s of {limit:.2f}"


def on_a_terminal(path: Path, arguments: list[str], columns: int) -> list[str]:
    """What ``ggblock dump`` prints on a terminal of that width, run in the folder of ``path``; colours left out."""
    return re.sub(r"\x1b\[[\d;]*m", "", terminal_output(path, arguments, COLUMNS=str(columns))).splitlines()


def terminal_output(path: Path, arguments: list[str], **more: str) -> str:
    """The same as it is, with ``more`` in the environment."""
    import pty

    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT), **more}
    process = subprocess.Popen([sys.executable, "-m", "ggblock", "dump", path.name, *arguments], cwd=path.parent,
                               stdout=follower, env=environment, stderr=subprocess.DEVNULL)  # fmt: skip
    os.close(follower)
    out = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        out += piece
    os.close(leader)
    assert process.wait(60) == 0
    return out.decode().replace("\r", "")


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_columns_fit_the_terminal(columns: int, gemma3_path: Path) -> None:
    block = ["--tensor", "blk.0.attn_output.weight", "--block", "0"]
    for arguments in ([], ["--tensor", "blk.0.post_attention_norm.weight"], block, [*block, "--hex"]):
        lines = on_a_terminal(gemma3_path, arguments, columns)
        longest = max(lines, key=len)
        assert len(lines) > 10 and len(longest) <= columns, longest


def test_no_colours_where_nobody_wants_them(path: Path) -> None:
    block = ["--tensor", "blk.0.attn_q.weight", "--block", "0", "--hex"]
    assert "\x1b[" in terminal_output(path, block)
    assert "\x1b[" not in terminal_output(path, block, NO_COLOR="1")
    assert "\x1b[" not in terminal_output(path, block, TERM="dumb")


def test_a_narrow_terminal_cuts_names_and_a_pipe_cuts_nothing(gemma3_path: Path) -> None:
    narrow = on_a_terminal(gemma3_path, [], 60)
    assert any(re.match(r"  blk\.\S*…\S*weight +\d", line) for line in narrow)
    assert "blk.17.post_attention_norm.weight  640 " in dump(gemma3_path).stdout


@pytest.mark.parametrize("arguments", [[], ["--tensor", "blk.0.attn_q.weight"],
                                       ["--tensor", "blk.0.attn_q.weight", "--block", "0"]])
def test_nothing_heavy_is_imported(arguments: list[str], path: Path) -> None:
    program = (
        "import sys\nfrom ggblock.cli.main import main\n"
        f"try:\n    main(['dump', {str(path)!r}, *{arguments!r}])\nexcept SystemExit:\n    pass\n"
        "bad = {'numba', 'llvmlite', 'torch', 'tokenizers', 'rich', 'jinja2'} & set(sys.modules)\n"
        "sys.stderr.write(' '.join(bad))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0 and run.stderr == ""


def test_big_types_of_numbers_survive(tmp_path: Path) -> None:
    metadata: dict[str, object] = {
        "general.architecture": "x", "a.nan": float("nan"), "a.inf": [float("inf"), 1.5], "a.big": 2**63 + 1,
        "a.raw": "caf\udce9",
    }
    file = crafted.write(tmp_path / "m.gguf", metadata, [("w", "f32", (4,))])
    document = json.loads(dump(file, "--json").stdout)
    schemas.check(document, "dump")
    values = {each["key"]: each["value"] for each in document["metadata"]}
    assert values["a.nan"] == "nan" and values["a.inf"] == ["inf", 1.5] and values["a.big"] == 2**63 + 1
    assert values["a.raw"] == "caf\\xe9"
    assert np.float32(document["tensors"][0]["bits_per_weight"]) == 32
