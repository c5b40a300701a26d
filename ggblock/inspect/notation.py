"""Evaluate the decoding steps of ``spec/blocks`` for one weight, and remember where every bit came from.

Whole numbers are exact; an operation with a float rounds to float32, as ``spec/blocks/README.md`` says. A value
knows the bits of the block that it was made of (`Value.feeds`), and while it is only masked and shifted also which of
its own bits is which bit of the block, so that ``scales[s] & 63`` feeds on six bits of a byte and not on eight.
"""
from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..blocks import BlockType, Field
from ..blocks.base import U8
from . import formulas, words

#: A bit of a block: (byte, bit), the lowest bit of a byte is 0.
Bit = tuple[int, int]
_NONE: frozenset[Bit] = frozenset()
_DTYPES = {"f16": "<f2", "f32": "<f4", "f64": "<f8", "i8": "<i1", "i16": "<i2", "i32": "<i4", "i64": "<i8",
           "u16": "<u2", "u32": "<u4", "bf16": "<u2"}  # fmt: skip


@dataclass(frozen=True)
class Value:
    """A number and its origin. ``number``: int, np.float32 or np.float64. ``feeds``: bits of the block it needs.

    ``bits``: position in ``number`` to bit of the block, for numbers that were only cut out and moved; else None.
    """

    number: Any
    feeds: frozenset[Bit] = _NONE
    bits: dict[int, Bit] | None = None


@dataclass(frozen=True)
class Step:
    """``name`` = ``text``, as the specification writes it. ``reads``: names of earlier steps, fields and tables."""

    name: str
    text: str
    tree: ast.expr
    reads: frozenset[str]


@lru_cache(maxsize=64)
def steps(block_type: BlockType) -> tuple[Step, ...]:
    """The decoding steps of a block type, parsed."""
    out = []
    for line in formulas.steps(block_type):
        left, text = (part.strip() for part in line.split("=", 1))
        tree = ast.parse(text, mode="eval").body
        reads = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
        out.append(Step(left, text, tree, reads))
    return tuple(out)


def field_numbers(field: Field, block: U8) -> list[Any]:
    """Every number of ``field`` as the steps see it: bytes of ``packed`` and ``trits`` fields, else its numbers."""
    raw = np.ascontiguousarray(block[field.offset : field.end])
    if field.kind == "uint":
        mask = (1 << field.bits) - 1
        places = (field.place(i) for i in range(field.count))
        return [int(block[byte]) >> shift & mask for byte, shift in places]
    if field.kind not in _DTYPES:
        return [int(n) for n in raw]
    numbers = raw.view(_DTYPES[field.kind])
    if field.kind == "bf16":
        return list((numbers.astype(np.uint32) << np.uint32(16)).view(np.float32))
    if field.kind == "f64":
        return list(numbers.astype(np.float64))
    return list(numbers.astype(np.float32)) if field.kind[0] == "f" else [int(n) for n in numbers]


