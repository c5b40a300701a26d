"""Importing does nothing and brings little: allow-lists of what may be loaded, checked in fresh processes."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ggblock.cli.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"numba", "llvmlite", "torch", "transformers", "tokenizers", "jinja2", "numpy", "rich"}

PROGRAM = """
import json, sys, threading
before = set(sys.modules)
try:
    {body}
except SystemExit:
    pass
loaded = set(sys.modules) - before
tops = sorted({{name.partition(".")[0] for name in loaded}} - set(sys.stdlib_module_names))
own = sorted(name for name in loaded if name.partition(".")[0] == "ggblock")
print("\\n" + json.dumps({{"tops": tops, "own": own, "threads": threading.active_count()}}))
"""


def loaded_by(body: str) -> tuple[set[str], set[str]]:
    """Third-party top-level modules, and ggblock's own, that a fresh Python has loaded after ``body``."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body.replace("\n", "\n    "))],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["threads"] == 1, "importing starts no thread"
    return set(found["tops"]) - {"ggblock"}, set(found["own"])


def test_import_ggblock_brings_nothing_else() -> None:
    third, own = loaded_by("import ggblock")
    assert third == set()
    assert own == {"ggblock", "ggblock._version"}


def test_help_brings_only_click() -> None:
    third, own = loaded_by("import sys\nsys.argv = ['ggblock', '--help']\nfrom ggblock.cli.main import main\nmain()")
    assert third <= {"click", "colorama", "typing_extensions"}
    assert own == {
        "ggblock",
        "ggblock._version",
        "ggblock.cli",
        "ggblock.cli.commands",
        "ggblock.cli.main",
        "ggblock.errors",
    }


@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_commands_help_brings_nothing_heavy(name: str) -> None:
    third, _ = loaded_by(
        f"import sys\nsys.argv = ['ggblock', {name!r}, '--help']\nfrom ggblock.cli.main import main\nmain()"
    )
    assert third & HEAVY == set()


def test_a_file_opens_with_numpy_alone(smollm2_path: Path) -> None:
    third, _ = loaded_by(
        f"import ggblock\nwith ggblock.open({str(smollm2_path)!r}) as f:\n    f.metadata['general.architecture']\n"
        "    f.tensors['output_norm.weight'].dequantize()"
    )
    assert third == {"numpy"}


def test_dumping_brings_neither_a_compiler_nor_torch(smollm2_path: Path) -> None:
    third, _ = loaded_by(
        f"import sys\nsys.argv = ['ggblock', 'dump', {str(smollm2_path)!r}]\nfrom ggblock.cli.main import main\nmain()"
    )
    assert third & {"numba", "llvmlite", "torch", "transformers", "tokenizers"} == set()


def test_a_tokenizer_loads_without_a_compiler(smollm2_path: Path) -> None:
    third, _ = loaded_by(f"import ggblock\nggblock.load_tokenizer({str(smollm2_path)!r}).tokenize('hello')")
    assert third & {"numba", "llvmlite", "torch", "transformers"} == set()


def test_the_engine_brings_the_gpu_only_when_asked() -> None:
    body = "import ggblock.models.compiled\nfrom ggblock.engine import placement\nplacement.parse('all')"
    third, own = loaded_by(body)
    assert "ggblock.engine.placement" in own and not {name for name in own if name.startswith("ggblock.engine.cuda")}
    assert not third & {"numba", "cuda"}


def test_the_catalog_brings_nothing_but_platformdirs() -> None:
    third, _ = loaded_by("from ggblock import catalog\ncatalog.models_folder()")
    assert third <= {"platformdirs"}
