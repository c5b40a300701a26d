"""The kernel tests on machines that are not here.

On AArch64, in QEMU's user mode: the same files, with ``emulation`` in place of this CPU. On AVX-VNNI by AVX-512's form
of its instruction, where this CPU has it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from ggblock.simd.host import _runs_on

from .conftest import must_pass_on

pytestmark = pytest.mark.emulated

#: File -> how many of its tests must have passed.
FILES = {"vec": 14, "activations": 11, "attention": 79, "attention_q12": 42, "matmul": 70, "embed": 44, "sieve": 6,
         "sketch": 20}  # fmt: skip
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


def test_kernels_on_avx_vnni(tmp_path: Path) -> None:
    if not _runs_on("avxvnni", dict(llvm.get_host_cpu_features())):
        pytest.skip("this CPU has neither AVX-VNNI nor AVX-512's VNNI")
    must_pass_on("avxvnni", tmp_path / "base")
