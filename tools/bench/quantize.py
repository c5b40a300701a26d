#!/usr/bin/env python3
"""Measure the quantizers beside llama.cpp's: squared error and speed of each type, and of whole models.

    python tools/bench/quantize.py types [TYPE ...]                      # beside libgguf, which is llama.cpp's code
    python tools/bench/quantize.py model VOCAB.gguf --peer PYTHON -t 2 q4_k_m q2_k q6_k

``types`` prints a line a type and importance: weighted squared error over libgguf's for each kind of weights that the
tests use, and million weights a second with one and with two threads, beside libgguf's one.

``model`` writes a llama model of random float16 weights (with the vocabulary of VOCAB.gguf), quantizes it in turn with
``ggblock convert`` and with ``llama_model_quantize`` through the interpreter PYTHON, which has llama-cpp-python, and
prints the seconds of both, start of the process not counted for llama.cpp.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT), str(HERE)]

from random_model import Shape, write  # noqa: E402

PEER = """
import sys, time, ctypes, llama_cpp
source, target, ftype, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
quiet = llama_cpp.llama_log_callback(lambda *a: None)
llama_cpp.llama_log_set(quiet, None)
llama_cpp.llama_backend_init()
params = llama_cpp.llama_model_quantize_default_params()
params.nthread, params.ftype = threads, ftype
begin = time.perf_counter()
if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)):
    sys.exit("llama_model_quantize failed")
print(time.perf_counter() - begin)
"""
FTYPES = {"q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q2_k": 10, "q3_k_s": 11, "q3_k_m": 12, "q3_k_l": 13,
          "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18, "iq4_nl": 25, "iq4_xs": 30, "bf16": 32}


def best_of(run: Callable[..., object], *arguments: object, times: int = 3) -> float:
    """Least seconds of a few calls."""
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        run(*arguments)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def types(names: list[str]) -> None:
    import libgguf

    from ggblock import blocks
    from ggblock.convert.encode import encode_rows
    from tests.kernels.quantizer_inputs import KINDS, TYPES, importance, weights

    def error(x: np.ndarray, data: np.ndarray, name: str, given: np.ndarray | None) -> float:
        miss = blocks.dequantize(data, name, x.shape).astype(np.float64) - x
        return float(((1.0 if given is None else given) * miss**2).sum())

    large = weights("normal", 1024, 4096)
    for name in names or [t for t in TYPES if t not in ("f16", "bf16", "q2_0")]:
        number = blocks.by_name(name).ggml_id
        for weighted in (False, True):
            ratios = []
            for kind in KINDS:
                x, given = weights(kind), importance() if weighted else None
                theirs = np.asarray(libgguf.quantize_rows(x, number, given)).view(np.uint8).reshape(len(x), -1)
                whole = error(x, theirs, name, given)
                ours = error(x, encode_rows(x, name, given), name, given)
                ratios.append(f"{kind} {ours / whole if whole else 1:.3f}")
            given = importance(4096) if weighted else None
            one, two = (large.size / best_of(encode_rows, large, name, given, threads) / 1e6 for threads in (1, 2))
            part = large[:128]
            theirs_s = best_of(libgguf.quantize_rows, part, number, given)
            print(f"{name:7} {'weighted' if weighted else 'plain':8} {one:6.0f} {two:6.0f} beside "
                  f"{part.size / theirs_s / 1e6:6.1f} M/s   error: {', '.join(ratios)}", flush=True)


def model(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.gguf"
        heads = arguments.width // 64
        shape = Shape(arguments.width, 4 * arguments.width, arguments.layers, heads, heads, tied=False)
        n = write(source, Path(arguments.vocabulary), shape)
        print(f"{n / 1e6:.0f} M weights, float16, {arguments.threads} threads")
        for recipe in arguments.recipes:
            ours = Path(folder) / "ours.gguf"
            theirs = Path(folder) / "theirs.gguf"
            command = [sys.executable, "-m", "ggblock", "convert", str(source), str(ours), "--type", recipe,
                       "--threads", str(arguments.threads)]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            seconds: list[float] = []
            peers: list[float] = []
            for _ in range(arguments.rounds + 1):
                ours.unlink(missing_ok=True)
                begin = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True, env=environment)
                seconds.append(time.perf_counter() - begin)
                if len(seconds) > 1:       # the first compiles
                    peer = [arguments.peer, "-c", PEER, source, theirs, str(FTYPES[recipe]), str(arguments.threads)]
                    out = subprocess.run(peer, check=True, capture_output=True, text=True)
                    peers.append(float(out.stdout.split()[-1]))
            a, b = min(seconds[1:]), min(peers)
            print(f"{recipe:7} ggblock {a:6.2f} s ({n / a / 1e6:.0f} M/s), llama.cpp {b:6.2f} s "
                  f"({n / b / 1e6:.0f} M/s): {b / a:.1f} times; "
                  f"{ours.stat().st_size} and {theirs.stat().st_size} bytes", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("types")
    one.add_argument("names", nargs="*")
    one.set_defaults(run=lambda a: types(a.names))
    two = commands.add_parser("model")
    two.add_argument("vocabulary")
    two.add_argument("recipes", nargs="+", choices=FTYPES)
    two.add_argument("--peer", required=True)
    two.add_argument("-t", "--threads", type=int, default=2)
    two.add_argument("--width", type=int, default=1024)
    two.add_argument("--layers", type=int, default=6)
    two.add_argument("--rounds", type=int, default=2)
    two.set_defaults(run=model)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
