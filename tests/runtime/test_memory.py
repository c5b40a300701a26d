"""What a run of a real model takes of memory at its peak: at most 1.25 x its file + the KV cache + 150 MB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ggblock
from tests.cli.tiny_models import command, environment, run

CONTEXT = 1024
#: Runs a command, then prints its exit code and peak of resident memory in the system's own unit. The peak of a child
#: starts at the size of the process that it was forked from: this one is small, pytest's is not.
PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=sys.stderr)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def kv_bytes(path: Path) -> int:
    """Keys and values of ``CONTEXT`` positions in every layer as halves, from the file's own figures."""
    with ggblock.open(path) as file:
        about, name = file.metadata, file.metadata["general.architecture"]
        heads = about[f"{name}.attention.head_count"]
        width = about.get(f"{name}.attention.key_length", about[f"{name}.embedding_length"] // heads)
        return int(2 * 2 * CONTEXT * about[f"{name}.block_count"] * about[f"{name}.attention.head_count_kv"] * width)


@pytest.mark.parametrize("model", ["smollm2_path", "gemma3_path"])
def test_peak(model: str, request: pytest.FixtureRequest) -> None:
    """The prompt of 901 tokens takes the scratch of the largest batch and nearly all of the cache."""
    path = request.getfixturevalue(model)
    warm = run("warmup", path)  # a single missing kernel would be compiled in the measured process
    assert warm.returncode == 0, warm.stderr
    options = ["-p", "one two " * 450, "--raw", "-n", 4, "--temp", 0, "--ctx", CONTEXT, "-t", 2, "--json"]
    done = subprocess.run(
        [sys.executable, "-S", "-c", PEAK, *command("run", path, *options)],
        capture_output=True, text=True, env=environment(), timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    code, peak = map(int, done.stdout.split())
    assert code == 0, done.stderr
    document = json.loads(done.stderr)
    assert 850 < len(document["prompt_ids"]) < CONTEXT and len(document["ids"]) == 4
    peak_bytes = peak * (1 if sys.platform == "darwin" else 1024)
    size = path.stat().st_size
    assert peak_bytes > 0.8 * size, "some other process was measured"
    assert peak_bytes <= 1.25 * size + kv_bytes(path) + 150e6
