"""The same tests on the other machines that this CPU can run, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm

from ggblock.simd.host import MACHINES, _runs_on, host

#: What is compiled anew for another machine: one type for each way in which codes, scales and offsets are found.
TYPES = (
    "q4_0", "q5_0", "q8_0", "q3_k", "q4_k", "q6_k", "iq4_nl", "iq4_xs", "nvfp4", "q1_0", "q2_0", "tq1_0", "iq2_xs",
    "f16",
)  # fmt: skip

SELECTED = (
    "test_vec or quantized_copy or test_sieve or others_keep or those_of_all[q6_k] or (test_attention and 3x2x64) or "
    + "(test_rope and plain and f16 and neox) or "
    + f"(two_mixed and not ragged_product and ({' or '.join(f'[two_mixed-{name}]' for name in TYPES)}))"
)

FILES = ("vec", "activations", "attention", "matmul", "ragged", "sieve", "sketch")


def other_machines() -> list[str]:
    """Every machine but this process's own that this CPU can run, with instructions of its own: ``test_emulated`` has
    AVX-VNNI by those of AVX-512."""
    features = dict(llvm.get_host_cpu_features())
    here = [name for name in MACHINES if name != host().machine and _runs_on(name, features)]
    return [name for name in here if name != "avxvnni" or features.get("avxvnni")]


def must_pass_on(machine: str, basetemp: Path) -> None:
    """Runs those tests in a process that is made to use ``machine``: all pass, and none was forgotten."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "--basetemp", str(basetemp)]
    done = subprocess.run(
        [*command, *(f"tests/kernels/test_{name}.py" for name in FILES), "-k", SELECTED],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "GGBLOCK_MACHINE": machine},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= 2 * len(TYPES) + 15, done.stdout[-300:]
