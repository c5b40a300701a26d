"""Blocks that no encoder writes: scales that are not finite, codes that mean nothing, sums that do not add up."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..blocks import BlockType, Field, by_name
from ..blocks.base import take
from ..format.reader import Tensor
from .maps import row_chunks

Mask = Any  # bool (n_blocks,)

#: Integer view and mask of the exponent bits of the float kinds.
_EXPONENTS = {
    "f16": ("<u2", 0x7C00), "bf16": ("<u2", 0x7F80), "f32": ("<u4", 0x7F800000), "f64": ("<u8", 0x7FF0000000000000),
}
_TRIT_BYTES = np.array([-(-n * 256 // 243) for n in range(243)], np.uint8)


@dataclass(frozen=True)
class BadBlocks:
    """``count`` blocks of a tensor that are wrong in one way; ``first`` is the first of them, counted in the tensor."""

    code: str
    message: str
    count: int
    first: int


def bad_blocks(tensor: Tensor) -> Iterator[BadBlocks]:
    """What is wrong with a tensor's blocks; reads all of it."""
    row = tensor.row
    kinds = {kind: _rules(kind) for kind in (row.block, row.tail) if kind is not None}
    rules = kinds[row.block]
    counts, firsts = [0] * len(rules), [-1] * len(rules)
    for i0, i1 in row_chunks(tensor):
        parts = [
            (kinds[kind], np.ascontiguousarray(part).reshape(-1, kind.block_bytes))
            for kind, part in row.parts(tensor.raw_rows(i0, i1))
        ]
        for n in range(len(rules)):
            marks = [own[n][2](blocks).reshape(i1 - i0, -1) for own, blocks in parts]
            wrong = np.concatenate(marks, axis=1).reshape(-1)
            found = int(wrong.sum())
            if found and firsts[n] < 0:
                firsts[n] = i0 * row.n_blocks + int(np.argmax(wrong))
            counts[n] += found
    for (code, message, _), count, first in zip(rules, counts, firsts, strict=True):
        if count:
            yield BadBlocks(code, message, count, first)


Rule = tuple[str, str, Callable[[NDArray[np.uint8]], Mask]]


def _rules(block: BlockType) -> list[Rule]:
    what = "weight" if block.unpack is None else "scale"
    rules: list[Rule] = []
    floats = [field for field in block.layout if field.kind in _EXPONENTS]
    if floats:
        rules.append(("non_finite", f"a {what} that is infinite or no number", lambda b: _non_finite(b, floats)))
    rules += _TAILS[block.name](block) if block.name in _TAILS else _SPECIAL.get(block.name, [])
    return rules


def _non_finite(blocks: NDArray[np.uint8], fields: list[Field]) -> Mask:
    wrong = np.zeros(len(blocks), np.bool_)
    for field in fields:
        view, exponent = _EXPONENTS[field.kind]
        numbers = np.ascontiguousarray(blocks[:, field.offset : field.end]).view(view)
        wrong |= ((numbers & numbers.dtype.type(exponent)) == exponent).any(axis=1)
    return wrong


def _overflow(name: str, suspects: Callable[[NDArray[np.uint8]], Mask]) -> Callable[[NDArray[np.uint8]], Mask]:
    """Finite scales so large that a weight is not; only blocks that ``suspects`` picks are decoded."""

    def rule(blocks: NDArray[np.uint8]) -> Mask:
        wrong = suspects(blocks)
        at = np.flatnonzero(wrong)
        wrong[at] = ~np.isfinite(by_name(name).decode(np.ascontiguousarray(blocks[at]))).all(axis=1)
        return wrong

    return rule


def _iq1_m_scale(blocks: NDArray[np.uint8]) -> Mask:
    # The exponent of the float16 in the four top nibbles: bits 10-14 of it.
    words = np.ascontiguousarray(blocks[:, 48:56]).view("<u2") >> np.uint16(12)
    return ((words[:, 3] & 7) == 7) & ((words[:, 2] & 12) == 12)


def _tq1_0(block: BlockType) -> list[Rule]:
    allowed, qs = np.zeros(256, np.bool_), block.field("qs")
    allowed[_TRIT_BYTES] = True

    def rule(blocks: NDArray[np.uint8]) -> Mask:
        return np.asarray(~allowed[take(blocks, qs)].all(axis=1))

    return [("impossible_code", "a byte that stands for no five ternary digits", rule)]


def _tq2_0(block: BlockType) -> list[Rule]:
    def rule(blocks: NDArray[np.uint8]) -> Mask:
        codes = take(blocks, block.field("qs"))
        return np.asarray((codes & codes >> np.uint8(1) & np.uint8(0x55)).any(axis=1))

    return [("impossible_code", "a code of 3 in a ternary type", rule)]


def _nvfp4(block: BlockType) -> list[Rule]:
    def rule(blocks: NDArray[np.uint8]) -> Mask:
        return np.asarray((take(blocks, block.field("d")) >= 127).any(axis=1))

    return [("impossible_code", "a scale with its sign bit set or of 127, which means no number", rule)]


def _q8_k_sums(blocks: NDArray[np.uint8]) -> Mask:
    sums = blocks[:, 4:260].view(np.int8).reshape(-1, 16, 16).sum(axis=2, dtype=np.int16)
    stored = np.ascontiguousarray(blocks[:, 260:292]).view("<i2")
    return np.asarray((sums != stored).any(axis=1))


def _q8_k_huge(blocks: NDArray[np.uint8]) -> Mask:
    exponent = np.ascontiguousarray(blocks[:, :4]).view("<u4")[:, 0] >> np.uint32(23) & np.uint32(255)
    return np.asarray((exponent >= 247) & (exponent < 255))


#: Types with tails: rules that go by the layout.
_TAILS: dict[str, Callable[[BlockType], list[Rule]]] = {"tq1_0": _tq1_0, "tq2_0": _tq2_0, "nvfp4": _nvfp4}

_SPECIAL: dict[str, list[Rule]] = {
    "iq1_m": [("non_finite", "a scale that is infinite or no number", _iq1_m_scale)],
    "mxfp4": [
        ("overflow", "a scale so large that weights are infinite", _overflow("mxfp4", lambda b: b[:, 0] >= 252)),
        ("impossible_code", "a scale of 255, which means no number", lambda b: b[:, 0] == 255),
    ],
    "q8_k": [
        ("impossible_code", "stored sums that are not those of the codes", _q8_k_sums),
        ("overflow", "a scale so large that weights are infinite", _overflow("q8_k", _q8_k_huge)),
    ],
}  # fmt: skip
