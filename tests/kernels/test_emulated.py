"""The kernel tests on AArch64, in QEMU's user mode: the same files, with ``emulation`` in place of this CPU."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.emulated

#: File -> how many of its tests must have passed.
FILES = {"vec": 14, "activations": 11, "attention": 79, "matmul": 70, "embed": 44, "sieve": 6}
#: The products of integers are enough; those of floats take longest.
SELECTED = "not (floats and matmul) and not (test_rope and plain and norm)"


@pytest.mark.parametrize("name", FILES)
def test_kernels_on_aarch64(name: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "tests.kernels.emulation", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"tests/kernels/test_{name}.py", "-k", SELECTED],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=3600,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= FILES[name], done.stdout[-300:]
