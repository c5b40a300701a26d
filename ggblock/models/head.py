"""The head: the final norm and the output matrix, in plans of their own because few tokens ask for logits.

Text that is written asks for those of one token at a time, so that is what is compiled when a model is loaded; how many
tokens' logits are computed at once is compiled and its buffers made when somebody first asks for them all (``eval``
does): two kernels of some twenty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine.plan import Builder, Plan, Rows
from ..engine.store import Notify
from ..engine.team import Team
from ..engine.weights import Weight
from ..kernels import fields
from .config import Config
from .written import Written

LOGIT_ROWS = 32  # tokens whose logits are computed at once when all are asked for
LATEST = 4  # tokens that count in how many panels are read beside a sketch
RESTS = 15  # tokens for which an output matrix is read whole after its sketch left too little out


@dataclass
class DrawnHead:
    """A head before anything is compiled; its last ``n_writing`` rows write ``logits``. A sketch is of no use where
    more than ``most_found`` panels are read beside it."""

    builder: Builder
    logits: Rows
    n_writing: int
    most_found: float = math.inf


def draw_head(builder: Builder, config: Config, written: Written, x: Rows, output: Weight) -> DrawnHead:
    """The rows that make logits of ``x``, or of what the last layer wrote instead."""
    logits = builder.rows(config.n_vocab)
    builder.keep.append(written.output_norm)
    a = builder.norm(written.x or x, written.output_norm, config.eps, written.residual)
    n_writing, most_found = 1, math.inf
    sketch = output.sketch if builder.batch == 1 else None
    if sketch:  # single panels are read half as fast as all, one after the other
        most_found = output.n_panels / 2 * (1 - sketch.panel_bytes / output.panel_bytes)
    if output.is_parted or sketch:
        n_writing = builder.largest(a, output, logits)
    else:
        builder.matmul(a, output, logits)
    builder.barrier()
    return DrawnHead(builder, logits, n_writing, most_found)


class Head:
    """``plan`` makes one token's logits, from row 0 of what it reads."""

    def __init__(self, one: DrawnHead, many: DrawnHead, team: Team, notify: Notify | None) -> None:
        self.plan = one.builder.finish(team)
        self._one, self._drawn, self._team, self._notify = one, many, team, notify
        self._many: Plan | None = self.plan if many is one else None
        self._best, self._resting, self._found = 0, 0, 0.0  # what was asked for last; see ``last``

    def last(self, plan: Plan, position: int, best: int) -> npt.NDArray[np.float32]:
        """Runs ``plan``, which ends with this head's, for the token at ``position``; its logits, (1, at least
        n_vocab): only the ``best`` largest are asked for, or all where that is 0.

        Where a sketch leaves too little out (SmolLM2-135M: of text 93 % of panels for 40 words, of random tokens 81 %)
        the matrix is read whole for some tokens, then it is tried again.
        """
        self.plan.state[fields.N_TOKENS] = 1
        best = best if best <= fields.MOST else 0
        if best != self._best:
            self._best, self._resting, self._found = best, 0, 0.0
        asked = 0 if self._resting else best
        self.plan.state[fields.BEST], self.plan.state[fields.FOUND] = asked, 0
        logits = np.empty((1, self._one.logits.stride // 4), np.float32)
        # the head's matrix writes them (kernels.matmul, kernels.sieve, kernels.sketch): no copy
        plan.end_at(self._one.n_writing, logits)
        plan.run(1, position)
        if self._resting:
            self._resting -= 1
        elif asked:
            self._found += (self.plan.state[fields.FOUND] - self._found) / LATEST
            self._resting = RESTS if self._found > self._one.most_found else 0
        return logits

    def rows(self, first: int, count: int) -> npt.NDArray[np.float32]:
        """The logits of rows ``first`` and on of what the last layer wrote, (count, at least n_vocab); at most
        ``LOGIT_ROWS``."""
        if self._many is None:
            self._many = self._drawn.builder.finish(self._team, self._notify)
        self._many.start_at(first)
        self._many.run(count, 0)
        found: npt.NDArray[Any] = self._many.fetch(self._drawn.logits, count)
        return found
