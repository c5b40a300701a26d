"""Check a tensor table against its block types and its file, before any tensor byte is touched."""
from __future__ import annotations

from dataclasses import dataclass

from .. import blocks, errors
from ..blocks import tails
from . import ggb, limits, panels
from .header import Header, TensorRecord
from .mapped import Mapped
from .metadata import Typed


@dataclass(frozen=True)
class Placed:
    """A tensor that was checked. ``start``: offset of its first byte in the file. ``row_bytes``: bytes a row.

    ``n_bytes``: bytes in the file. ``in_panels``: whether they are panels of 16 rows (``spec/panels.md``).
    """

    record: TensorRecord
    type: blocks.BlockType
    n_weights: int
    n_rows: int
    row_bytes: int
    start: int
    n_bytes: int
    in_panels: bool


def alignment(values: dict[str, Typed], path: str) -> int:
    """``general.alignment``: a u32 power of two, 32 where it is missing. Raises `errors.BadAlignment`."""
    typed = values.get("general.alignment")
    if typed is None:
        return limits.DEFAULT_ALIGNMENT
    value = typed.value
    good = typed.kind == "u32" and isinstance(value, int) and 0 < value <= limits.MAX_ALIGNMENT
    if not good or not isinstance(value, int) or value & (value - 1):
        raise errors.BadAlignment(
            "the alignment is not usable", file=path, where="general.alignment",
            expected=f"a u32 power of two up to {limits.MAX_ALIGNMENT}",
            actual=f"{typed.kind} {value}" if isinstance(value, int) else typed.kind,
        )
    return value


def place(header: Header, mapped: Mapped, align: int) -> list[Placed]:
    """Every tensor's block type, sizes and place in the file.

    Raises `errors.UnknownType`, `errors.RemovedType`, `errors.BadShape`, `errors.BadAlignment`,
    `errors.TensorOverlap`, `errors.TensorOutOfFile`, or what `ggb.check` raises.
    """
    # First of all: of a newer profile nobody here knows what its types and sizes mean.
    in_any = any(panels.plain_id(record.type_id) is not None for record in header.records)
    ggb.check(header.values, mapped.path, in_panels=in_any, big_endian=mapped.big_endian)
    base = -(-header.end // align) * align
    placed: list[Placed] = []
    end, before = 0, "the start of the data"
    for record in header.records:
        block = block_type(record, mapped.path)
        in_panels = panels.plain_id(record.type_id) is not None
        n_weights, n_rows, row_bytes = sizes(record, block, mapped.path, in_panels)
        n_bytes = stored_bytes(block, n_rows, row_bytes, in_panels)
        if n_bytes > limits.MAX_TENSOR_SIZE:
            raise errors.BadShape("the tensor's size in panels overflows", file=mapped.path, where=record.name,
                                  offset_bytes=record.at, expected=f"at most {limits.MAX_TENSOR_SIZE}", actual=n_bytes)
        if record.offset % align:
            raise errors.BadAlignment(
                "the tensor's offset does not respect the alignment", file=mapped.path, where=record.name,
                offset_bytes=record.at, expected=f"a multiple of {align}", actual=record.offset,
            )
        if record.offset < end:
            raise errors.TensorOverlap(
                f"the tensor starts before the end of {before}", file=mapped.path, where=record.name,
                offset_bytes=record.at, expected=f"an offset of at least {end}", actual=record.offset,
            )
        start, end, before = base + record.offset, record.offset + n_bytes, record.name
        if base + end > mapped.size:
            raise errors.TensorOutOfFile(
                "the tensor's bytes lie outside the file, which may be cut short", file=mapped.path,
                where=record.name, offset_bytes=record.at, expected=f"a file of at least {base + end} bytes",
                actual=mapped.size,
            )
        placed.append(Placed(record, block, n_weights, n_rows, row_bytes, start, n_bytes, in_panels))
    return placed


def stored_bytes(block: blocks.BlockType, n_rows: int, row_bytes: int, in_panels: bool) -> int:
    """Bytes of a tensor in the file."""
    if not in_panels:
        return n_rows * row_bytes
    return -(-n_rows // panels.ROWS) * panels.panel_bytes(block.name, row_bytes)


def block_type(record: TensorRecord, path: str) -> blocks.BlockType:
    """The block type of ``record``; raises `errors.UnknownType` or `errors.RemovedType` with file and tensor."""
    try:
        plain = panels.plain_id(record.type_id)
        block = blocks.by_id(record.type_id if plain is None else plain)
        if plain is not None and block.name not in panels.UNITS:
            raise errors.UnknownType(f"{block.label} has no panels")
        return block
    except errors.UnknownType as fault:
        raise type(fault)(
            fault.message, file=path, where=record.name, offset_bytes=record.at, actual=record.type_id
        ) from None


def sizes(
    record: TensorRecord, block: blocks.BlockType, path: str | None, in_panels: bool = False
) -> tuple[int, int, int]:
    """(n_weights, n_rows, row_bytes) of a tensor; raises `errors.BadShape`. Only rows in panels may be ragged.

    A tensor without dimensions is one weight. Products are checked against 63 bits.
    """

    def bad(message: str, expected: str, actual: object) -> errors.BadShape:
        return errors.BadShape(
            message, file=path, where=record.name, offset_bytes=record.at if path else None,
            expected=expected, actual=actual,
        )

    if 0 in record.ne:
        raise bad("a dimension is zero", "at least 1 in each", record.ne)
    n_cols = record.ne[0] if record.ne else 1
    n_rows = 1
    for n in record.ne[1:]:
        n_rows *= n
    n_weights = n_rows * n_cols
    unit = tails.step(block) if in_panels else block.block_size
    if n_cols % unit:
        what = "blocks" if unit == block.block_size else "sub-blocks"
        raise bad(f"the rows are no whole number of {block.label} {what}", f"a multiple of {unit}", n_cols)
    row_bytes = tails.row(block, n_cols, in_panels).n_bytes
    if max(n_weights, n_rows * row_bytes) > limits.MAX_TENSOR_SIZE:
        raise bad("the tensor's size overflows", f"at most {limits.MAX_TENSOR_SIZE}", record.ne)
    return n_weights, n_rows, row_bytes
