"""Which factory makes which kernel. ``factory(*parts)`` returns the Python function that Numba compiles."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

TABLE = {
    "matmul": ("matmul", "make_matmul"),
    "embed": ("embed", "make_embed"),
    "repack": ("repack", "make_repack"),
    "norm": ("activations", "make_norm"),
    "gate": ("activations", "make_gate"),
    "copy": ("activations", "make_copy"),
    "tables": ("sign_tables", "make_tables"),
    "digits": ("digit_tables", "make_digits"),
    "sums": ("sum_tables", "make_sums"),
    "wide": ("wide", "make_wide"),
    "split": ("sieve", "make_split"),
    "upper": ("sieve", "make_upper"),
    "rest": ("sieve", "make_rest"),
    "sketch": ("sketch", "make_sketch"),
    "rough": ("sketch", "make_rough"),
    "largest": ("sketch", "make_largest"),
    "threes": ("rewrite_threes", "make_threes"),
    "levels": ("rewrite_levels", "make_levels"),
    "rope": ("rope", "make_rope"),
    "attention": ("attention", "make_attention"),
    "combine": ("attention", "make_combine"),
    "team": ("team", "make_team"),
    "post": ("team", "make_post"),
    "quantize": ("quantize", "make_quantize"),
    "widen": ("quantize_floats", "make_widen"),
    "scan": ("quantize_floats", "make_scan"),
}

#: Kinds whose results must be the same to the bit on every machine: see ``simd.jit``.
STRICT = frozenset({"quantize", "widen", "scan"})


def is_strict(name: str) -> bool:
    """Whether kernel ``name`` is compiled without contraction."""
    return name.partition("/")[0] in STRICT


def module_of(name: str) -> str:
    """The module of this package that makes kernel ``name``. Imports nothing; ``KeyError`` for an unknown name."""
    return TABLE[name.partition("/")[0]][0]


def build(name: str) -> Callable[..., Any]:
    """The Python function of kernel ``name``. Raises ``KeyError`` for a name that no one registered."""
    kind, *parts = name.split("/")
    module, factory = TABLE[kind]
    made: Callable[..., Any] = getattr(importlib.import_module(f"{__package__}.{module}"), factory)(*parts)
    return made