def number_bits(field: Field, index: int) -> dict[int, Bit]:
    """Which bit of the block each bit of number ``index`` of ``field`` is."""
    if field.kind == "uint":
        byte, shift = field.place(index)
        return {i: (byte, shift + i) for i in range(field.bits)}
    width = field.n_bytes if field.kind in ("packed", "trits") else field.count
    n_bytes = field.n_bytes // width
    first = field.offset + index * n_bytes
    return {i: (first + i // 8, i % 8) for i in range(8 * n_bytes)}


class Decoder:
    """The steps of one block. ``block``: uint8 (block_bytes,). `weight` gives every step of one weight."""

    def __init__(self, block_type: BlockType, block: U8) -> None:
        self.type = block_type
        self.steps = steps(block_type)
        self._fields = {field.name: field for field in block_type.layout}
        self._numbers = {field.name: field_numbers(field, block) for field in block_type.layout}
        self._cache: dict[tuple[Any, ...], Value] = {}
        #: Table entries that were looked up, by table.
        self.used: dict[str, set[int]] = {}

    def number(self, name: str, index: int) -> Any:
        """Number ``index`` of field ``name``."""
        return self._numbers[name][index]

    def weight(self, j: int) -> dict[str, Value]:
        """``j`` and every step for weight ``j``, by name, in order; the last is ``weight``."""
        names = {"j": Value(j)}
        for step in self.steps:
            # A step that does not depend on j but through another step is computed once for each value of that.
            key = (step.name, *(repr(names[name].number) for name in sorted(step.reads) if name in names))
            known = self._cache.get(key) if "j" not in step.reads else None
            if known is None:
                with np.errstate(all="ignore"):
                    known = self.evaluate(step.tree, names)
                # What is equal may have other origins: only steps that read no earlier field values are kept.
                if all(not names[name].feeds for name in step.reads if name in names):
                    self._cache[key] = known
            names[step.name] = known
        return names

    def evaluate(self, node: ast.expr, names: dict[str, Value]) -> Value:
        """An expression's value; ValueError for what the notation does not define."""
        if isinstance(node, ast.Constant):
            return Value(np.float32(node.value) if isinstance(node.value, float) else node.value)
        if isinstance(node, ast.Name):
            return names[node.id]
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            return self.item(node.value.id, self.evaluate(node.slice, names))
        if isinstance(node, ast.BinOp):
            left, right = self.evaluate(node.left, names), self.evaluate(node.right, names)
            return _BINARY[type(node.op)](left, right)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            inner = self.evaluate(node.operand, names)
            return Value(-inner.number, inner.feeds)
        if isinstance(node, ast.Compare):
            left, right = self.evaluate(node.left, names), self.evaluate(node.comparators[0], names)
            less = isinstance(node.ops[0], ast.Lt)
            truth = left.number < right.number if less else left.number == right.number
            return Value(bool(truth), left.feeds | right.feeds)
        if isinstance(node, ast.IfExp):
            test = self.evaluate(node.test, names)
            taken = self.evaluate(node.body if test.number else node.orelse, names)
            return Value(taken.number, taken.feeds | test.feeds, taken.bits if not test.feeds else None)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            inner = self.evaluate(node.args[0], names)
            return Value(_FUNCTIONS[node.func.id](inner.number), inner.feeds)
        raise ValueError(f"not part of the notation: {ast.unparse(node)}")

    def item(self, name: str, index: Value) -> Value:
        """A number of a field or a table."""
        at = int(index.number)
        if name in self._fields:
            bits = number_bits(self._fields[name], at)
            number = self._numbers[name][at]
            exact = bits if isinstance(number, int) and number >= 0 else None
            return Value(number, index.feeds | frozenset(bits.values()), exact)
        self.used.setdefault(name, set()).add(at)
        return Value(int(formulas.table(name)[at]), index.feeds)


def explain(step: Step, names: dict[str, Value], decoder: Decoder) -> tuple[str, str]:
    """``step`` for one weight, in words of fields and in numbers: ``("d[0] * multiple", "0.5 * 45")``.

    Only the side of a condition that is taken appears. ``names``: from `Decoder.weight` for that weight.
    """

    def tell(node: ast.expr, numbers: bool, top: bool = False) -> str:
        if isinstance(node, ast.Constant):
            return repr(node.value)
        if isinstance(node, ast.Name):
            return shown(names[node.id].number) if numbers or node.id == "j" else node.id
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            at = decoder.evaluate(node.slice, names)
            name = node.value.id
            return shown(decoder.item(name, at).number) if numbers else f"{name}[{shown(at.number)}]"
        if isinstance(node, ast.BinOp):
            text = f"{tell(node.left, numbers)} {_SIGNS[type(node.op)]} {tell(node.right, numbers)}"
            return text if top else f"({text})"
        if isinstance(node, ast.UnaryOp):
            return f"-({tell(node.operand, numbers, True)})"
        if isinstance(node, ast.IfExp):
            test = decoder.evaluate(node.test, names)
            return tell(node.body if test.number else node.orelse, numbers, top)
        if isinstance(node, ast.Call):
            return f"{ast.unparse(node.func)}({tell(node.args[0], numbers, True)})"
        raise ValueError(f"not part of the notation: {ast.unparse(node)}")

    return tell(step.tree, False, True), tell(step.tree, True, True)


def shown(number: Any) -> str:
    """A number as the views print it: whole, or the shortest decimals that give back the same float."""
    if isinstance(number, np.float64):
        return repr(float(number))
    return words.real(number) if isinstance(number, (float, np.floating)) else str(int(number))


_SIGNS: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%", ast.LShift: "<<", ast.RShift: ">>",
    ast.BitAnd: "&", ast.BitOr: "|",
}


def _float32(number: Any) -> np.float32:
    """Rounded once: Python itself would turn a large whole number into a double first."""
    rounded: np.float32 = np.float32(np.int64(number) if isinstance(number, int) else number)
    return rounded


def _arithmetic(operation: Callable[[Any, Any], Any]) -> Callable[[Value, Value], Value]:
    def run(left: Value, right: Value) -> Value:
        a, b = left.number, right.number
        if isinstance(a, np.floating) or isinstance(b, np.floating):
            a, b = _float32(a), _float32(b)
        return Value(operation(a, b), left.feeds | right.feeds)

    return run


def _whole(operation: Callable[[int, int], int], moved: Callable[[Value, Value], dict[int, Bit] | None]
           ) -> Callable[[Value, Value], Value]:
    def run(left: Value, right: Value) -> Value:
        bits = moved(left, right)
        feeds = left.feeds | right.feeds if bits is None else frozenset(bits.values())
        return Value(operation(left.number, right.number), feeds, bits)

    return run


def _masked(left: Value, right: Value) -> dict[int, Bit] | None:
    if left.bits is None or right.feeds:
        return None
    return {i: bit for i, bit in left.bits.items() if right.number >> i & 1}


def _shifted(sign: int) -> Callable[[Value, Value], dict[int, Bit] | None]:
    def run(left: Value, right: Value) -> dict[int, Bit] | None:
        if left.bits is None or right.feeds:
            return None
        return {i + sign * right.number: bit for i, bit in left.bits.items() if i + sign * right.number >= 0}

    return run


def _joined(left: Value, right: Value) -> dict[int, Bit] | None:
    if left.bits is None or right.bits is None or left.bits.keys() & right.bits.keys():
        return None
    return left.bits | right.bits


_BINARY: dict[type[ast.operator], Callable[[Value, Value], Value]] = {
    ast.Add: _arithmetic(lambda a, b: a + b),
    ast.Sub: _arithmetic(lambda a, b: a - b),
    ast.Mult: _arithmetic(lambda a, b: a * b),
    ast.FloorDiv: _arithmetic(lambda a, b: a // b),
    ast.Mod: _arithmetic(lambda a, b: a % b),
    ast.LShift: _whole(lambda a, b: a << b, _shifted(1)),
    ast.RShift: _whole(lambda a, b: a >> b, _shifted(-1)),
    ast.BitAnd: _whole(lambda a, b: a & b, _masked),
    ast.BitOr: _whole(lambda a, b: a | b, _joined),
}

_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "f32": _float32,
    "pow2": lambda n: np.float32(np.ldexp(1.0, int(n))),
    "popcount": lambda n: int(n).bit_count(),
    "f16_bits": lambda n: np.float32(np.uint16(n).view(np.float16)),
}
