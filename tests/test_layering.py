"""The plan of the house, enforced from the source: who may import whom, who may use which library, and a few habits."""
from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ggblock"

# room: (row, third-party libraries it may import). A room imports only from rooms of smaller rows, and from itself.
NUMBA = {"numpy", "numba", "llvmlite"}
ROOMS: dict[str, tuple[int, set[str]]] = {
    "_version": (0, set()),
    "errors": (0, set()),
    "blocks": (1, {"numpy"}),
    "format": (2, {"numpy"}),
    "simd": (2, NUMBA | {"platformdirs"}),
    "catalog": (2, {"platformdirs"}),
    "kernels": (3, NUMBA),
    "tokenizer": (3, {"numpy", "tokenizers", "jinja2"}),
    "inspect": (3, {"numpy"}),
    "engine": (4, NUMBA | {"cuda"}),  # NVIDIA's bindings, in engine/cuda only
    "models": (5, {"numpy"}),
    "runtime": (6, {"numpy", "typing_extensions"}),  # the second for type checkers only
    "convert": (6, {"numpy", "tokenizers", "yaml", "tomli"}),
    "calibrate": (7, {"numpy"}),
    "evaluate": (7, {"numpy"}),
    "serve": (7, {"numpy"}),
    "cli": (8, {"click", "rich", "numpy"}),
    "__init__": (9, set()),
    "__main__": (9, set()),
}
PRINTING_ROOMS = {"cli"}
NUMBA_DECORATORS = {"jit", "njit", "vectorize", "guvectorize", "cfunc", "stencil", "generated_jit"}
THE_JIT_MODULES = {"ggblock.simd.jit", "ggblock.engine.cuda.jit"}
MAX_LINES = 500


class Module(NamedTuple):
    name: str  # dotted, e.g. "ggblock.cli.main"; a package's __init__ is "ggblock.cli"
    room: str
    is_package: bool
    tree: ast.Module


class Import(NamedTuple):
    line: int
    target: str  # dotted module, with the imported name when it is "from x import y"


def parse(source: str, path: Path) -> Module:
    parts = path.with_suffix("").parts
    room = parts[1]
    is_package = parts[-1] == "__init__"
    return Module(".".join(parts[:-1] if is_package else parts), room, is_package, ast.parse(source))


def modules() -> list[Module]:
    return [parse(p.read_text(encoding="utf-8"), p.relative_to(ROOT)) for p in sorted(PACKAGE.rglob("*.py"))]


def imports(module: Module) -> Iterator[Import]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = module.name.split(".")
                up = up[: len(up) - node.level + (1 if module.is_package else 0)]
                base = ".".join([*up, base] if base else up)
            for alias in node.names:
                yield Import(node.lineno, f"{base}.{alias.name}")


def layering_faults(module: Module) -> list[str]:
    row, libraries = ROOMS[module.room]
    faults = []
    for line, target in imports(module):
        top, _, rest = target.partition(".")
        where = f"{module.name}:{line} imports {target}"
        if top == "ggblock":
            room = rest.partition(".")[0]
            if room not in ROOMS:  # `from ggblock import load`: the package itself
                room = "__init__"
            if room != module.room and ROOMS[room][0] >= row:
                faults.append(f"{where}: row {row} may not import from {room}, row {ROOMS[room][0]}")
        elif top not in sys.stdlib_module_names and top not in libraries:
            faults.append(f"{where}: {module.room} may import only {sorted(libraries)}")
    return faults


def decorator_faults(module: Module) -> list[str]:
    """Uses of Numba's compiling decorators, by whatever name they were imported."""
    numba_names = set()
    faults = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            numba_names |= {a.asname or a.name.split(".")[0] for a in node.names if a.name.split(".")[0] == "numba"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "numba":
            faults += [f"{module.name}:{node.lineno} {a.name}" for a in node.names if a.name in NUMBA_DECORATORS]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in NUMBA_DECORATORS:
            base: ast.expr = node.value
            while isinstance(base, ast.Attribute):
                base = base.value
            if isinstance(base, ast.Name) and base.id in numba_names:
                faults.append(f"{module.name}:{node.lineno} {node.attr}")
    return faults


def printing_faults(module: Module) -> list[str]:
    """Calls of print and input, and uses of the standard streams and of sys.argv."""
    faults = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"print", "input"}:
            faults.append(f"{module.name}:{node.lineno} calls {node.func.id}")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
            if node.attr in {"stdout", "stderr", "stdin", "argv"}:
                faults.append(f"{module.name}:{node.lineno} uses sys.{node.attr}")
    for line, target in imports(module):
        if target.partition(".")[0] in {"argparse", "optparse", "getopt"}:
            faults.append(f"{module.name}:{line} imports {target}")
    return faults


def test_every_module_is_in_a_room() -> None:
    assert {m.room for m in modules()} <= set(ROOMS), "a new room needs a row in ROOMS"
    assert {"errors", "cli", "catalog"} <= {m.room for m in modules()}, "the walk finds nothing"


def test_rooms_import_only_from_rows_above() -> None:
    assert [fault for m in modules() for fault in layering_faults(m)] == []


def test_only_the_jit_modules_call_numba_decorators() -> None:
    assert [f for m in modules() if m.name not in THE_JIT_MODULES for f in decorator_faults(m)] == []


def test_library_code_neither_prints_nor_parses_arguments() -> None:
    assert [f for m in modules() if m.room not in PRINTING_ROOMS for f in printing_faults(m)] == []


def test_no_file_is_too_long() -> None:
    paths = [p for folder in ("ggblock", "tests", "tools") for p in (ROOT / folder).rglob("*.py")]
    lengths = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in paths}
    assert {path: n for path, n in lengths.items() if n >= MAX_LINES} == {}


@pytest.mark.parametrize(
    ("path", "source", "finds"),
    [
        ("ggblock/blocks/x.py", "from ggblock.format import reader", layering_faults),
        ("ggblock/blocks/x.py", "from ..format import reader", layering_faults),
        ("ggblock/format/__init__.py", "from ..simd.jit import kernel", layering_faults),
        ("ggblock/inspect/x.py", "def f():\n    import numba", layering_faults),
        ("ggblock/format/x.py", "import torch", layering_faults),
        ("ggblock/runtime/x.py", "from ggblock import load", layering_faults),
        ("ggblock/kernels/x.py", "import numba as nb\n@nb.njit\ndef f(): pass", decorator_faults),
        ("ggblock/kernels/x.py", "from numba import njit as go", decorator_faults),
        ("ggblock/kernels/x.py", "import numba\nnumba.core.decorators.jit(1)", decorator_faults),
        ("ggblock/engine/x.py", "print('hello')", printing_faults),
        ("ggblock/engine/x.py", "import sys\nsys.stderr.write('hello')", printing_faults),
        ("ggblock/engine/x.py", "from argparse import ArgumentParser", printing_faults),
    ],
)
def test_the_checks_find_what_they_are_for(path: str, source: str, finds: object) -> None:
    assert callable(finds)
    assert len(finds(parse(source, Path(path)))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ggblock/format/x.py", "from . import header\nfrom ..blocks import by_id\nimport numpy as np\nimport mmap"),
        ("ggblock/kernels/x.py", "from ggblock.simd import jit\n@jit.kernel\ndef f(): pass"),
        ("ggblock/cli/__init__.py", "from .main import main\nfrom ..errors import GgblockError"),
    ],
)
def test_the_checks_allow_what_is_right(path: str, source: str) -> None:
    module = parse(source, Path(path))
    assert layering_faults(module) == [] and decorator_faults(module) == []
