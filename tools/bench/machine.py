"""Records of benchmarks: what they must say about the machine, how busy others kept it meanwhile, and their file."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

TRIES = 3
STEADY = 0.9  # of the read bandwidth at a round's begin, at its end, or the other way round

T = TypeVar("T")
RESULTS = Path(__file__).with_name("RESULTS.md")
FLAGS = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512vl", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp")


def describe() -> dict[str, object]:
    """CPU name, cores, flags that matter to the kernels, operating system, versions."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in fields.items()}
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    versions = {}
    for package in ("ggblock", "numba", "llvmlite", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "from the checkout"
    family = f"family {facts.get('cpu family')} model {facts.get('model')}" if "cpu family" in facts else ""
    return {
        "cpu": f"{facts.get('model name', platform.processor())} {family}".strip(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": versions,
    }


def sentence() -> str:
    """``describe`` as a line of a record."""
    facts = describe()
    versions = facts["versions"]
    assert isinstance(versions, dict) and isinstance(facts["flags"], list)
    forced = os.environ.get("GGBLOCK_MACHINE")
    return (
        f"{facts['cpu']}, {facts['cores']} cores; {' '.join(facts['flags'])}; {facts['system']}; "
        f"Python {facts['python']}; "
        + ", ".join(f"{k} {v}" for k, v in versions.items())
        + "."
        + (f" GGBLOCK_MACHINE={forced}." if forced else "")
    )


def commit() -> str:
    """The short hash of the checkout, with ``+`` when tracked files differ from it."""
    root = Path(__file__).resolve().parent
    try:
        name = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "../../ggblock"], cwd=root)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.stdout.strip() + ("+" if dirty.returncode else "")


def title(what: str) -> str:
    """The first line of a record: when, with which commit, what."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return f"## {now:%Y-%m-%d %H:%M} UTC, commit {commit()}: {what}"


def append(lines: Sequence[str]) -> None:
    """Add a record to RESULTS.md, after an empty line."""
    with RESULTS.open("a", encoding="utf-8") as out:
        out.write("\n" + "\n".join(lines).strip("\n") + "\n")


def publish(lines: Sequence[str], record: bool) -> None:
    """Print a record and, where asked to, append it."""
    print("\n".join(lines))
    if record:
        append(lines)


def busy_s() -> float:
    """Seconds of CPU time that the whole machine has spent working since it started (0 where it cannot be known)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _, _, irq, soft, steal = (int(n) for n in stat.read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Run:
    """A finished child process. ``others``: cores' worth of CPU time that everything else used while it ran."""

    stdout: str
    stderr: str
    elapsed_s: float
    peak_rss_bytes: int
    others: float


def run(command: Sequence[str], env: dict[str, str] | None = None) -> Run:
    """Run a command to its end; raise RuntimeError with its last words when it fails."""
    busy = busy_s()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        begin = time.perf_counter()
        child = subprocess.Popen(command, stdout=out, stderr=err, env=env)
        _, status, usage = os.wait4(child.pid, 0)
        elapsed_s = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        stdout, stderr = out.read(), err.read()
    if child.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {child.returncode}: {stderr.strip()[-600:]}")
    others = max(0.0, busy_s() - busy - usage.ru_utime - usage.ru_stime) / elapsed_s
    return Run(stdout, stderr, elapsed_s, usage.ru_maxrss * 1024, others)


def steadiest(once: Callable[[], T], roofs_of: Callable[[T], Sequence[float]]) -> T:
    """``once()``, again up to ``TRIES`` times in all until the read bandwidths measured in it, if any, are alike; the
    result in which they differ least. Virtual cores move meanwhile: one chip's memory gives 35 GB/s, two chips' 60."""

    def steadiness(result: T) -> float:
        roofs = roofs_of(result)
        return min(roofs) / max(roofs) if roofs else 1.0

    tries: list[T] = []
    while len(tries) < TRIES and not (tries and steadiness(tries[-1]) >= STEADY):
        tries.append(once())
    return max(tries, key=steadiness)
