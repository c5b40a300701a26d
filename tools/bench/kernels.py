#!/usr/bin/env python3
"""The matrix products alone: every block type on every vector machine that this CPU can run.

    python tools/bench/kernels.py                                    # all types, all machines; some minutes
    python tools/bench/kernels.py --types q4_k q6_k --machines avx2
    python tools/bench/kernels.py --compile                          # only compile, so that measuring starts at once

Decode: one token times layers of 2048 -> 2048 + 8192 -> 2048 (with a gate before the last, as models have it), repeated
until the packed weights take ``--mb`` megabytes, which no cache holds; in GB/s, and as a share of the read bandwidth
that was measured just before and after (``roof.py``; the median of ``--rounds`` such shares, a round repeated when
these two differ). Prefill: 512 tokens times one such layer, in G multiply-adds a second and core. Every machine is
measured in a process of its own, which ``GGBLOCK_MACHINE`` sets up.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT), str(HERE)]

from ggblock.simd.host import MACHINES  # noqa: E402

TYPES = "q2_k q3_k q4_k q5_k q6_k q4_0 q4_1 q5_0 q5_1 q8_0 iq4_nl iq4_xs tq1_0 tq2_0 q1_0 q2_0 mxfp4 f16 bf16".split()
TYPES += "iq3_s iq3_xxs iq2_s iq2_xs iq2_xxs iq1_s iq1_m".split()  # of these the bytes that they are packed in count
LAYER = ((2048, 2048), (8192, 2048), (2048, 8192))  # rows, columns
LAYER_WEIGHTS = sum(rows * cols for rows, cols in LAYER)
BATCH = 512
GOAL = 0.85  # of the roof, in decode


def random_rows(type_name: str, n_rows: int, n_cols: int) -> np.ndarray:
    """uint8 (n_rows, row_bytes): any codes, and 0.01 wherever a block holds a float."""
    from ggblock import blocks

    block = blocks.by_name(type_name)
    raw = np.random.default_rng(1).integers(0, 256, (n_rows * n_cols // block.block_size, block.block_bytes), np.uint8)
    value = np.float32(0.01)
    floats = {
        "f16": value.astype("<f2").tobytes(),
        "bf16": value.astype("<f4").tobytes()[2:],
        "f32": value.astype("<f4").tobytes(),
        "e8m0": bytes([127 - 7]),
    }
    for field in block.layout:
        if field.kind in floats:
            raw[:, field.offset : field.end] = np.frombuffer(floats[field.kind] * field.count, np.uint8)
    return raw.reshape(n_rows, -1)


def layer_file(folder: Path, type_name: str) -> Path:
    """A GGUF file with the matrices of one layer."""
    from ggblock.format import GgufWriter, TensorSpec

    path = folder / f"{type_name}.gguf"
    specs = [TensorSpec(f"{rows}x{cols}", type_name, (rows, cols)) for rows, cols in LAYER]
    with GgufWriter(path, {"general.architecture": "none"}, specs) as writer:
        for spec, (rows, cols) in zip(specs, LAYER):
            writer.write(spec.name, random_rows(type_name, rows, cols))
    return path


class Layers:
    """A plan of ``n`` layers of one type; every layer has weights of its own in memory."""

    def __init__(self, weights: list[Any], n: int, modes: tuple[str, str], threads: int, batch: int) -> None:
        from ggblock.engine.memory import Arena, aligned
        from ggblock.engine.plan import Builder
        from ggblock.engine.team import Team

        self._team = Team(threads)
        builder = Builder(modes, threads, batch)
        x, wide, y = builder.rows(2048), builder.rows(8192), builder.rows(2048)
        x.data[:, :2048] = np.random.default_rng(2).standard_normal((len(x.data), 2048), np.float32)
        wide.data[:, :8192] = np.random.default_rng(3).standard_normal((len(x.data), 8192), np.float32)
        self.n_bytes = n * sum(w.data.size for w in weights)
        arena = Arena(n * sum(aligned(w.data.size) for w in weights))
        for _ in range(n):
            copies = []
            for w in weights:
                copies.append(dataclasses.replace(w, data=arena.take(w.data.size)))
                copies[-1].data[:] = w.data
            square, up, down = copies
            narrow = builder.copy(x)
            builder.matmul(narrow, square, y)
            builder.matmul(narrow, up, wide)
            builder.barrier()
            builder.matmul(builder.gate("silu", wide, wide), down, y)
            builder.barrier()
        self._plan = builder.finish(self._team)

    def seconds(self, n_tokens: int, least_s: float = 0.04) -> float:
        """A pass, the mean over at least ``least_s``, after four times as long that does not count: threads that slept
        may wake on one processor, and it takes the system up to a tenth of a second to part them."""
        until = time.perf_counter() + 4 * least_s
        while time.perf_counter() < until:
            self._plan.run(n_tokens, 0)
        passes, begin = 0, time.perf_counter()
        while (spent := time.perf_counter() - begin) < least_s or not passes:
            self._plan.run(n_tokens, 0)
            passes += 1
        return spent / passes

    def close(self) -> None:
        self._team.close()


def packed(path: Path, modes: tuple[str, str]) -> list[Any]:
    """The weights of a file as the engine packs them for products in ``modes``."""
    import ggblock
    from ggblock.engine.plan import Builder
    from ggblock.engine.team import Team
    from ggblock.engine.weights import describe

    with ggblock.open(path) as file:
        found = [describe(tensor) for tensor in file.tensors.values()]
        builder, team = Builder(modes, 1, 1), Team(1)
        for w in found:
            builder.matmul(builder.copy(builder.rows(w.n_cols)), w, builder.rows(w.n_rows))
            builder.barrier()
        builder.finish(team)
        team.close()
    return found


def modes_of(activations: str) -> tuple[str, str]:
    """``activations``: a name of ``models.ACTIVATIONS``, or the modes themselves, such as "1/1"."""
    from ggblock.models import ACTIVATIONS

    one, _, many = activations.partition("/")
    return (one, many) if many else ACTIVATIONS[activations][0]


def kernel_names(type_name: str, activations: str) -> list[str]:
    """What measuring a type will need."""
    from ggblock.kernels.families import form_of, mode_of_many, mode_of_one, rewriter
    from ggblock.kernels.families import modes_of as modes_of_family
    from ggblock.kernels.fields import TABLED
    from ggblock.simd.host import host

    one, many = modes_of_family(type_name, modes_of(activations), host().machine)
    family = form_of(type_name, (one, many), host().machine)
    way = mode_of_one(family, (one, many), host().machine)
    tables = [TABLED[way][0]] if way in TABLED else []
    inputs = [f"copy/{one}/{many}", f"gate/silu/{one}/{many}", *tables]
    packing = ["repack", *filter(None, [rewriter(family)])]
    return [*inputs, f"matmul/{family}/{way}/{mode_of_many(family, (one, many), host())}", *packing, "team", "post"]


def measure(args: argparse.Namespace, type_name: str, data: Any) -> dict[str, float]:
    """One line of the table. ``data``: what ``roof.filled`` made."""
    import machine
    import roof

    modes = modes_of(args.activations)
    with tempfile.TemporaryDirectory() as folder:
        weights = packed(layer_file(Path(folder), type_name), modes)
    n = -(-args.mb * 10**6 // sum(w.data.size for w in weights))
    many, one = Layers(weights, n, modes, args.threads, 1), Layers(weights, n, modes, 1, 1)
    many.seconds(1, 0.25), one.seconds(1)  # threads that the system put on one processor are parted by then

    def top() -> float:
        return float(roof.roof(data, range(1, args.threads + 1))["gb_per_s"])

    def one_round() -> tuple[float, float, float, float]:
        """Speeds on all threads and on one in GB/s, between two roofs."""
        return top(), many.n_bytes / 1e9 / many.seconds(1), one.n_bytes / 1e9 / one.seconds(1), top()

    rounds = [machine.steadiest(one_round, lambda found: (found[0], found[3])) for _ in range(args.rounds)]
    speeds, singles = [r[1] for r in rounds], [r[2] for r in rounds]
    roofs = [(r[0] + r[3]) / 2 for r in rounds]
    many.close(), one.close()
    batch = Layers(weights, 1, modes, args.threads, BATCH)
    batch.seconds(BATCH, 0)
    prefill = median(BATCH * LAYER_WEIGHTS / 1e9 / batch.seconds(BATCH) for _ in range(args.rounds))
    batch.close()
    return {
        "decode_gb_per_s": median(speeds),
        "roof_gb_per_s": median(roofs),
        "share": median(s / r for s, r in zip(speeds, roofs)),
        "one_thread_gb_per_s": median(singles),
        "prefill_g_per_s": prefill / args.threads,
    }


def child(args: argparse.Namespace) -> int:
    """One machine: a line of JSON for each type."""
    from ggblock.engine.store import kernels

    kernels(dict.fromkeys(name for t in args.types for name in kernel_names(t, args.activations)))
    if args.compile:
        return 0
    import roof

    data = roof.filled(args.mb * 10**6)
    for type_name in args.types:
        print(json.dumps({"type": type_name} | measure(args, type_name, data)), flush=True)
    return 0


def runnable() -> list[str]:
    """Machines that this CPU has."""
    found = []
    for name in MACHINES:
        test = "from ggblock.simd.host import host; host()"
        env = os.environ | {"PYTHONPATH": str(ROOT), "GGBLOCK_MACHINE": name}
        if subprocess.run([sys.executable, "-c", test], env=env, capture_output=True).returncode == 0:
            found.append(name)
    return found


def rows_of(args: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    """All lines of one machine, from a child process; each is said on stderr as it comes."""
    command = [sys.executable, __file__, "--child", "--mb", str(args.mb), "--rounds", str(args.rounds)]
    command += ["-t", str(args.threads), "--activations", args.activations, "--types", *args.types]
    command += ["--compile"] if args.compile else []
    env = os.environ | {"GGBLOCK_MACHINE": name}
    found = []
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            found.append({"machine": name} | json.loads(line))
            print(table(found[-1:])[-1], file=sys.stderr, flush=True)
    if process.returncode:
        raise SystemExit(f"{name}: exit {process.returncode}")
    return found


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each machine and type."""
    lines = [
        "| machine | type | decode GB/s | roof GB/s | share | verdict | one thread GB/s | prefill G/s a core |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        verdict = "pass" if r["share"] >= GOAL else "**short**"
        lines.append(
            f"| {r['machine']} | {r['type']} | {r['decode_gb_per_s']:.1f} | {r['roof_gb_per_s']:.1f} | "
            f"{r['share']:.0%} | {verdict} | {r['one_thread_gb_per_s']:.1f} | {r['prefill_g_per_s']:.0f} |"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="+", default=list(TYPES))
    parser.add_argument("--machines", nargs="+", choices=MACHINES, help="[default: all that this CPU has]")
    parser.add_argument("--mb", type=int, default=240, help="megabytes of packed weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-t", dest="threads", type=int, default=2)
    parser.add_argument("--activations", default="fast", help="as ggblock run, or modes such as 1/1")
    parser.add_argument("--compile", action="store_true", help="compile the kernels and measure nothing")
    parser.add_argument("--note", default="", help="a line for the record")
    parser.add_argument("--record", action="store_true", help="append to RESULTS.md")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args)
    rows = [row for name in args.machines or runnable() for row in rows_of(args, name)]
    if not args.compile:
        import machine
        import table as tables

        lines = tables.heading("kernels", note=args.note) + table(rows)
        lines += ["", f"Decode over {args.mb} MB on {args.threads} threads; goal {GOAL:.0%} of the roof.", ""]
        machine.publish(lines, record=args.record)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
