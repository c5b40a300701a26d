"""The container: reading (`open_gguf`), writing (`writer.GgufWriter`), metadata values and their kinds.

``spec/container.md`` describes the bytes. Imports only numpy.
"""
from __future__ import annotations

from .metadata import ArrayValue, Metadata, Typed
from .reader import GgufFile, Tensor, open_gguf

__all__ = ["ArrayValue", "GgufFile", "Metadata", "Tensor", "Typed", "open_gguf"]
