"""The table of block types, and the ids that ggml has withdrawn."""
from __future__ import annotations

from types import MappingProxyType

from .. import errors
from . import (
    floats,
    integers,
    iq1_m,
    iq1_s,
    iq2_s,
    iq2_xs,
    iq2_xxs,
    iq3_s,
    iq3_xxs,
    iq4_nl,
    iq4_xs,
    mxfp4,
    nvfp4,
    q1_0,
    q2_0,
    q2_k,
    q3_k,
    q4_0,
    q4_1,
    q4_k,
    q5_0,
    q5_1,
    q5_k,
    q6_k,
    q8_0,
    q8_1,
    q8_k,
    tq1_0,
    tq2_0,
)
from .base import BlockType

_TYPES: tuple[BlockType, ...] = (
    *floats.TYPES,
    *integers.TYPES,
    q1_0.TYPE,
    q2_0.TYPE,
    q4_0.TYPE,
    q4_1.TYPE,
    q5_0.TYPE,
    q5_1.TYPE,
    q8_0.TYPE,
    q8_1.TYPE,
    q2_k.TYPE,
    q3_k.TYPE,
    q4_k.TYPE,
    q5_k.TYPE,
    q6_k.TYPE,
    q8_k.TYPE,
    iq1_s.TYPE,
    iq1_m.TYPE,
    iq2_xxs.TYPE,
    iq2_xs.TYPE,
    iq2_s.TYPE,
    iq3_xxs.TYPE,
    iq3_s.TYPE,
    iq4_nl.TYPE,
    iq4_xs.TYPE,
    tq1_0.TYPE,
    tq2_0.TYPE,
    mxfp4.TYPE,
    nvfp4.TYPE,
)

#: Ids that ggml once used: name and what to do about a file that has them.
REMOVED = MappingProxyType({
    4: ("q4_2", "withdrawn from ggml in 2023; quantize the original model again"),
    5: ("q4_3", "withdrawn from ggml in 2023; quantize the original model again"),
    31: ("q4_0_4_4", "Q4_0 repacked for one CPU, withdrawn in 2024; use the Q4_0 file"),
    32: ("q4_0_4_8", "Q4_0 repacked for one CPU, withdrawn in 2024; use the Q4_0 file"),
    33: ("q4_0_8_8", "Q4_0 repacked for one CPU, withdrawn in 2024; use the Q4_0 file"),
    36: ("iq4_nl_4_4", "IQ4_NL repacked for one CPU, withdrawn in 2024; use the IQ4_NL file"),
    37: ("iq4_nl_4_8", "IQ4_NL repacked for one CPU, withdrawn in 2024; use the IQ4_NL file"),
    38: ("iq4_nl_8_8", "IQ4_NL repacked for one CPU, withdrawn in 2024; use the IQ4_NL file"),
})
_REMOVED_NAMES = {name: ggml_id for ggml_id, (name, _) in REMOVED.items()}


def _index() -> tuple[dict[str, BlockType], dict[int, BlockType]]:
    names: dict[str, BlockType] = {}
    ids: dict[int, BlockType] = {}
    for block in _TYPES:
        if block.name in names or block.ggml_id in ids or block.ggml_id in REMOVED or block.name in _REMOVED_NAMES:
            raise ValueError(f"block type {block.name} ({block.ggml_id}) is registered twice")
        names[block.name], ids[block.ggml_id] = block, block
    return names, ids


_NAMES, _IDS = _index()

#: Every block type by its lower-case name, in order of registration. Read-only.
REGISTRY: MappingProxyType[str, BlockType] = MappingProxyType(_NAMES)


def by_name(name: str) -> BlockType:
    """The block type called ``name`` (any case).

    Raises `errors.RemovedType` for a name that ggml has withdrawn, `errors.UnknownType` for any other.
    """
    key = name.lower()
    if key in _NAMES:
        return _NAMES[key]
    if key in _REMOVED_NAMES:
        raise _removed(_REMOVED_NAMES[key])
    raise errors.UnknownType(f"unknown block type {name!r}", expected="one of " + " ".join(_NAMES))


def by_id(ggml_id: int) -> BlockType:
    """The block type with ggml's number ``ggml_id``; raises as `by_name` does."""
    if ggml_id in _IDS:
        return _IDS[ggml_id]
    if ggml_id in REMOVED:
        raise _removed(ggml_id)
    raise errors.UnknownType(f"unknown block type id {ggml_id}")


def _removed(ggml_id: int) -> errors.RemovedType:
    name, advice = REMOVED[ggml_id]
    return errors.RemovedType(f"block type {name.upper()} (id {ggml_id}) is {advice}")
