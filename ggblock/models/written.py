"""What an architecture's ``layers`` hands back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..engine.plan import Rows


@dataclass(frozen=True)
class Written:
    """``output_norm``: weight of the last norm. ``embedding_scale``: factor on embeddings.

    ``x``: where the residual stream ends (None: where it began); ``residual``: what the last norm adds to it first
    (``Builder.norm``).
    """

    output_norm: Any
    embedding_scale: float
    x: Rows | None = None
    residual: tuple[Rows, Any, Rows] | None = None
