"""A prompt's last layer: all of its tokens leave keys and values there, but only the last one's logits are asked for.

So for the others that layer ends where their keys and values are written; the last token goes through it again, alone,
as a token does that is generated. Of 1.07 B models' 16 layers that saves all but a twentieth of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engine.plan import Builder, Plan
from ..kernels import fields

if TYPE_CHECKING:
    from .compiled import Layers


@dataclass
class Place:
    """Where a layer lies in a plan: its first row, and the one that writes its keys and values (``kernels.rope``)."""

    first: int = 0
    rope: int = 0


class LastLayer:
    """The plans that compute a last token's logits.

    ``step``: all layers and the head, for one token. ``until``, ``alone``: for more, everything up to the keys and
    values of the last layer, and then for one of them that layer and the head; its floats are at row 0 (``bring``).
    """

    def __init__(self, builder: Builder, layers: Layers, plan: Plan, head: Plan) -> None:
        at = layers.last
        queries = builder.products_to(layers.q, at.first, at.rope)
        self.step = plan.then(head)
        self.until = plan.only([i for i in range(at.rope + 1) if i not in queries])
        self.until.rows[-1, fields.A + 2] = 0  # heads: rope turns no queries
        self.alone = self.step.only(list(range(at.first, len(self.step.rows))))
        self._floats = builder.floats_of_norm(at.first)

    def bring(self, token: int) -> None:
        """Puts at row 0 what the last layer reads of row ``token``."""
        for rows in self._floats:
            rows[0] = rows[token]
