"""Block types: layouts as data, and NumPy reference decoders and encoders. Imports only numpy.

`by_name` and `by_id` find a `BlockType`; `quantize` and `dequantize` convert whole arrays.
"""
from __future__ import annotations

from .api import dequantize, quantize
from .base import BlockType, Field, Unpacked
from .registry import REGISTRY, REMOVED, by_id, by_name

__all__ = ["REGISTRY", "REMOVED", "BlockType", "Field", "Unpacked", "by_id", "by_name", "dequantize", "quantize"]
