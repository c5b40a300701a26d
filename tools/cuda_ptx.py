"""Compile the kernels for a GPU to PTX, on a machine without one, and count what they are made of.

The simulator runs kernels as Python; that they also compile, and to the instructions meant, shows only here.

    python tools/cuda_ptx.py [--cc 9.0] [NAME ...]          # such as product/q4_k/2/1; without names a selection
    python tools/cuda_ptx.py --json

Needs numba-cuda and NVIDIA's libnvvm (``pip install -e '.[ptx]'``).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["NUMBA_ENABLE_CUDASIM"] = "0"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from numba import cuda
from numba.cuda import dispatcher

from ggblock.engine.cuda import activations, attention, gemm, products
from ggblock.kernels import families

#: What is counted in the text of a kernel.
COUNTED = {"dp4a": r"\bdp4a\.", "prmt": r"\bprmt\.", "loads": r"\bld\.global", "stores": r"\bst\.global",
           "barriers": r"\bbar(rier)?\.sync", "local": r"\b(ld|st)\.local",
           "double": r"\b(add|mul|fma|div)\.\S*f64"}  # fmt: skip

SMALL = ("q4_0", "q5_0", "q8_0", "iq4_nl", "mxfp4", "q1_0", "expanded32")
SELECTION = [
    *(f"product/{family}/2/1" for family in families.FAMILIES if family not in ("f32", "f16", "bf16")),
    *(f"product/{family}/f/1" for family in ("f32", "f16", "bf16", "q8_0")),
    "product/q8_0/1/8", "product/q4_k/1/8", "product/q4_k+128/2/1", "tile/q4_0", "tile/q8_0", "tile/iq4_nl",
    "rows/q8_0", "rows/mxfp4", "rows/nvfp4",
    *(f"write/{kind}/{form}" for kind in activations.KINDS for form in activations.FORMS),
    "rope/norm/64/64/0/f16", "rope/neox/256/256/1/f32", "rope/norm/64/0/0/f16",
    "attend/3/64/f16", "attend/4/256/f16", "attend/1/80/f32", "combine/3/64", "add_bias", "plain_gemm",
]  # fmt: skip


def named(name: str) -> Any:
    """The kernel called ``name``."""
    kind, *rest = name.split("/")
    if kind == "product":
        return products.product(rest[0], rest[1], int(rest[2]))
    if kind in ("tile", "rows"):
        return getattr(products, kind)(rest[0])
    if kind == "write":
        return activations.writer(*rest)
    if kind == "rope":
        return attention.rope(rest[0], int(rest[1]), int(rest[2]), rest[3] == "1", rest[4])
    if kind == "attend":
        return attention.attend(int(rest[0]), int(rest[1]), rest[2])
    if kind == "combine":
        return attention.combine(int(rest[0]), int(rest[1]))
    return {"add_bias": products.ADD_BIAS, "plain_gemm": gemm.plain}[name]


def compiled(name: str, cc: tuple[int, int]) -> tuple[str, float]:
    """(PTX of kernel ``name``, seconds it took)."""
    kernel, start = named(name), time.perf_counter()
    ptx, _ = cuda.compile_ptx(kernel.function, kernel.types(), cc=cc)
    return ptx, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=SELECTION)
    parser.add_argument("--cc", default="9.0", help="compute capability")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, help="a folder for the texts")
    arguments = parser.parse_args()
    major, _, minor = arguments.cc.partition(".")
    cc = (int(major), int(minor or 0))
    # helpers that kernels call are compiled for "the current device"
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=cc)
    results = {}
    for name in arguments.names:
        ptx, seconds = compiled(name, cc)
        results[name] = {key: len(re.findall(pattern, ptx)) for key, pattern in COUNTED.items()}
        results[name] |= {"bytes": len(ptx), "seconds": round(seconds, 1), "target": f"sm_{cc[0]}{cc[1]}" in ptx}
        if arguments.save:
            arguments.save.mkdir(parents=True, exist_ok=True)
            (arguments.save / (name.replace("/", "_") + ".ptx")).write_text(ptx)
        if not arguments.json:
            print(f"{name:28}", "  ".join(f"{key} {value}" for key, value in results[name].items()), flush=True)
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
