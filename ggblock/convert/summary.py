"""What a conversion did or would do, as rows for a table or a JSON document."""
from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from .plan import Plan
from .streaming import Result


@dataclass(frozen=True)
class TypeRow:
    """All tensors of one block type."""

    type: str
    tensors: int
    weights: int
    n_bytes: int

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.n_bytes / max(1, self.weights)


@dataclass(frozen=True)
class Fallback:
    """A tensor whose rows do not fit the type that the recipe wants."""

    tensor: str
    wanted: str
    became: str
    n_cols: int


@dataclass(frozen=True)
class Summary:
    """``rows``: a type each, largest first. ``n_bytes``: of the files. ``worst``: tensors with the largest errors.

    ``elapsed_s`` is None for a plan that was not carried out.
    """

    paths: tuple[str, ...]
    recipe: str
    rows: tuple[TypeRow, ...]
    weights: int
    n_bytes: int
    bits_per_weight: float
    fallbacks: tuple[Fallback, ...]
    worst: tuple[tuple[str, str, float], ...]
    notes: tuple[str, ...]
    elapsed_s: float | None

    def document(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "paths": list(self.paths), "recipe": self.recipe,
            "types": [{**asdict(row), "bits_per_weight": row.bits_per_weight} for row in self.rows],
            "weights": self.weights, "n_bytes": self.n_bytes, "bits_per_weight": self.bits_per_weight,
            "fallbacks": [asdict(each) for each in self.fallbacks],
            "worst": [
                {"tensor": t, "type": k, "relative_error": e if math.isfinite(e) else None} for t, k, e in self.worst
            ],
            "notes": list(self.notes), "elapsed_s": self.elapsed_s, "written": self.elapsed_s is not None,
        }  # fmt: skip


def summarize(done: Plan | Result, n_worst: int = 5) -> Summary:
    """The summary of a plan, or of what became of it."""
    plan = done.plan if isinstance(done, Result) else done
    by_type: dict[str, list[int]] = {}
    for step in plan.steps:
        row = by_type.setdefault(step.type.label, [0, 0, 0])
        row[0], row[1], row[2] = row[0] + 1, row[1] + step.n_weights, row[2] + step.n_bytes
    rows = sorted((TypeRow(name, *counts) for name, counts in by_type.items()), key=lambda row: -row.n_bytes)
    notes = list(plan.notes)
    again = {
        step.source.type.label for step in plan.steps
        if step.source is not None and step.source.type.unpack is not None and not step.copies
    }  # fmt: skip
    if again:
        notes.append(f"weights were quantized before ({', '.join(sorted(again))}); their first loss stays")
    ragged = [step for step in plan.steps if step.row.tail is not None]
    if ragged:
        have = "tensor has" if len(ragged) == 1 else "tensors have"
        notes.append(f"{len(ragged)} {have} ragged rows: the last super-block keeps only the sub-blocks in use")
    worst: list[tuple[str, str, float]] = []
    if isinstance(done, Result):
        measured = [(w.step.name, w.step.type.label, w.error) for w in done.tensors if w.error]
        worst = sorted(((n, k, e) for n, k, e in measured if e is not None), key=lambda each: -each[2])[:n_worst]
        replaced = sum(w.replaced for w in done.tensors)
        if replaced:
            notes.append(f"{replaced} weights were not finite or too large, and were replaced")
    fallbacks = tuple(Fallback(s.name, s.wanted.label, s.type.label, s.n_cols) for s in plan.fallbacks)
    return Summary(
        plan.paths, plan.recipe.name, tuple(rows), plan.n_weights, plan.n_bytes, plan.bits_per_weight, fallbacks,
        tuple(worst), tuple(notes), done.elapsed_s if isinstance(done, Result) else None,
    )
