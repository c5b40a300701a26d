"""Ragged rows: the last super-block of a row, cut down to the weights that the row has. GGB files only.

A tail of ``m`` weights has the fields of a whole block, in the same order. A field of `CUT` keeps ``m`` out of
``block_size`` parts of its bytes, rounded up to whole groups of four where it holds codes of weights; a cut ``uint``
field is one plane: with ``n_bytes`` bytes number ``j`` is in byte ``j % n_bytes``, ``j // n_bytes`` places up. All
other fields stay as they are. ``spec/panels.md`` is the definition.

So a tail is a block type of its own, with its own layout, and whatever works on layouts works on tails.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from . import tq1_0
from .base import F32, U8, BlockType, Encoder, Field, Unpacked, decoder, put_uint, take, take_uint

#: Type to (what row lengths are a multiple of, the fields that are cut). Other types have no tails.
CUT: Mapping[str, tuple[int, tuple[str, ...]]] = MappingProxyType({
    "q2_k": (16, ("scales", "qs")),
    "q3_k": (16, ("hmask", "qs")),
    "q4_k": (32, ("qs",)),
    "q5_k": (32, ("qh", "qs")),
    "q6_k": (16, ("ql", "qh", "scales")),
    "iq4_xs": (32, ("qs",)),
    "nvfp4": (16, ("d", "qs")),
    "tq1_0": (32, ("qs", "qh")),
    "tq2_0": (32, ("qs",)),
    "q1_0": (32, ("qs",)),
    "q2_0": (32, ("qs",)),
})

#: Bytes of codes come in groups of so many, the unit in which panels interleave them.
_GROUP = 4


def step(block: BlockType) -> int:
    """What the length of a ragged row is a multiple of: the sub-block, or the block of types without tails."""
    return CUT[block.name][0] if block.name in CUT else block.block_size


@lru_cache(maxsize=256)
def tail(block: BlockType, n_weights: int) -> BlockType:
    """The last, partial block of a row: a block of ``n_weights`` of type ``block``.

    Raises ValueError when ``n_weights`` is no multiple of `step` between 0 and the block size, both excluded.
    """
    if block.is_tail or not 0 < n_weights < block.block_size or n_weights % step(block):
        raise ValueError(f"{block.label} has no tail of {n_weights} weights")
    layout = tuple(_fields(block, n_weights))
    sub_size = min(block.sub_block_size, n_weights)
    n_sub = n_weights // sub_size

    def unpack(tails: U8) -> Unpacked:
        assert block.unpack is not None
        parts = block.unpack(expand(made, block, tails))
        mins = None if parts.mins is None else parts.mins[:, :n_sub]
        return Unpacked(parts.codes[:, :n_weights], parts.scales[:, :n_sub], mins)

    def encode(blocks: F32, importance: F32 | None = None) -> U8:
        assert block.encode is not None
        spread = None if importance is None else fill(block, importance, floor=1.0)
        return shrink(made, block, block.encode(fill(block, blocks), spread))

    n_bytes = layout[-1].end
    encoder: Encoder | None = None if block.encode is None else encode
    made = BlockType(
        block.name, block.ggml_id, n_weights, n_bytes, sub_size, layout, decoder(unpack, n_weights, n_bytes),
        encoder, unpack, is_tail=True,
    )
    return made


def _fields(block: BlockType, m: int) -> Iterator[Field]:
    """The layout of a tail of ``m`` weights."""
    cut, at = CUT[block.name][1], 0
    for field in block.layout:
        n_bytes, count, plane, meaning = field.n_bytes, field.count, field.plane, field.meaning
        if field.kind == "trits":
            # five digits a byte for all weights: qs takes in those of qh
            n_bytes = _grouped(-(-m // 5)) if field.name == "qs" else 0
            count, meaning = m, f"digit j // {n_bytes} of byte j % {n_bytes}"
        elif field.name in cut:
            n_bytes = -(-field.n_bytes * m // block.block_size)
            if holds_codes(block, field):
                n_bytes = _grouped(n_bytes)
            count, plane = 8 * n_bytes // field.bits, n_bytes if field.plane else 0
        if n_bytes:
            yield replace(field, offset=at, n_bytes=n_bytes, count=count, plane=plane, meaning=meaning)
        at += n_bytes


def holds_codes(block: BlockType, field: Field) -> bool:
    """Whether a field of a whole block has something of every weight's code."""
    return field.count == block.block_size or field.kind == "trits"


