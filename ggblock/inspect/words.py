"""Numbers and texts as a person reads them, and values as JSON can hold them."""
from __future__ import annotations

import math
from typing import Any

import numpy as np


def count(n: int | float) -> str:
    """A count with three or four digits: ``134.5 M``, ``576``."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if n >= size:
            return f"{n / size:.4g} {unit}"
    return f"{n}"


def size(n_bytes: int | float) -> str:
    """Bytes in decimal units: ``98.36 MB``."""
    for unit, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= one:
            return f"{n_bytes / one:.4g} {unit}"
    return f"{n_bytes} bytes"


def plural(n: int, noun: str) -> str:
    """``1 tensor``, ``2 tensors``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def shape(dims: tuple[int, ...]) -> str:
    """``49152 x 576``."""
    return " x ".join(map(str, dims)) or "1"


def readable(text: str) -> str:
    """``text`` with every byte that is no UTF-8 and every control character as an escape, on one line."""
    if text.isprintable():  # nearly all are: a name of 30 characters in 0.1 us instead of 3
        return text
    shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters, an ellipsis where it was cut."""
    return text if len(text) <= limit else text[: max(1, limit - 1)] + "…"


def real(value: float | np.floating[Any]) -> str:
    """The shortest decimal number that gives back the same float32; ``inf``, ``-inf`` and ``nan`` by name."""
    number = np.float32(value)
    if not np.isfinite(number):
        return str(float(number))
    if number != 0 and not 1e-4 <= abs(number) < 1e7:
        return np.format_float_scientific(number, unique=True, trim="-", exp_digits=1)
    return np.format_float_positional(number, unique=True, trim="0")


def json_number(value: float | int | np.generic) -> float | int | str:
    """A number for JSON, float32 with its shortest digits; what is not finite becomes text (nan, inf, -inf)."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if not math.isfinite(value):
        return str(float(value))
    return float(str(value)) if isinstance(value, np.float32) else float(value)


def json_text(text: str) -> str:
    """``text`` with bytes that are no UTF-8 as escapes (``\\xff``); everything else as it is."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
