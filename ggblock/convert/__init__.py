"""Any checkpoint in, GGUF out: sources, name maps, recipes, a plan that reads no weight, and its streaming execution.

    with open_source("folder") as source:
        plan = make_plan(source, "m.gguf", Options(type="q4_k_m"))
        result = execute(plan)

``convert(...)`` does the three in one.
"""
from __future__ import annotations

import os

from .plan import Options, Plan, Step, make_plan
from .recipes import recipe_names
from .sources import Source, open_source
from .streaming import Progress, Result, Written, execute
from .summary import Summary, summarize

__all__ = [
    "Options", "Plan", "Progress", "Result", "Source", "Step", "Summary", "Written", "convert", "execute", "make_plan",
    "open_source", "recipe_names", "summarize",
]  # fmt: skip


def convert(
    source: str | os.PathLike[str], target: str | os.PathLike[str], type: str, *, progress: Progress | None = None,
    options: Options | None = None,
) -> Result:
    """Convert a checkpoint to ``target`` with the recipe ``type`` (``"q4_k_m"``, ``"f16"``, ...).

    ``options``: further settings; its ``type`` is replaced. Raises what `open_source`, `make_plan` and `execute` raise.
    """
    from dataclasses import replace

    with open_source(source) as opened:
        plan = make_plan(opened, os.fsdecode(target), replace(options or Options(), type=type))
        return execute(plan, progress)