def _grouped(n_bytes: int) -> int:
    return -(-n_bytes // _GROUP) * _GROUP


def fill(block: BlockType, values: F32, floor: float = 0.0) -> F32:
    """Values of tails, float32 (n, m), as those of whole blocks, (n, block_size), whose first ``m`` they are.

    What is added must not change what a search finds: zeros where sub-blocks have scales of their own, which then
    is 0 as well; else the values over again. ``floor``: instead of the zeros.
    """
    n, m = values.shape
    if block.n_sub_blocks == 1:
        return np.ascontiguousarray(np.tile(values, (1, -(-block.block_size // m)))[:, : block.block_size])
    out = np.full((n, block.block_size), floor, np.float32)
    out[:, :m] = values
    return out


def expand(short: BlockType, block: BlockType, tails: U8) -> U8:
    """Tails, uint8 (n, tail's bytes), as whole blocks: the missing codes and scales are zero bits."""
    out = np.zeros((len(tails), block.block_bytes), np.uint8)
    for field in block.layout:
        if field.kind == "trits":
            continue
        of = short.field(field.name)
        if field == replace(of, offset=field.offset):
            out[:, field.offset : field.end] = take(tails, of)
        elif field.kind == "uint":
            out[:, field.offset : field.end] = put_uint(_regrouped(take_uint(tails, of), short, block, field), field)
        else:
            out[:, field.offset : field.offset + of.n_bytes] = take(tails, of)
    if block.name == "tq1_0":
        codes = np.zeros((len(tails), block.block_size), np.uint8)
        codes[:, : short.block_size] = tq1_0.digits(tails, short)[:, : short.block_size]
        tq1_0.put_digits(codes, block, out)
    return out


def shrink(short: BlockType, block: BlockType, blocks: U8) -> U8:
    """The inverse of `expand`: the tails of whole blocks; what lies beyond them is left out."""
    out = np.zeros((len(blocks), short.block_bytes), np.uint8)
    for of in short.layout:
        field = block.field(of.name)
        if field.kind == "trits":
            tq1_0.put_digits(tq1_0.digits(blocks, block)[:, : short.block_size], short, out)
        elif field == replace(of, offset=field.offset) or field.kind != "uint":
            out[:, of.offset : of.end] = take(blocks, field)[:, : of.n_bytes]
        else:
            out[:, of.offset : of.end] = put_uint(_regrouped(take_uint(blocks, field), block, short, of), of)
    return out


def _regrouped(numbers: U8, source: BlockType, target: BlockType, of: Field) -> U8:
    """Numbers of a field of ``source`` as those of field ``of`` of ``target``: one a weight, or some a sub-block."""
    per_weight = of.count >= target.block_size  # of fields that are cut those of sub-blocks have fewer numbers
    n_in, n_out = (b.block_size if per_weight else b.n_sub_blocks for b in (source, target))
    groups = 1 if per_weight else of.count // n_out
    numbers = numbers if per_weight else numbers.reshape(len(numbers), groups, n_in)
    kept = min(n_in, n_out)
    out = np.zeros((len(numbers), groups, of.count // groups), np.uint8)
    out[:, :, :kept] = numbers.reshape(len(numbers), groups, -1)[:, :, :kept]
    return out.reshape(len(numbers), of.count)


@dataclass(frozen=True)
class Row:
    """How a row of ``n_cols`` weights lies in bytes: ``n_whole`` blocks, then ``tail`` where the row is ragged."""

    block: BlockType
    n_cols: int
    n_whole: int
    tail: BlockType | None

    @property
    def n_bytes(self) -> int:
        """Bytes of the row."""
        return self.n_whole * self.block.block_bytes + (self.tail.block_bytes if self.tail else 0)

    @property
    def n_blocks(self) -> int:
        """Blocks of the row, the tail among them."""
        return self.n_whole + (self.tail is not None)

    def type_of(self, i: int) -> BlockType:
        """The type of block ``i``: that of the row, or its tail."""
        return self.tail if self.tail is not None and i == self.n_whole else self.block

    def parts(self, raw: U8) -> list[tuple[BlockType, U8]]:
        """Rows uint8 (n, n_bytes) as (type, its bytes, uint8 (n, k * block_bytes)), the whole blocks first."""
        body = self.n_whole * self.block.block_bytes
        found = [(self.block, raw[:, :body])] if self.n_whole or self.tail is None else []
        return found if self.tail is None else [*found, (self.tail, raw[:, body:])]

    def decode(self, raw: U8) -> F32:
        """Rows uint8 (n, n_bytes) as float32 (n, n_cols)."""
        decoded = []
        for kind, part in self.parts(raw):
            n_blocks = part.shape[1] // kind.block_bytes
            blocks = np.ascontiguousarray(part).reshape(len(raw) * n_blocks, kind.block_bytes)
            decoded.append(kind.decode(blocks).reshape(len(raw), n_blocks * kind.block_size))
        return decoded[0] if len(decoded) == 1 else np.concatenate(decoded, axis=1)


def row(block: BlockType, n_cols: int, ragged: bool = False) -> Row:
    """The layout of a row. Raises ValueError when ``n_cols`` is no whole number of blocks (``ragged``: of `step`)."""
    unit = step(block) if ragged else block.block_size
    if n_cols < 0 or n_cols % unit:
        raise ValueError(f"{n_cols} columns of {block.label} are no multiple of {unit}")
    rest = n_cols % block.block_size
    return Row(block, n_cols, n_cols // block.block_size, tail(block, rest) if rest else None)


@lru_cache(maxsize=64)
def tail_of_bytes(block: BlockType, n_bytes: int) -> BlockType:
    """The tail that has ``n_bytes`` bytes; ValueError where none has. No two tails of a type have the same size."""
    for m in range(step(block), block.block_size, step(block)):
        if tail(block, m).block_bytes == n_bytes:
            return tail(block, m)
    raise ValueError(f"no tail of {block.label} has {n_bytes} bytes")
