#!/usr/bin/env python3
"""Exact logits of a model on a text: torch in float32 on the dequantized weights, kept in a folder for comparisons.

Run it where torch, transformers and gguf are installed::

    python tools/bench/exact.py MODEL IDS.json CACHE        # IDS.json: {"chunks": [[...], ...], "first_scored": 256}

A cache folder holds ``cache.json``, ``ids.npy`` int32 (n_chunks, size) and ``exact_NNN.npy`` float32
(n_scored, n_vocab) for each chunk; for a vocabulary of 262,144 that is 268 MB a chunk. :class:`Cache` reads it
and needs numpy only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))


class Cache:
    """Exact logits in ``folder``, to compare a run with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = json.loads((folder / "cache.json").read_text())
        self.ids = np.load(folder / "ids.npy")
        self.first_scored: int = self.facts["first_scored"]
        self.chunk: int = self.ids.shape[1]

    def __len__(self) -> int:
        return sum((self.folder / f"exact_{i:03}.npy").exists() for i in range(len(self.ids)))

    def exact(self, i: int) -> np.ndarray:
        """float32 (n_scored, n_vocab), mapped from the file."""
        return np.load(self.folder / f"exact_{i:03}.npy", mmap_mode="r")

    def compare(self, run: Callable[[list[int]], np.ndarray], *, chunks: int | None = None) -> dict[str, Any]:
        """Divergence of ``run`` (ids of a chunk -> float32 (n_scored, n_vocab)) from the exact logits."""
        from ggblock.evaluate.divergence import Divergence

        found = Divergence()
        elapsed_s = 0.0
        for i in range(min(len(self), chunks or len(self))):
            ids = [int(t) for t in self.ids[i]]
            begin = time.perf_counter()
            rows = run(ids)
            elapsed_s += time.perf_counter() - begin
            found.add(self.exact(i), rows, self.ids[i, self.first_scored + 1 :])
        return found.report().as_dict() | {"run_s": elapsed_s}


def fill(model_path: str, job: dict[str, Any], folder: Path) -> None:
    """Compute what is missing in ``folder``; chunk after chunk, each file appears when it is whole."""
    import torch

    from tests.oracle import torch_models

    folder.mkdir(parents=True, exist_ok=True)
    ids = np.array(job["chunks"], np.int32)
    np.save(folder / "ids.npy", ids)
    facts = {"model": os.path.basename(model_path), "first_scored": job["first_scored"]}
    (folder / "cache.json").write_text(json.dumps(facts))
    missing = [i for i in range(len(ids)) if not (folder / f"exact_{i:03}.npy").exists()]
    if not missing:
        return
    model = torch_models.load(model_path)
    for i in missing:
        with torch.no_grad():
            keep = ids.shape[1] - int(job["first_scored"])
            rows = model(input_ids=torch.as_tensor(ids[i].astype(np.int64))[None], use_cache=False, logits_to_keep=keep)
        part = folder / f"exact_{i:03}.part.npy"
        np.save(part, rows.logits[0].float().numpy())
        part.rename(folder / f"exact_{i:03}.npy")
        print(f"chunk {i + 1} of {len(ids)}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("ids")
    parser.add_argument("cache")
    args = parser.parse_args()
    fill(args.model, json.loads(Path(args.ids).read_text()), Path(args.cache))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
