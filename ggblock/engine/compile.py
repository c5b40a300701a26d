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

#: Rough seconds of a kernel by its kind, for sharing them out; measured on Zen 4.
SECONDS = {"attention": 2.9, "norm": 1.0, "rope": 0.7, "repack": 0.3, "combine": 0.3, "embed": 0.2,
           "tables": 0.2, "sums": 0.2}  # fmt: skip
SUPER_BLOCKS = 1.2  # products of types whose blocks are super-blocks, of several sub-blocks with code of their own
OTHERS = 0.8
MAX_CHILDREN = 4
_CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from ggblock.engine.compile import child; child(*sys.argv[2:])"


def child(folder: str, *numbered: str) -> None:
    """What a child runs: compiles each ``number=kernel`` into ``folder/number``."""
    from ..simd import jit

    for item in numbered:
        number, _, name = item.partition("=")
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
    shares: list[list[str]] = [[] for _ in range(n_children)]
    load = [0.0] * n_children
    weight = {name: _seconds(name) for name in names}
    for name in sorted(names, key=lambda name: -weight[name]):
        lightest = load.index(min(load))
        shares[lightest].append(f"{names.index(name)}={name}")
        load[lightest] += weight[name]
    root = str(Path(__file__).resolve().parents[2])
    made: dict[str, tuple[str, bytes]] = {}
    with tempfile.TemporaryDirectory(prefix="ggblock-") as folder:
        children: list[subprocess.Popen[bytes]] = []
        nothing = subprocess.DEVNULL
        try:
            for share in shares:
                command = [sys.executable, "-c", _CHILD, root, folder, *share]
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
