"""Kernels on the disk. Every test runs in processes of its own with a cache of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ggblock.kernels import registry
from ggblock.simd import cache, host

ROOT = Path(__file__).parents[2]
LOAD = """
import sys
from ggblock.engine.store import kernels
lines = []
found = kernels(sys.argv[1:], lines.append)
assert all(found.values()) and len(set(found.values())) == len(found)
print("numba" in sys.modules, lines)
"""


def start(folder: Path, *names: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "GGBLOCK_CACHE": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def load(folder: Path, *names: str) -> str:
    return finish(start(folder, *names))


def test_compiled_once_then_loaded_without_numba(tmp_path: Path) -> None:
    folder, now = tmp_path / "kernels", time.time()
    first = load(tmp_path, "post", "repack")
    assert "compiling 2 kernels" in first and "compiled in" in first
    (folder / "old.o").touch()
    for path in folder.iterdir():
        os.utime(path, (now - 40 * 86400,) * 2)
    assert load(tmp_path, "repack", "post") == "False []\n"
    assert (folder / "old.o").exists(), "who only reads removes nothing"
    more = load(tmp_path, "post", "copy/f/f")
    assert "compiling 1 kernel " in more, "only what is missing is compiled"
    names = sorted(p.name for p in folder.iterdir())  # without the old one; those that were used stay
    assert len(names) == 3 and all(re.fullmatch(r"[0-9a-f]{64}\.o", name) for name in names)


@pytest.mark.parametrize("damage", ["truncated", "empty", "one bit", "another file"])
def test_a_damaged_file_is_compiled_anew(damage: str, tmp_path: Path) -> None:
    load(tmp_path, "post")
    path = next((tmp_path / "kernels").iterdir())
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 4
    path.write_bytes(
        {"truncated": good[:-7], "empty": b"", "one bit": bytes(flipped), "another file": b"x" * 500}[damage]
    )
    assert "compiling 1 kernel " in load(tmp_path, "post")
    assert load(tmp_path, "post") == "False []\n", "and stored again"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A file stands where the folder should be (permissions would not stop root): it works, and says so."""
    (tmp_path / "file").write_text("in the way")
    text = load(tmp_path / "file", "post")
    assert "compiling 1 kernel " in text and "could not be kept" in text


def test_a_full_cache_that_is_read_only(tmp_path: Path) -> None:
    load(tmp_path, "post")
    folder = tmp_path / "kernels"
    folder.chmod(0o555)
    try:
        assert load(tmp_path, "post") == "False []\n"
    finally:
        folder.chmod(0o755)


def test_processes_that_start_at_once(tmp_path: Path) -> None:
    processes = [start(tmp_path, "post", "copy/f/f") for _ in range(3)]
    assert "compiling" in "".join(finish(process) for process in processes)
    assert load(tmp_path, "copy/f/f", "post") == "False []\n"
    assert len(list((tmp_path / "kernels").iterdir())) == 2, "no half-written files are left"


def key(name: str) -> str:
    return cache.key_of(name, registry.module_of(name), registry.is_strict(name), host.host())


NAMES = (
    "matmul/q4_k/2/1",
    "matmul/iq4_xs/f/f",
    "matmul/iq2_xxs/2/1",
    "levels/iq3_s",
    "norm/2/1",
    "rope/norm/f16/norm",
    "attention/3/64/f16",
    "combine/3/64",
    "team",
    "repack",
)


def imported_by(name: str) -> set[str]:
    """Modules of simd/ and kernels/ that are there when ``name`` has been built, in a fresh process."""
    code = (
        "import sys; from ggblock.kernels import registry; registry.build(sys.argv[1])\n"
        "print(*[m for m in sys.modules if m.startswith(('ggblock.simd.', 'ggblock.kernels.'))])"
    )
    if name.startswith(("matmul", "levels")):  # its family is imported when Numba types the tile
        code = f"from ggblock.kernels import families; families.family({name.split('/')[1]!r})\n" + code
    out = subprocess.run(
        [sys.executable, "-c", code, name], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    return set(out.split()) - {"ggblock.kernels.registry"}


@pytest.mark.parametrize("name", NAMES)
def test_the_key_depends_on_every_module_that_makes_the_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed byte in any module that was imported for it gives another key; in another family's it does not."""
    real = {room: dict(cache._room(room)) for room in ("simd", "kernels")}

    def key_with(module: str) -> str:
        _, room, stem = module.split(".")
        changed = {**real, room: {**real[room], stem: real[room][stem] + b"\n# changed\n"}}
        monkeypatch.setattr(cache, "_room", changed.__getitem__)
        for function in (cache._siblings, cache._base, cache._sources):
            function.cache_clear()
        return key(name)

    try:
        before, modules = key(name), imported_by(name)
        assert len(modules) > 5
        assert [module for module in modules if key_with(module) == before] == []
        assert key_with("ggblock.kernels.q8_0") == before
    finally:
        monkeypatch.undo()
        for function in (cache._siblings, cache._base, cache._sources):
            function.cache_clear()


def test_the_key_depends_on_name_and_target() -> None:
    me = host.host()
    keys = {
        cache.key_of(name, "matmul", strict, host.Host(cpu, features, machine))
        for name in ("matmul/q4_k/2/1", "matmul/q4_k/1/1")
        for strict in (False, True)
        for cpu in (me.cpu, "other")
        for features in (me.features, "")
        for machine in (me.machine, "neon")
    }
    assert len(keys) == 32


def test_unknown_kernel(tmp_path: Path) -> None:
    process = start(tmp_path, "no_such_kernel")
    assert "KeyError" in process.communicate()[1] and process.returncode == 1


def portable(folder: Path, program: str, *names: str) -> str:
    """What ``program`` prints in a process that is made to use the portable machine."""
    environment = {**os.environ, "GGBLOCK_CACHE": str(folder), "GGBLOCK_MACHINE": "portable"}
    command = [sys.executable, "-c", program, *names]
    return subprocess.run(
        command, env=environment, cwd=ROOT, check=True, timeout=300, stdout=subprocess.PIPE, text=True
    ).stdout


def test_the_order_of_imports_does_not_matter_to_what_machine_code_is_for(tmp_path: Path) -> None:
    # a module of kernels imports Numba before simd.jit tells it the machine
    program = "import ggblock.kernels.matmul; from ggblock.simd import jit; print(jit.makes_ours())"
    assert portable(tmp_path, program) == "True\n"


def test_children_compile_where_numba_made_code_for_another_machine_before(tmp_path: Path) -> None:
    used = "import numba; numba.njit(lambda x: x + 1)(1)\n"
    here = "from ggblock.engine.store import _compile_here\n_compile_here('post')"
    with pytest.raises(subprocess.CalledProcessError):
        portable(tmp_path, used + here)
    portable(tmp_path / "other", used + LOAD, "copy/1/1", "post")
    portable(tmp_path / "clean", LOAD, "copy/1/1", "post")
    folders = (tmp_path / name / "kernels" for name in ("other", "clean"))
    other, clean = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert len(clean) == 2 and other == clean
