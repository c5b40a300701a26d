"""One block taken apart: every bit of it, every number, and the arithmetic from there to its weights."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..blocks import BlockType, Field
from ..format.reader import Tensor
from . import formulas, notation, order, words
from .notation import Bit, Decoder, Value


@dataclass(frozen=True)
class StepView:
    """One decoding step over a block.

    ``group``: neighbouring weights that share its value; a divisor of the block size. ``values``: one for each group.
    """

    name: str
    text: str
    group: int
    values: list[Any]


@dataclass(frozen=True)
class BitRange:
    """Bits ``low`` to ``high`` of a byte. ``step``: the first decoding step that needs them, or '' for none.

    ``weights``: the weights that they feed, ascending. ``number``: index of the field's number that they belong to.
    """

    low: int
    high: int
    step: str
    weights: tuple[int, ...]
    number: int


class BlockView:
    """Block ``placement`` of ``block_type``; computed at once, a few milliseconds to a tenth of a second."""

    def __init__(self, name: str, block_type: BlockType, placement: order.Placement) -> None:
        self.name, self.type, self.placement = name, block_type, placement
        self.decoder = Decoder(block_type, placement.data)
        #: For each weight the value of ``j`` and of every step.
        self.traces: list[dict[str, Value]] = [self.decoder.weight(j) for j in range(block_type.block_size)]

    @cached_property
    def steps(self) -> list[StepView]:
        """Every step with its values, in order; the last is the weight."""
        return [
            StepView(step.name, step.text, *self._grouped([trace[step.name] for trace in self.traces]))
            for step in self.decoder.steps
        ]

    @staticmethod
    def _grouped(values: list[Value]) -> tuple[int, list[Any]]:
        # The largest even share of the block in which the value and its origin stay the same. Only where a group begins
        # anew can a weight differ from the one before it.
        n = len(values)
        breaks = [
            i for i in range(1, n)
            if values[i].feeds != values[i - 1].feeds or not _same(values[i].number, values[i - 1].number)
        ]
        group = next(n // k for k in range(1, n + 1) if n % k == 0 and all(i % (n // k) == 0 for i in breaks))
        return group, [value.number for value in values[::group]]

    @property
    def weights(self) -> list[np.float32]:
        """The block's weights."""
        return [np.float32(trace["weight"].number) for trace in self.traces]

    @cached_property
    def tables(self) -> dict[str, dict[int, int]]:
        """The entries of tables and codebooks that this block looks up; small tables whole."""
        out = {}
        for name, used in self.decoder.used.items():
            values = formulas.table(name)
            indices = range(len(values)) if len(values) <= 16 else sorted(used)
            if name in formulas.CODEBOOKS:  # whole patterns
                width = formulas.CODEBOOKS[name].width
                indices = sorted({i // width * width + k for i in used for k in range(width)})
            out[name] = {i: int(values[i]) for i in indices}
        return out

    @cached_property
    def bits(self) -> list[list[BitRange]]:
        """For each byte of the block its bits, in ranges that do the same."""
        first_step: dict[Bit, str] = {}
        fed: dict[Bit, list[int]] = {}
        for j, trace in enumerate(self.traces):
            for name, value in trace.items():
                for bit in value.feeds:
                    first_step.setdefault(bit, name)
            for bit in trace["weight"].feeds:
                fed.setdefault(bit, []).append(j)
        numbers: dict[Bit, int] = {}
        for field in self.type.layout:
            for index in range(n_numbers(field)):
                for bit in notation.number_bits(field, index).values():
                    numbers[bit] = index
        out = []
        for byte in range(self.type.block_bytes):
            ranges: list[BitRange] = []
            for low in range(8):
                bit = (byte, low)
                now = BitRange(low, low, first_step.get(bit, ""), tuple(fed.get(bit, ())), numbers[bit])
                last = ranges[-1] if ranges else None
                if last and (last.step, last.weights, last.number) == (now.step, now.weights, now.number):
                    ranges[-1] = BitRange(last.low, low, now.step, now.weights, now.number)
                else:
                    ranges.append(now)
            out.append(ranges)
        return out

    def field_at(self, byte: int) -> Field:
        """The field that byte ``byte`` of the block belongs to."""
        return next(field for field in self.type.layout if field.offset <= byte < field.end)

    def worked(self, j: int) -> list[tuple[str, list[str], Value]]:
        """Weight ``j`` by hand: for each step its name, the same thing in ever more definite words, and its value."""
        trace, out = self.traces[j], []
        for step in self.decoder.steps:
            forms = [step.text]
            for form in notation.explain(step, trace, self.decoder):
                if form != forms[-1]:
                    forms.append(form)
            out.append((step.name, forms, trace[step.name]))
        return out


def _same(a: Any, b: Any) -> bool:
    """Equal and, for zeros, of the same sign; any NaN equals any NaN."""
    return bool(a == b and np.signbit(a) == np.signbit(b)) or bool(a != a and b != b)


def n_numbers(field: Field) -> int:
    """How many numbers ``name[i]`` has in the steps: bytes of packed fields, else the field's count."""
    return field.n_bytes if field.kind in ("packed", "trits") else field.count


def block_view(tensor: Tensor, block: int, row: int | None = None) -> BlockView:
    """Block ``block`` of a tensor, or of its row ``row``. Raises `errors.SettingError` when there is none."""
    place = order.place(tensor, row, block)
    return BlockView(tensor.name, tensor.row.type_of(place.block), place)


def ranges_text(numbers: Sequence[int]) -> str:
    """``0-31, 64-95`` for ascending whole numbers."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][1] + 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts)


def bits_by_byte(feeds: frozenset[Bit]) -> dict[int, list[int]]:
    """Bits as ``{byte: [bits, ascending]}``."""
    out: dict[int, list[int]] = {}
    for byte, bit in sorted(feeds):
        out.setdefault(byte, []).append(bit)
    return out


def block_document(view: BlockView) -> dict[str, Any]:
    """A block as JSON: ``spec/json/block.schema.json``. All that is needed to compute every weight again is in it."""
    place = view.placement
    return {
        "schema": "ggblock/block/1",
        "path": words.json_text(place.path), "tensor": words.json_text(view.name), "type": view.type.name,
        "row": place.row, "block": place.block, "blocks_per_row": place.blocks_per_row,
        "first_column": place.first_column, "block_size": view.type.block_size,
        "n_weights": place.n_weights, "order": place.order, "sub_block_size": view.type.sub_block_size,
        "bytes": place.data.tobytes().hex(), "offsets": list(place.offsets),
        "runs": [
            {"first": run.first, "count": run.count, "width": run.width, "start": run.start, "step": run.step}
            for run in place.runs
        ],
        "fields": [
            {
                "name": field.name, "offset": field.offset, "n_bytes": field.n_bytes, "count": field.count,
                "bits": field.bits, "kind": field.kind, "plane": field.plane, "meaning": field.meaning,
                "numbers": [words.json_number(view.decoder.number(field.name, i)) for i in range(n_numbers(field))],
            }
            for field in view.type.layout
        ],
        "tables": {name: {str(i): value for i, value in entries.items()} for name, entries in view.tables.items()},
        "steps": [
            {
                "name": step.name, "formula": step.text, "group": step.group,
                "values": [words.json_number(value) for value in step.values],
            }
            for step in view.steps
        ],
        "bits": [
            [
                {"low": each.low, "high": each.high, "number": each.number, "step": each.step,
                 "weights": ranges_text(each.weights)}
                for each in ranges
            ]
            for ranges in view.bits
        ],
        "weights": [words.json_number(value) for value in view.weights],
    }  # fmt: skip
