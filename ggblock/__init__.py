"""Block-quantized language models: convert them, run them on a CPU, and look inside their files.

Importing this package imports nothing else; each name below is imported when it is first used.
"""
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import errors
    from .blocks import dequantize
    from .convert.encode import quantize
    from .format.reader import GgufFile
    from .format.reader import open_gguf as open
    from .runtime import load
    from .tokenizer import load_tokenizer

__all__ = ["GgufFile", "__version__", "dequantize", "errors", "load", "load_tokenizer", "open", "quantize"]

# Public name: (module, name in it; '' for the module itself).
_LAZY = {
    "GgufFile": ("ggblock.format.reader", "GgufFile"),
    "dequantize": ("ggblock.blocks", "dequantize"),
    "errors": ("ggblock.errors", ""),
    "load": ("ggblock.runtime", "load"),
    "load_tokenizer": ("ggblock.tokenizer", "load_tokenizer"),
    "open": ("ggblock.format.reader", "open_gguf"),
    "quantize": ("ggblock.convert.encode", "quantize"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ggblock' has no attribute {name!r}")
    module_name, attribute = _LAZY[name]
    module = importlib.import_module(module_name)
    value = getattr(module, attribute) if attribute else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LAZY))
