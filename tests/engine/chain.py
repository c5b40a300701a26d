"""A plan with many rows that depend on each other: what the team's tests run."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

import ggblock
from ggblock.engine.plan import Builder, Plan, Rows
from ggblock.engine.team import Team
from ggblock.engine.weights import describe
from ggblock.format.writer import GgufWriter, TensorSpec

WIDTH = 96


class Chain:
    """``x = normed(x) @ w.T`` over and over: each product needs all threads' parts of the one before."""

    def __init__(self, folder: Path, team: Team, length: int = 12) -> None:
        path = folder / "chain.gguf"
        if not path.exists():
            w = np.random.default_rng(1).standard_normal((WIDTH, WIDTH)).astype(np.float32)
            with GgufWriter(path, {"general.architecture": "none"}, [TensorSpec("w", "f32", (WIDTH, WIDTH))]) as writer:
                writer.write("w", w)
        builder = Builder(("f", "f"), team.n_threads, 16)
        weight = describe(ggblock.open(path).tensors["w"])
        ones = np.ones(WIDTH, np.float32)
        builder.keep.append(ones)
        rows = [builder.rows(WIDTH) for _ in range(length + 1)]
        for x, y in pairwise(rows):
            builder.matmul(builder.norm(x, ones, 1e-6), weight, y)
            builder.barrier()
        self.first: Rows = rows[0]
        self.last: Rows = rows[-1]
        self.plan: Plan = builder.finish(team)

    def run(self, n_tokens: int, seed: int = 0) -> np.ndarray:
        """float32 (n_tokens, WIDTH)."""
        self.first.data[:n_tokens, :WIDTH] = np.random.default_rng(seed).standard_normal((n_tokens, WIDTH))
        self.plan.run(n_tokens, 0)
        return self.last.data[:n_tokens, :WIDTH].copy()
