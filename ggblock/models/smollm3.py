"""``smollm3``: SmolLM 3 (Hugging Face 2025): llama, with every fourth layer free of rotary positions.

The file says nothing about which layers those are: the architecture's name stands for the pattern.
"""

from __future__ import annotations

from . import llama
from .compiled import Layers
from .written import Written

STEP = 4  # layers 3, 7, 11, ... (0-based) see no positions


def layers(m: Layers) -> Written:
    return llama.layers(m, lambda i: (i + 1) % STEP != 0)
