"""Compiling kernels in child processes: on all cores at once, and Numba's memory is gone when they end.

A process that loads a model for the first time would otherwise keep some 150 MB of compiler for as long as it runs.
What the children make comes back through files in a temporary folder, so it does not matter whether the cache can be
written. Where no child can be started, or one fails, the caller compiles what is missing itself.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from ..kernels import families, registry

#: Rough seconds of a kernel by its kind, so that the longest are compiled first; measured on Zen 4.
SECONDS = {"attention": 4.0, "norm": 1.4, "rope": 1.3, "team": 0.7, "upper": 0.5, "repack": 0.3, "combine": 0.9,
           "rest": 0.3, "embed": 0.2, "tables": 0.2, "sums": 0.2, "split": 0.2, "post": 0.1}  # fmt: skip
SUPER_BLOCKS = 1.6  # products of types whose blocks are super-blocks, of several sub-blocks with code of their own
OTHERS = 1.1
MAX_CHILDREN = 4
_CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from ggblock.engine.compile import child; child(*sys.argv[2:])"


def child(folder: str, *numbered: str) -> None:
    """What a child runs: compiles each ``number=kernel`` that no other child has begun into ``folder/number``."""
    from ..simd import jit

    for item in numbered:
        number, _, name = item.partition("=")
        try:
            (Path(folder) / f"{number}.begun").touch(exist_ok=False)
        except FileExistsError:
            continue
        symbol, code = jit.compile_kernel(registry.build(name), strict=registry.is_strict(name))
        part = Path(folder) / f"{number}.part"
        part.write_bytes(symbol.encode() + b"\0" + code)
        part.rename(Path(folder) / number)


def _seconds(name: str) -> float:
    kind, _, rest = name.partition("/")
    if kind == "matmul" and families.family(rest.partition("/")[0]).block >= 128:
        return SUPER_BLOCKS
    return SECONDS.get(kind, OTHERS)


def compile_apart(names: list[str], n_processors: int) -> dict[str, tuple[str, bytes]]:
    """(symbol, object code) of those ``names`` that children could compile; empty where it would not pay.

    It does not pay for a few kernels, nor in a process that holds Numba already, unless that makes code for another
    machine.
    """
    n_children = min(n_processors, MAX_CHILDREN, len(names) // 2)
    if "numba" in sys.modules:
        from ..simd import jit

        n_children = 0 if jit.makes_ours() else max(1, n_children)
    if n_children < 1 or not sys.executable:
        return {}
    numbered = sorted(enumerate(names), key=lambda item: -_seconds(item[1]))
    root = str(Path(__file__).resolve().parents[2])
    made: dict[str, tuple[str, bytes]] = {}
    with tempfile.TemporaryDirectory(prefix="ggblock-") as folder:
        children: list[subprocess.Popen[bytes]] = []
        nothing = subprocess.DEVNULL
        try:
            command = [sys.executable, "-c", _CHILD, root, folder, *(f"{number}={name}" for number, name in numbered)]
            for _ in range(n_children):
                children.append(subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing))
            for each in children:
                each.wait()
        except OSError:
            pass
        finally:
            for each in children:
                if each.poll() is None:
                    each.kill()
                    each.wait()
        for number, name in enumerate(names):
            path = Path(folder) / str(number)
            if path.exists():
                symbol, _, code = path.read_bytes().partition(b"\0")
                made[name] = symbol.decode(), code
    return made
