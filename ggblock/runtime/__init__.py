"""Load a model and let it write: KV cache bookkeeping, sampling, stop strings, generation, conversations.

`load` makes a `Model`; its `generate` and `chat` return a `Generation`, an iterator over pieces of text.
"""
from __future__ import annotations

from ggblock.runtime.cache import TokenCache
from ggblock.runtime.generation import FinishReason, Generation, Result, Timings
from ggblock.runtime.loader import load
from ggblock.runtime.model import Message, Model
from ggblock.runtime.sampling import Sampler
from ggblock.runtime.session import Reply, Session
from ggblock.runtime.settings import Sampling
from ggblock.runtime.stopping import StopFilter

__all__ = [
    "FinishReason",
    "Generation",
    "Message",
    "Model",
    "Reply",
    "Result",
    "Sampler",
    "Sampling",
    "Session",
    "StopFilter",
    "Timings",
    "TokenCache",
    "load",
]
