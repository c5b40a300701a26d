#!/usr/bin/env python3
"""ggblock's side of a comparison: loads a model and measures the tests that come on stdin (see ``worker.py``).

    echo '{"kind": "pp", "n": 512, "depth": 0}' | python tools/bench/ours.py MODEL -t 2 --context 4240
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE)]

import worker  # noqa: E402


def option(text: str) -> tuple[str, Any]:
    """``name=value`` for ``ggblock.load``; numbers and booleans are such."""
    name, _, value = text.partition("=")
    words = {"true": True, "false": False, "none": None}
    return name, words[value] if value in words else int(value) if value.isdecimal() else value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-t", dest="threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--best", type=int, default=1, help="largest logits that a step of decode asks for; 0: all")
    parser.add_argument("--load", type=option, nargs="*", default=[], metavar="NAME=VALUE", help="for ggblock.load")
    args = parser.parse_args()
    import ggblock
    from ggblock.runtime.bench import Case, measure

    with ggblock.load(args.model, threads=args.threads, context=args.context, **dict(args.load)) as model:
        before = 0.0

        def cases() -> Iterator[Case]:
            nonlocal before
            for test in worker.requests():
                before = time.process_time()
                yield Case(test.kind, test.n, test.depth)  # type: ignore[arg-type]

        for measured in measure(model, cases(), repetitions=1, best=args.best):
            worker.answer(measured.tokens_per_s, time.process_time() - before)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
