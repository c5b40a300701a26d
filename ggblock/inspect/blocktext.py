"""A block view as lines of text, complete enough to compute every weight with paper and pencil (or a script)."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..format import panels
from . import words
from .blockview import BlockView, bits_by_byte, n_numbers, ranges_text
from .notation import shown
from .order import Placement

#: Bits of exponent and fraction of the float kinds, and the exponent's bias.
_FLOATS = {"f16": (5, 10, 15), "bf16": (8, 7, 127), "f32": (8, 23, 127), "f64": (11, 52, 1023)}


def lines(view: BlockView, weight: int = 0, width: int | None = None) -> Iterator[str]:
    """Everything about the block; ``weight`` is the one that is computed step by step. Grids keep to ``width``."""
    yield from head(view)
    yield from hex_lines(view)
    yield from fields(view)
    yield from _where(view)
    yield from _numbers(view)
    yield from _byte_table(view)
    yield from _steps(view)
    yield from _notation(view)
    yield from _tables(view)
    yield from _groups(view)
    yield from _grids(view, width)
    yield from worked(view, weight)


def head(view: BlockView) -> Iterator[str]:
    """Which block of what."""
    place, size, first = view.placement, view.type.block_size, view.placement.first_column
    tail = ", the tail," if view.type.is_tail else ""
    yield (
        f"{words.readable(view.name)}: {view.type.label}, row {place.row}, block {place.block}{tail} of "
        f"{place.blocks_per_row} in the row; columns {first} to {first + place.n_weights - 1}"
    )
    start, end = place.span
    where = f"{'at' if place.is_contiguous else 'scattered over'} {start} to {end - 1}"
    yield (
        f"{words.plural(view.type.block_bytes, 'byte')} {where} of {words.readable(place.path)}; "
        f"{words.plural(size, 'weight')}, {view.type.bits_per_weight:g} bits each"
    )
    if not place.is_contiguous:
        yield from _places(place)


def _places(place: Placement) -> Iterator[str]:
    """Where the units of a block that is interleaved with others lie."""
    yield ""
    lane = f": panel {place.row // panels.ROWS}, place {place.row % panels.ROWS} of {panels.ROWS} in it"
    yield f"where the bytes lie in the file{lane if place.order == 'panels' else ''}"
    for run in place.runs:
        last = run.first + run.count * run.width - 1
        unit = words.plural(run.width, "byte")
        if run.count * run.width == 1:
            yield f"  byte {run.first}: at {run.start}"
        elif run.count == 1:
            yield f"  bytes {run.first} to {last}: {unit} at {run.start}"
        else:
            ends = [run.start, run.start + run.step, run.start + (run.count - 1) * run.step]
            at = f"{ends[0]}, {ends[1]}{f', ... {ends[2]}' if run.count > 2 else ''}"
            yield f"  bytes {run.first} to {last}: {run.count} units of {unit}, at {at} ({run.step} apart)"


def hex_lines(view: BlockView, styles: dict[str, tuple[str, str]] | None = None) -> Iterator[str]:
    """The raw bytes, 16 a line. ``styles``: texts to put before and after the bytes of each field (colours)."""
    yield ""
    yield "bytes"
    data = view.placement.data
    for at in range(0, len(data), 16):
        cells = []
        for byte in range(at, min(at + 16, len(data))):
            before, after = (styles or {}).get(view.field_at(byte).name, ("", ""))
            cells.append(f"{before}{data[byte]:02x}{after}")
        yield f"  {at:4}  {' '.join(cells)}"


def fields(view: BlockView) -> Iterator[str]:
    """The layout."""
    yield ""
    yield "fields"
    rows = [("bytes", "field", "count", "bits", "kind", "plane", "meaning")]
    for f in view.type.layout:
        span = f"{f.offset}-{f.end - 1}"
        rows.append((span, f.name, str(f.count), str(f.bits or "log2 3"), f.kind, str(f.plane or "-"), f.meaning))
    yield from _columns(rows, left=(1, 4, 6))


def _where(view: BlockView) -> Iterator[str]:
    """Where each of the small numbers of a field is: the arithmetic of `Field.place` with the field's own numbers."""
    lines = []
    for f in view.type.layout:
        first, n = f"{f.offset} + " if f.offset else "", n_numbers(f)
        if n == 1:
            continue
        if f.kind != "uint":
            width = f.n_bytes // n
            lines.append(f"  {f.name}[i]: byte {first}i" if width == 1 else
                         f"  {f.name}[i]: byte {first}{width} * i and {width - 1} more, lowest first")  # fmt: skip
            continue
        per_byte, group = 8 // f.bits, f.plane * (8 // f.bits)
        step = f"i // {per_byte}" if f.plane == 1 else f"i % {f.plane}"
        if f.plane > 1 and f.count > group:
            step = f"{f.plane} * (i // {group}) + {step}"
        shift = (f"i // {f.plane} % {per_byte}" if f.count > group else f"i // {f.plane}") if f.plane > 1 else \
            f"i % {per_byte}"
        bit = f"bit {f'{f.bits} * ({shift})' if f.bits > 1 else shift}"
        lines.append(f"  {f.name}[i]: byte {first}{step}, from {bit} on, {words.plural(f.bits, 'bit')}")
    if lines:
        yield ""
        yield "where number i of a field is"
        yield from lines


