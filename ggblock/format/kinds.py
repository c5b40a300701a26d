"""The kinds of metadata values that the container defines, as one table.

A kind has a short name (``u32``, ``str``); an array's is its element kind followed by ``[]`` (``str[]``), and
an array of arrays is ``array[]``. The ids and sizes are those of ``spec/container.toml``.
"""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ValueKind:
    """One kind: its short name, id in the file, bytes of a value (0: variable) and NumPy type letter ('': none).

    ``low`` and ``high`` bound an integer kind; both are 0 for the others.
    """

    name: str
    id: int
    n_bytes: int
    letter: str
    low: int = 0
    high: int = 0


def _integer(name: str, kind_id: int) -> ValueKind:
    bits = int(name[1:])
    signed = name[0] == "i"
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return ValueKind(name, kind_id, bits // 8, f"{name[0]}{bits // 8}", low, high)


KINDS: tuple[ValueKind, ...] = (
    _integer("u8", 0),
    _integer("i8", 1),
    _integer("u16", 2),
    _integer("i16", 3),
    _integer("u32", 4),
    _integer("i32", 5),
    ValueKind("f32", 6, 4, "f4"),
    ValueKind("bool", 7, 1, "?"),
    ValueKind("str", 8, 0, ""),
    ValueKind("array", 9, 0, ""),
    _integer("u64", 10),
    _integer("i64", 11),
    ValueKind("f64", 12, 8, "f8"),
)

BY_ID: dict[int, ValueKind] = {kind.id: kind for kind in KINDS}
BY_NAME: dict[str, ValueKind] = {kind.name: kind for kind in KINDS}

BOOL = BY_NAME["bool"]
STRING = BY_NAME["str"]
ARRAY = BY_NAME["array"]
