"""The same tests on the other machines that this CPU can run, in processes begun before the first test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from ggblock.simd.host import MACHINES, _runs_on, host

#: What is compiled anew for another machine: one type for each way in which codes, scales and offsets are found.
TYPES = ("q4_0", "q5_0", "q8_0", "q3_k", "q4_k", "q6_k", "iq4_nl", "nvfp4", "q1_0", "q2_0", "tq1_0", "iq2_xs", "f16")

SELECTED = (
    "test_vec or quantized_copy or (test_attention and 3x2x64) or (test_rope and plain and f16 and neox) or "
    + f"(two_one and not ragged_product and ({' or '.join(f'[two_one-{name}]' for name in TYPES)}))"
)

FILES = ("vec", "activations", "attention", "matmul", "ragged")


def other_machines() -> list[str]:
    """Every machine but this process's own that this CPU can run."""
    features = dict(llvm.get_host_cpu_features())
    return [name for name in MACHINES if name != host().machine and _runs_on(name, features)]


@pytest.fixture(scope="session", autouse=True)
def runs(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, tuple[subprocess.Popen[bytes], Path]]]:
    """By machine: a pytest process, and the file that its output goes to."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    wanted = {t.callspec.params["machine"] for t in tests if t.originalname == "test_machine_that_this_cpu_can_run"}
    wanted &= set(other_machines())
    root = Path(__file__).parents[2]
    started = {}
    for machine in sorted(wanted):
        output = tmp_path_factory.mktemp("machines") / f"{machine}.txt"
        with output.open("wb") as f:
            started[machine] = (
                subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "pytest",
                        "-q",
                        "-p",
                        "no:cacheprovider",
                        "--basetemp",
                        str(output.with_suffix("")),
                        *(f"tests/kernels/test_{name}.py" for name in FILES),
                        "-k",
                        SELECTED,
                    ],
                    cwd=root,
                    env={**os.environ, "GGBLOCK_MACHINE": machine},
                    stdout=f,
                    stderr=subprocess.STDOUT,
                ),
                output,
            )
    yield started
    for process, _ in started.values():
        if process.poll() is None:
            process.kill()
        process.wait()
