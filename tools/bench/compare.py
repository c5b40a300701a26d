#!/usr/bin/env python3
"""ggblock and llama.cpp on the same files, in turn: tokens per second of prefill and decode, and their ratios.

    python tools/bench/compare.py smollm2.gguf gemma3.gguf --peer-python /path/with/llama-cpp-python/bin/python \
        -p 512 -n 128 -d 0 4096 -t 2 --rounds 5 --roof

Each round runs ``ggblock bench``, then the peer with and without flash attention (the better of the two counts), every
one a process of its own, so that a slow moment of the machine hits all of them alike; figures are medians over the
rounds. A run that others disturbed (they used more than ``--quiet`` cores meanwhile) is repeated up to twice, and what
they used is part of the record. The table is printed and appended to tools/bench/RESULTS.md with the machine's facts.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

import machine  # noqa: E402

Speeds = dict[str, list[float]]


Parts = list[tuple[int, int]]


def parts(args: argparse.Namespace) -> Parts:
    """(prefill, depth) of each process: prefill and decode at depth 0, decode alone at the others."""
    return [(args.prompt if depth == 0 else 0, depth) for depth in args.depths]


def bench_ours(args: argparse.Namespace, model: str, prompt: int, depth: int) -> machine.Run:
    return machine.run(
        [
            args.python,
            "-m",
            "ggblock",
            "bench",
            model,
            "-p",
            str(prompt),
            "-n",
            str(args.gen),
            "-d",
            str(depth),
            "-t",
            str(args.threads),
            "-r",
            "1",
            "--json",
            *args.ours,
        ],
        os.environ | {"PYTHONPATH": str(ROOT)},
    )


def bench_peer(args: argparse.Namespace, model: str, prompt: int, depth: int, flash: str) -> machine.Run:
    return machine.run(
        [
            args.peer_python,
            str(HERE / "llama_peer.py"),
            "bench",
            model,
            "-p",
            str(prompt),
            "-n",
            str(args.gen),
            "-d",
            str(depth),
            "-t",
            str(args.threads),
            "--flash",
            flash,
        ]
    )


def alternate(args: argparse.Namespace, model: str) -> tuple[dict[str, Speeds], list[float]]:
    """Speeds by runner and test, and the disturbance of each run that counted."""
    speeds: dict[str, Speeds] = defaultdict(lambda: defaultdict(list))
    noise = []
    runners: dict[str, Callable[[int, int], machine.Run]] = {}
    if not args.peer_only:
        runners["ggblock"] = partial(bench_ours, args, model)
    if args.peer_python:
        runners |= {f"llama.cpp fa={flash}": partial(bench_peer, args, model, flash=flash) for flash in args.flash}
    for number in range(args.rounds):
        for prompt, depth in parts(args):
            for name, runner in runners.items():
                for _ in range(3):
                    done = runner(prompt, depth)
                    if done.others <= args.quiet:
                        break
                noise.append(done.others)
                found = {r["test"]: r["tokens_per_s"] for r in json.loads(done.stdout)["results"]}
                for test, speed in found.items():
                    speeds[name][test].append(speed)
                print(
                    f"round {number + 1} {name}: "
                    + ", ".join(f"{t} {s:.1f}" for t, s in found.items())
                    + f"  (others {done.others:.2f} cores)",
                    file=sys.stderr,
                    flush=True,
                )
    return speeds, noise


def bytes_per_token(model: str) -> int:
    """What one decode step must read: all tensors, of an untied embedding only a row."""
    sys.path.insert(0, str(ROOT))
    import ggblock

    with ggblock.open(model) as file:
        total = sum(t.n_bytes for t in file.tensors.values())
        if "output.weight" in file.tensors:
            total -= file.tensors["token_embd.weight"].n_bytes
    return int(total)


def table(args: argparse.Namespace, model: str, speeds: dict[str, Speeds], roof: float | None) -> list[str]:
    peers = [name for name in speeds if name != "ggblock"]
    tests = list(dict.fromkeys(test for runner in speeds.values() for test in runner))
    head = ["test", *speeds, *(["ratio"] if peers and "ggblock" in speeds else []), *(["of the roof"] if roof else [])]
    lines = [f"**{Path(model).name}**", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for test in tests:
        cells = [test]
        for runner in speeds.values():
            cells.append(
                f"{median(runner[test]):.1f} ({min(runner[test]):.0f}–{max(runner[test]):.0f})"
                if test in runner
                else "–"
            )
        if peers and "ggblock" in speeds:
            best = max(median(speeds[p][test]) for p in peers)
            cells.append(f"{median(speeds['ggblock'][test]) / best:.2f}" if test in speeds["ggblock"] else "–")
        if roof:
            ours = speeds.get("ggblock", {}).get(test)
            reads = test.startswith("tg") and ours
            cells.append(f"{median(ours) * bytes_per_token(model) / 1e9 / roof:.0%}" if ours and reads else "–")
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="paths of GGUF files")
    parser.add_argument("--peer-python", help="an interpreter with llama-cpp-python")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs ggblock")
    parser.add_argument("-p", dest="prompt", type=int, default=512)
    parser.add_argument("-n", dest="gen", type=int, default=128)
    parser.add_argument("-d", dest="depths", type=int, nargs="+", default=[0])
    parser.add_argument("-t", dest="threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flash", nargs="+", choices=("auto", "on", "off"), default=["on", "off"])
    parser.add_argument("--quiet", type=float, default=0.2, help="cores that others may use before a run is repeated")
    parser.add_argument("--roof", action="store_true", help="measure the read bandwidth too")
    parser.add_argument("--peer-only", action="store_true")
    parser.add_argument("--ours", nargs="*", default=[], metavar="ARG", help="further arguments of ggblock bench")
    parser.add_argument("--note", default="", help="a line for the record")
    parser.add_argument("--no-record", action="store_true")
    args = parser.parse_args()

    facts = machine.describe()
    lines = [
        f"## {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC, commit {machine.commit()}",
        "",
        f"{facts['cpu']}, {facts['cores']} cores, {args.threads} threads; {' '.join(facts['flags'])}; "
        f"{facts['system']}; "
        f"Python {facts['python']}; " + ", ".join(f"{k} {v}" for k, v in facts["versions"].items()) + ".",
    ]
    if args.peer_python:
        peer = json.loads(machine.run([args.peer_python, str(HERE / "llama_peer.py"), "info"]).stdout)
        lines.append(f"Peer: llama-cpp-python {peer['version']}, {' '.join(peer['flags'])}.")
    lines += [args.note] if args.note else []
    lines.append("")
    for model in args.models:
        roof = None
        if args.roof:
            import roof as reader

            found = reader.roof(bytes_per_token(model), args.threads)
            roof = found["gb_per_s"]
            lines += [
                f"Read bandwidth of {bytes_per_token(model) / 1e6:.0f} MB, {args.threads} threads: {roof:.1f} GB/s.",
                "",
            ]
        speeds, noise = alternate(args, model)
        lines += table(args, model, speeds, roof)
        lines += [
            f"Median of {args.rounds} alternating rounds (lowest–highest); others used {median(noise):.2f} cores "
            f"(at most {max(noise):.2f}).",
            "",
        ]
    text = "\n".join(lines) + "\n"
    print(text)
    if not args.no_record:
        results = HERE / "RESULTS.md"
        if not results.exists():
            results.write_text(
                "# Measured\n\nAppended by `tools/bench/compare.py`; tokens per second, newest last.\n\n"
            )
        with results.open("a", encoding="utf-8") as out:
            out.write(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
