#!/usr/bin/env python3
"""A busy machine: decode with one spinning process a core beside it, ours and llama.cpp's, as a share of quiet speed.

    python tools/bench/busy.py --peer /path/with/llama-cpp-python/bin/python --models smollm2 b1-q4_k_m

Goals: ours keeps at least 40 % of its quiet speed, and is never slower than llama.cpp under the same load. Rounds
alternate between quiet and busy, and between the two sides (see ``table.py``, whose options these are). The spinning
processes have the usual priority, as both sides must have. Where other work loads the machine its "quiet" is not quiet;
Linux with automatic groups lets a session outweigh the others::

    setsid -w bash -c 'echo -20 > /proc/self/autogroup; exec python tools/bench/busy.py ...'
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE)]

import goals  # noqa: E402
import machine  # noqa: E402
import table  # noqa: E402
from worker import Test  # noqa: E402

SHARE = 0.40  # of the quiet speed
QUIET, BUSY = "quiet", "busy"


class Spinning:
    """One process a core that only spins, while the block runs."""

    def __enter__(self) -> None:
        command = [sys.executable, "-c", "while True: pass"]
        self._processes = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
        time.sleep(0.3)

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def measure(args: argparse.Namespace, model: str, path: Path, samples: table.Samples) -> None:
    """Samples of every side, named after the side and whether the machine was busy."""
    test = Test.parse(args.test)
    with table.Sides(args, path, [test]) as sides:
        names = [name for name in sides.names(test) if name != table.ROOF]
        for name in names:
            sides.ask(name, test)  # everything is loaded before the first round
        for number in range(args.rounds):
            for name in names:
                quiet = sides.ask(name, test)
                with Spinning():
                    busy = sides.ask(name, test)
                for state, found in ((QUIET, quiet), (BUSY, busy)):
                    side = f"{name}, {state}"
                    samples.add(table.Sample(model, test.name, side, number, found["speed"], found["others"]))
                print(
                    f"{model} round {number + 1} {name}: quiet {quiet['speed']:.1f}, busy {busy['speed']:.1f}",
                    file=sys.stderr,
                )


def report(args: argparse.Namespace, samples: table.Samples, model: str) -> list[str]:
    """The rows of one model."""
    lines = []
    sides = [s.rpartition(", ")[0] for s in samples.sides(model) if s.endswith(QUIET)]
    busy = {side: samples.speeds(model, args.test, f"{side}, {BUSY}") for side in sides}
    peers = [median(busy[side]) for side in sides if side != table.OURS]
    for side in sides:
        quiet = samples.speeds(model, args.test, f"{side}, {QUIET}")
        share = median(b / q for b, q in zip(busy[side], quiet))
        said = ""
        if side == table.OURS:
            said = f"{goals.verdict(share, SHARE)} ({SHARE:.0%} of quiet)"
            if peers:
                ratio = median(busy[side]) / max(peers)
                said += f"; {ratio:.2f} × llama.cpp: {goals.verdict(ratio, 1.0)}"
        lines.append(
            f"| {model} | {side} | {median(quiet):.1f} | {median(busy[side]):.1f} "
            f"({min(busy[side]):.1f}–{max(busy[side]):.1f}) | {share:.0%} | {said} |"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["smollm2", "b1-q4_k_m"], help="as of table.py")
    parser.add_argument("--test", default="tg16")
    table.common_options(parser)
    args = parser.parse_args()
    args.peer_only = False
    models = table.locate(args.models, args.dir, args.python)
    samples = table.Samples()
    for name, path in models.items():
        measure(args, name, path, samples)
    lines = table.heading("busy machine", args.peer, args.note)
    lines += [f"| model | side | {args.test} quiet | busy | share | verdict |", "|---|---|---|---|---|---|"]
    for name in models:
        lines += report(args, samples, name)
    lines += ["", f"Tokens a second, medians of {args.rounds} rounds; busy: {os.cpu_count()} spinning processes.", ""]
    machine.publish(lines, record=not args.no_record)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