#: What the steps write, and what it means, as ``spec/blocks/README.md`` defines it.
_SIGNS = {
    "x[i]": ("[", "number i of field or table x, the first is 0"),
    "x // y": (" // ", "x over y, rounded down"),
    "x % y": (" % ", "what x // y leaves"),
    "x & y": (" & ", "the bits that are 1 in both"),
    "x | y": (" | ", "the bits that are 1 in either"),
    "x << n": (" << ", "bits moved up n places, times 2^n"),
    "x >> n": (" >> ", "bits moved down n places, the lowest n dropped"),
    "a if t else b": (" if ", "a where t holds (a number: is not 0), else b"),
    "pow2(n)": ("pow2(", "2^n"),
    "popcount(n)": ("popcount(", "how many bits of n are 1"),
    "f16_bits(n)": ("f16_bits(", "the float16 with the bits n"),
    "f32(x)": ("f32(", "x rounded to float32"),
}


def _notation(view: BlockView) -> Iterator[str]:
    """The signs that this type's steps use."""
    text = " ".join(step.text for step in view.steps)
    yield ""
    yield "notation (bits of a byte count from 0, the lowest)"
    for sign, (mark, meaning) in _SIGNS.items():
        if mark in text:
            yield f"  {sign}: {meaning}"


def _numbers(view: BlockView) -> Iterator[str]:
    """The values of the fields that hold few numbers; what is stored for each weight comes as a grid below."""
    yield ""
    yield "numbers"
    for field in view.type.layout:
        if field.kind in _FLOATS:
            raw = view.placement.data[field.offset : field.end].tobytes()
            width = field.bits // 8
            for i in range(field.count):
                stored = raw[i * width : (i + 1) * width]
                value = shown(view.decoder.number(field.name, i))
                bits = _float(field.kind, int.from_bytes(stored, "little"))
                yield f"  {field.name}[{i}] = {value}  (bytes {stored.hex(' ')}, lowest first: {bits})"
        elif field.kind in ("e8m0", "ue4m3"):
            for i in range(field.count):
                value = view.decoder.number(field.name, i)
                yield f"  {field.name}[{i}] = {value}  (0x{value:02x}, {field.kind})"
        elif field.count < view.type.block_size or field.kind == "packed":
            n = field.n_bytes if field.kind in ("packed", "trits") else field.count
            values = [str(view.decoder.number(field.name, i)) for i in range(n)]
            for at in range(0, n, 16):
                yield f"  {field.name}[{at}..{min(n, at + 16) - 1}] = {' '.join(values[at : at + 16])}"


def _float(kind: str, pattern: int) -> str:
    n_exponent, n_fraction, bias = _FLOATS[kind]
    sign = pattern >> (n_exponent + n_fraction)
    exponent = pattern >> n_fraction & ((1 << n_exponent) - 1)
    fraction = pattern & ((1 << n_fraction) - 1)
    bits = f"sign {sign:b}, exponent {exponent:0{n_exponent}b}, fraction {fraction:0{n_fraction}b}"
    if exponent == (1 << n_exponent) - 1:
        meaning = "infinity" if fraction == 0 else "not a number"
    elif exponent == 0:
        meaning = f"{'-' * sign}{fraction}/{1 << n_fraction} * 2^(1 - {bias})"
    else:
        meaning = f"{'-' * sign}(1 + {fraction}/{1 << n_fraction}) * 2^({exponent} - {bias})"
    return f"{kind} 0x{pattern:0{(1 + n_exponent + n_fraction) // 4}x} is {bits} = {meaning}"


