"""Which tensors of a model a device computes: what ``offload`` may say, and what follows from it for a file.

Nothing here needs a device or Numba. A layer's matrices are placed one by one; its attention, and with it its KV cache,
runs on the device when all of its query, key and value matrices do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import SettingError

EXPECTED = "a number of layers, all, auto, none, or a pattern that tensor names match"
_LAYER = re.compile(r"blk\.(\d+)\.")
ATTENTION = ("attn_q", "attn_k", "attn_v")


@dataclass(frozen=True)
class Offload:
    """What was asked for. ``kind``: none, layers (the last ``n_layers``), all, auto, or tensors (``pattern``)."""

    kind: str
    n_layers: int = 0
    pattern: str = ""


def parse(value: Any) -> Offload:
    """``value`` as `Offload`: None, a number of layers, "all", "auto", "none", or a regular expression.

    Raises `SettingError` for a negative number or a pattern that is no regular expression.
    """
    if isinstance(value, Offload):
        return value
    text = "" if value is None else str(value).strip()
    if isinstance(value, bool) or not isinstance(value, (int, str, type(None))):
        raise SettingError("not understood", where="offload", expected=EXPECTED, actual=repr(value))
    if text in ("", "none"):
        return Offload("none")
    if text in ("all", "auto"):
        return Offload(text)
    if re.fullmatch(r"[+-]?\d+", text):
        n = int(text)
        if n < 0:
            raise SettingError("a negative number of layers", where="offload", expected=EXPECTED, actual=text)
        return Offload("layers", n) if n else Offload("none")
    try:
        re.compile(text)
    except re.error as error:
        raise SettingError(
            f"no regular expression ({error})", where="offload", expected=EXPECTED, actual=repr(text)
        ) from None
    return Offload("tensors", pattern=text)


@dataclass(frozen=True)
class Placement:
    """``names``: matrices that the device multiplies with. ``n_layers``: layers of the model."""

    names: frozenset[str]
    n_layers: int

    def has(self, name: str) -> bool:
        return name in self.names

    def attention(self, layer: int) -> bool:
        """Whether the device runs the attention of ``layer`` and keeps its KV cache."""
        return all(f"blk.{layer}.{part}.weight" in self.names for part in ATTENTION)

    @property
    def n_caches(self) -> int:
        """Layers whose KV cache is on the device."""
        return sum(self.attention(i) for i in range(self.n_layers))


def layer_of(name: str) -> int | None:
    """The layer that tensor ``name`` belongs to; None for one outside of the layers."""
    match = _LAYER.match(name)
    return int(match[1]) if match else None


def choose(
    offload: Offload,
    sizes: Mapping[str, int],
    n_layers: int,
    cache_bytes: int = 0,
    free_bytes: Callable[[], int] = lambda: 0,
) -> Placement:
    """What of the matrices in ``sizes`` (name to bytes on the device) goes there.

    ``sizes`` holds the layers' matrices and the output matrix. "layers": the last ``n_layers`` of them without the
    output; a larger number than there are layers is "all". "auto": the output, then layers from the last to the first
    while they fit ``free_bytes()``, each with the ``cache_bytes`` of its KV cache. Raises `SettingError` where a
    pattern matches no matrix.
    """
    kind, names = offload.kind, set[str]()
    if kind == "all" or (kind == "layers" and offload.n_layers > n_layers):
        names = set(sizes)
    elif kind == "layers":
        names = {name for name in sizes if (layer_of(name) or 0) >= n_layers - offload.n_layers and "blk." in name}
    elif kind == "tensors":
        names = {name for name in sizes if re.search(offload.pattern, name)}
        if not names:
            raise SettingError(
                "the pattern matches none of the model's matrices", where="offload", actual=repr(offload.pattern)
            )
    elif kind == "auto":
        left = free_bytes()
        for layer in (None, *range(n_layers - 1, -1, -1)):
            mine = {name: size for name, size in sizes.items() if layer_of(name) == layer}
            need = sum(mine.values()) + (cache_bytes if layer is not None else 0)
            if need > left:
                break
            names |= set(mine)
            left -= need
    return Placement(frozenset(names), n_layers)
