"""The container: reading (`open_gguf`), writing (`GgufWriter`), metadata values and their kinds.

``spec/container.md`` describes the bytes. Imports only numpy.
"""
from __future__ import annotations

from .metadata import ArrayValue, Metadata, Typed
from .reader import GgufFile, Tensor, open_gguf
from .writer import GgufWriter, TensorSpec

__all__ = ["ArrayValue", "GgufFile", "GgufWriter", "Metadata", "Tensor", "TensorSpec", "Typed", "open_gguf"]