def _byte_table(view: BlockView) -> Iterator[str]:
    yield ""
    yield "every byte"
    rows = [("byte", "in file", "hex", "binary", "field", "bits")]
    for byte, ranges in enumerate(view.bits):
        field, value = view.field_at(byte), int(view.placement.data[byte])
        uses = []
        for each in ranges:
            n_bits = each.high - each.low + 1
            part = value >> each.low & ((1 << n_bits) - 1)
            span = "" if n_bits == 8 else (f"{each.low}: " if n_bits == 1 else f"{each.low}-{each.high}: ")
            use = f"{each.step} of {_weights(each.weights, view)}" if each.step else "unused"
            if field.kind in ("uint", "i8", "u8"):
                use = f"{field.name}[{each.number}] = {_signed(part, field.kind)} -> {use}"
            else:
                use = f"{part} -> {use}" if span else use
            uses.append(span + use)
        rows.append((
            str(byte), str(view.placement.offsets[byte]), f"{value:02x}", f"{value:08b}", field.name, "; ".join(uses)
        ))  # fmt: skip
    yield from _columns(rows, left=(4, 5))


def _signed(value: int, kind: str) -> int:
    return value - 256 if kind == "i8" and value > 127 else value


def _weights(weights: tuple[int, ...], view: BlockView) -> str:
    if len(weights) == view.type.block_size:
        return "every weight"
    return f"weight{'s' if len(weights) > 1 else ''} {ranges_text(weights)}"


def _steps(view: BlockView) -> Iterator[str]:
    yield ""
    yield f"decoding of weight j, 0 to {view.type.block_size - 1} (each float operation rounds to float32)"
    for step in view.steps:
        yield f"  {step.name} = {step.text}"


def _tables(view: BlockView) -> Iterator[str]:
    if not view.tables:
        return
    yield ""
    yield "table entries in use"
    for name, entries in view.tables.items():
        runs: list[list[int]] = []
        for i in entries:
            if runs and i == runs[-1][-1] + 1 and len(runs[-1]) < 16 and i % 8:
                runs[-1].append(i)
            else:
                runs.append([i])
        for run in runs:
            yield f"  {name}[{run[0]}..{run[-1]}] = {' '.join(str(entries[i]) for i in run)}"


def _groups(view: BlockView) -> Iterator[str]:
    """Steps that neighbouring weights share: one table for each size of group, the largest first."""
    inner = view.steps[:-1]
    for group in sorted({step.group for step in inner if step.group > 1}, reverse=True):
        shared = [step for step in inner if step.group == group]
        yield ""
        whole = group == view.type.block_size
        yield "shared by the whole block" if whole else f"shared by {group} weights"
        rows = [("weights", *(step.name for step in shared))]
        for i in range(view.type.block_size // group):
            span = f"{i * group}-{(i + 1) * group - 1}"
            rows.append((span, *(shown(step.values[i]) for step in shared)))
        yield from _columns(rows)


def _grids(view: BlockView, width: int | None) -> Iterator[str]:
    """Steps that differ from weight to weight, and the weights in any case."""
    for step in view.steps:
        if step.group > 1 and step.name != "weight":
            continue
        cells = [shown(value) for value in step.values for _ in range(step.group)]
        longest = max(map(len, cells))
        per_line = 8 if any(isinstance(value, np.floating) for value in step.values) else 16
        while width is not None and per_line > 1 and 7 + per_line * (longest + 1) > width:
            per_line //= 2
        yield ""
        yield step.name
        for at in range(0, len(cells), per_line):
            yield f"  {at:4}  {' '.join(f'{cell:>{longest}}' for cell in cells[at : at + per_line])}"


def worked(view: BlockView, j: int) -> Iterator[str]:
    """Weight ``j`` step by step."""
    yield ""
    yield f"weight {j} by hand"
    for name, forms, value in view.worked(j):
        result = shown(value.number)
        chain = [form for form in forms if form != result]
        yield f"  {name} = {' = '.join([*chain, result])}"
        if value.bits is not None and value.feeds:
            data: Any = view.placement.data
            where = ", ".join(
                f"byte {byte} (0x{int(data[byte]):02x}) bit{'s' if len(bits) > 1 else ''} {ranges_text(bits)}"
                for byte, bits in bits_by_byte(value.feeds).items()
            )
            yield f"      from {where}"


def _columns(rows: Sequence[tuple[str, ...]], left: tuple[int, ...] = ()) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [f"{c:<{w}}" if i in left else f"{c:>{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        yield ("  " + "  ".join(cells)).rstrip()
