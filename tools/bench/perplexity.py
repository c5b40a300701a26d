#!/usr/bin/env python3
"""Convert a checkpoint to every type, load each file in llama.cpp, and compare perplexities.

    python tools/bench/perplexity.py CHECKPOINT TEXT.txt --peer PYTHON [-n CHUNKS] [TYPE ...]

A line a type: perplexity in reference mode (float32 activations: what the weights in the file are worth), in fast mode,
and in llama.cpp through the interpreter PYTHON, which has llama-cpp-python; then both runs as percent of the reference.
All score the same tokens: the second half of each chunk of 512, as llama.cpp's own tool does. Standard errors of the
perplexities themselves are far larger (they share the text), and say nothing about the differences.

Every file must load in llama.cpp. Exit code 1 where fast mode differs from llama.cpp by more than --limit percent
and is also the one that lies further from the reference.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT)]


def mean_loss(rows: np.ndarray, ids: list[int]) -> float:
    """Mean negative log likelihood of the tokens after ``ids[first]``; ``rows`` float32 (n, n_vocab) foretell them."""
    wide = rows.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return float(np.mean(np.log(np.exp(wide).sum(axis=-1)) - wide[np.arange(len(ids)), ids]))


def peer(model: str, job: str, threads: int) -> None:
    """In the peer's interpreter: print the perplexity of the job's chunks."""
    from llama_peer import Peer

    table = json.loads(Path(job).read_text())
    first = table["first_scored"]
    run = Peer(model, n_ctx=len(table["ids"][0]), threads=threads)
    losses = [mean_loss(run.logits(ids)[first:-1], ids[first + 1 :]) for ids in table["ids"]]
    print(json.dumps(float(np.exp(np.mean(losses)))))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint"), parser.add_argument("text")
    parser.add_argument("types", nargs="*", metavar="TYPE")
    parser.add_argument("--peer", metavar="PYTHON")
    parser.add_argument("--as-peer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-n", "--chunks", type=int, default=8)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=0.5, help="Percent. [default: %(default)s]")
    args = parser.parse_intermixed_args()
    if args.as_peer:
        peer(args.checkpoint, args.text, args.threads)
        return 0
    import ggblock
    from ggblock.convert import convert, recipe_names
    from ggblock.evaluate import run

    worse = []
    titles = f"{'type':8} {'bytes':>12} {'reference':>10} {'fast':>10} {'llama.cpp':>10}"
    print(f"{titles}   fast  llama.cpp  fast/llama.cpp")
    text = Path(args.text).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.types or recipe_names():
            path = Path(folder) / "model.gguf"
            convert(args.checkpoint, path, name)
            found = []
            for reference in (True, False):
                with ggblock.load(path, threads=args.threads, context=512, reference=reference) as model:
                    chunks = run.chunks_of(model, text, 512, limit=args.chunks)
                    found.append(run.perplexity(model, chunks).perplexity)
            job = Path(folder) / "job.json"
            job.write_text(json.dumps({"ids": chunks.ids.tolist(), "first_scored": chunks.first_scored}))
            command = [args.peer or sys.executable, __file__, "--as-peer", path, job, "-t", str(args.threads)]
            theirs = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            exact, ours = found
            away = [100 * (value / exact - 1) for value in (ours, theirs)]
            apart = 100 * (ours / theirs - 1)
            if abs(apart) > args.limit and abs(away[0]) > abs(away[1]):
                worse.append(name)
            print(f"{name:8} {path.stat().st_size:12} {exact:10.4f} {ours:10.4f} {theirs:10.4f} "
                  f"{away[0]:+6.2f}% {away[1]:+6.2f}% {apart:+6.2f}%", flush=True)
            path.unlink()
    print("further from the reference than llama.cpp: " + (" ".join(worse) or "none"))
    return bool(worse)


if __name__ == "__main__":
    raise SystemExit(main())
