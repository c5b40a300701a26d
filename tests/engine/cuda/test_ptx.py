"""The kernels compiled for a GPU, without one: what the simulator cannot show. Needs the extra ``ptx``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ptx

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def counted() -> dict[str, dict[str, int]]:
    """What ``tools/cuda_ptx.py`` counts, for an H100 or H200, in a process without the simulator."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "cuda_ptx.py", "--json"],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "0"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_kernel_is_for_the_target(counted: dict[str, dict[str, int]]) -> None:
    assert len(counted) > 50 and all(each["target"] for each in counted.values())


def test_integer_products_are_the_instructions_for_it(counted: dict[str, dict[str, int]]) -> None:
    """One for every four weights, term and token of a block; a tail of 128 weights adds half a block's."""
    blocks = {"q8_0": 32, "q4_0": 32, "mxfp4": 32, "nvfp4": 64, "q1_0": 128, "q4_k": 256, "q6_k": 256, "iq4_xs": 256}
    for family, block in blocks.items():
        assert counted[f"product/{family}/2/1"]["dp4a"] == block // 4 * 2, family
    assert counted["product/q4_k/1/8"]["dp4a"] == 256 // 4 * 8
    assert counted["product/q4_k+128/2/1"]["dp4a"] == (256 + 128) // 4 * 2
    assert not any(each["dp4a"] for name, each in counted.items() if "/f/" in name or name.startswith(("tile", "rows")))


def test_lookups_are_permutations(counted: dict[str, dict[str, int]]) -> None:
    for family, block in (("iq4_nl", 32), ("mxfp4", 32), ("nvfp4", 64), ("iq4_xs", 256)):
        assert counted[f"product/{family}/2/1"]["prmt"] >= block // 4 * 2, family


def test_sums_of_tokens_stay_in_registers(counted: dict[str, dict[str, int]]) -> None:
    assert {name for name, each in counted.items() if name.startswith("product/") and each["local"]} == set()


def test_floats_stay_single(counted: dict[str, dict[str, int]]) -> None:
    """One operand of 64 bits and Numba computes in double precision, at a 64th of the speed."""
    assert {name for name, each in counted.items() if each["double"]} == set()
