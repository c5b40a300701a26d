"""The head: the final norm and the output matrix, in plans of their own because few tokens ask for logits.

Text that is written asks for those of one token at a time, so that is what is compiled when a model is loaded; how many
tokens' logits are computed at once is compiled and its buffers made when somebody first asks for them all (``eval``
does): two kernels of some twenty.
"""

from __future__ import annotations

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


@dataclass
class DrawnHead:
    """A head before anything is compiled; its last ``n_writing`` rows write ``logits``."""

    builder: Builder
    logits: Rows
    n_writing: int


def draw_head(builder: Builder, config: Config, written: Written, x: Rows, output: Weight) -> DrawnHead:
    """The rows that make logits of ``x``, or of what the last layer wrote instead."""
    logits = builder.rows(config.n_vocab)
    builder.keep.append(written.output_norm)
    a = builder.norm(written.x or x, written.output_norm, config.eps, written.residual)
    n_writing = 1
    if output.is_parted:
        n_writing = builder.largest(a, output, logits)
    else:
        builder.matmul(a, output, logits)
    builder.barrier()
    return DrawnHead(builder, logits, n_writing)


class Head:
    """``plan`` makes one token's logits, from row 0 of what it reads."""

    def __init__(self, one: DrawnHead, many: DrawnHead, team: Team, notify: Notify | None) -> None:
        self.plan = one.builder.finish(team)
        self._one, self._drawn, self._team, self._notify = one, many, team, notify
        self._many: Plan | None = self.plan if many is one else None

    def last(self, plan: Plan, position: int, best: int) -> npt.NDArray[np.float32]:
        """Runs ``plan``, which ends with this head's, for the token at ``position``; its logits, (1, at least
        n_vocab): only the ``best`` largest are asked for, or all where that is 0."""
        self.plan.state[fields.N_TOKENS] = 1
        self.plan.state[fields.BEST] = best if best <= fields.MOST else 0
        logits = np.empty((1, self._one.logits.stride // 4), np.float32)
        # the head's matrix writes them (kernels.matmul, kernels.sieve): no copy
        plan.end_at(self._one.n_writing, logits)
        plan.run(1, position)
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
