"""What a block type is: its layout as data, and the arithmetic that all families share.

A tensor row is a sequence of blocks. A block of ``block_bytes`` bytes holds ``block_size`` weights; every
``sub_block_size`` weights in a row share one scale. Almost every family decodes as::

    weight[j] = scales[j // sub_block_size] * codes[j] - mins[j // sub_block_size]

in float32, one rounding per operation, so a family states only how ``codes``, ``scales`` and ``mins`` are
found in its bytes (`BlockType.unpack`); `BlockType.decode` follows from that. The layout and the decoder are
normative (``spec/blocks``), an encoder's search is informative. All multi-byte numbers are little-endian.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]

#: Weights decoded or encoded at a time: the temporaries (about 1 MB) stay in a core's L2 cache. Measured on Zen 5,
#: Q4_K, 16 M weights, one core: 16 Ki 176 M weights/s, 64 Ki 449, 256 Ki 348, all at once 307 (and twice the memory).
CHUNK_WEIGHTS = 1 << 16

#: Bits of one number of each kind that has a width of its own. ``uint`` and ``packed`` take theirs from
#: `Field.bits`; ``trits`` (five ternary digits a byte) have no whole number of bits.
KIND_BITS = {
    "f16": 16, "bf16": 16, "f32": 32, "f64": 64, "e8m0": 8, "ue4m3": 8,
    "i8": 8, "i16": 16, "i32": 32, "i64": 64, "u8": 8, "u16": 16, "u32": 32,
}
_FREE_KINDS = frozenset({"uint", "packed", "trits"})


@dataclass(frozen=True)
class Field:
    """One field of a block.

    ``name``: as in the spec. ``offset``: bytes from the start of the block. ``n_bytes``: its length.
    ``count``: how many numbers it holds. ``bits``: bits of one number; 0 for ``trits``.
    ``kind``: a key of `KIND_BITS`, or ``uint`` (unsigned numbers of ``bits`` bits, arranged in planes),
    ``packed`` (bits arranged as ``meaning`` says) or ``trits``. ``meaning``: one line for a person.

    ``plane`` is for ``uint`` only: the number of neighbouring weights whose codes lie in neighbouring bytes.
    With ``p = 8 // bits`` the code of weight ``j`` is in byte ``j // (plane * p) * plane + j % plane`` of the
    field, shifted up by ``j // plane % p * bits``. ``plane=1`` is the plain order, lowest bits first.
    """

    name: str
    offset: int
    n_bytes: int
    count: int
    bits: int
    kind: str
    meaning: str
    plane: int = 0

    @property
    def end(self) -> int:
        """Offset of the first byte after the field."""
        return self.offset + self.n_bytes

    def place(self, index: int) -> tuple[int, int]:
        """Byte offset in the block and shift in that byte of number ``index`` of a ``uint`` field."""
        if self.kind != "uint" or not 0 <= index < self.count:
            raise ValueError(f"{self.name}[{index}] has no single place")
        per_byte = 8 // self.bits
        byte = index // (self.plane * per_byte) * self.plane + index % self.plane
        return self.offset + byte, index // self.plane % per_byte * self.bits


@dataclass(frozen=True)
class Unpacked:
    """The numbers of some blocks before the last multiplication.

    ``codes``: int8, uint8 or float32 (n_blocks, block_size), the multiplier of each weight (already signed,
    looked up and offset). ``scales``: float32 (n_blocks, n_sub_blocks). ``mins``: float32
    (n_blocks, n_sub_blocks), subtracted after the multiplication, or None.
    """

    codes: NDArray[Any]
    scales: F32
    mins: F32 | None = None


class Encoder(Protocol):
    """A reference quantizer; informative, unlike the decoder."""

    def __call__(self, blocks: F32, importance: F32 | None = None) -> U8:
        """Encode float32 (n_blocks, block_size), finite, as uint8 (n_blocks, block_bytes).

        ``importance``: float32 (n_blocks, block_size), weights of the squared errors, or None for the
        family's own choice. Families without a search ignore it.
        """
        ...


@dataclass(frozen=True)
class BlockType:
    """One block type: name, ggml id, sizes, layout, and reference decoder and encoder.

    ``name`` is lower case (``q4_k``); `label` is ggml's spelling. ``decode`` takes uint8
    (n_blocks, block_bytes) and returns float32 (n_blocks, block_size). ``unpack`` gives the numbers one step
    earlier, or is None for plain numbers (F32, I8, ...). ``encode`` is None where there is no encoder.
    ``is_tail``: the last block of a ragged row, with fewer weights than the type's blocks (`tails`).
    """

    name: str
    ggml_id: int
    block_size: int
    block_bytes: int
    sub_block_size: int
    layout: tuple[Field, ...]
    decode: Callable[[U8], F32]
    encode: Encoder | None = None
    unpack: Callable[[U8], Unpacked] | None = None
    is_tail: bool = False

    def __post_init__(self) -> None:
        check_layout(self.name, self.layout, self.block_bytes)
        if self.block_size % self.sub_block_size:
            raise ValueError(f"{self.name}: {self.block_size} weights do not divide into {self.sub_block_size}")

    @property
    def label(self) -> str:
        """ggml's spelling of the name: ``Q4_K``."""
        return self.name.upper()

    @property
    def bits_per_weight(self) -> float:
        """Bits of storage a weight, scales included."""
        return 8 * self.block_bytes / self.block_size

    @property
    def n_sub_blocks(self) -> int:
        """Scales a block."""
        return self.block_size // self.sub_block_size

    def row_bytes(self, n_cols: int) -> int:
        """Bytes of a row of ``n_cols`` weights; ValueError when it is no whole number of blocks."""
        if n_cols < 0 or n_cols % self.block_size:
            raise ValueError(f"{n_cols} columns are no whole number of {self.label} blocks of {self.block_size}")
        return n_cols // self.block_size * self.block_bytes

    def field(self, name: str) -> Field:
        """The field called ``name``; KeyError when there is none."""
        for field in self.layout:
            if field.name == name:
                return field
        raise KeyError(name)


def check_layout(name: str, layout: tuple[Field, ...], block_bytes: int) -> None:
    """Refuse (ValueError) a layout with gaps, overlaps, repeated names or sizes that do not add up."""
    end = 0
    for field in layout:
        if field.offset != end:
            raise ValueError(f"{name}.{field.name}: at byte {field.offset}, expected {end}")
        end = field.end
        if field.kind in KIND_BITS and field.bits != KIND_BITS[field.kind]:
            raise ValueError(f"{name}.{field.name}: a {field.kind} has {KIND_BITS[field.kind]} bits")
        if field.kind not in KIND_BITS and field.kind not in _FREE_KINDS:
            raise ValueError(f"{name}.{field.name}: unknown kind {field.kind}")
        if field.kind != "trits" and field.count * field.bits != 8 * field.n_bytes:
            raise ValueError(f"{name}.{field.name}: {field.count} x {field.bits} bits are not {field.n_bytes} bytes")
        if (field.kind == "uint") != (field.plane > 0) or (field.plane and field.n_bytes % field.plane):
            raise ValueError(f"{name}.{field.name}: planes of {field.plane} do not fit")
    if end != block_bytes:
        raise ValueError(f"{name}: fields end at byte {end}, expected {block_bytes}")
    if len({field.name for field in layout}) != len(layout):
        raise ValueError(f"{name}: repeated field name")


def take(blocks: U8, field: Field) -> U8:
    """The bytes of ``field``: a view uint8 (n_blocks, n_bytes)."""
    return blocks[:, field.offset : field.end]


def take_f16(blocks: U8, field: Field) -> F32:
    """A field of float16 as float32 (n_blocks, count); exact."""
    return take(blocks, field).view("<f2").astype(np.float32)


def take_uint(blocks: U8, field: Field) -> U8:
    """A ``uint`` field as uint8 (n_blocks, count), in weight order."""
    n_blocks, per_byte, mask = len(blocks), 8 // field.bits, np.uint8((1 << field.bits) - 1)
    source = take(blocks, field).reshape(n_blocks, -1, field.plane)
    out = np.empty((n_blocks, source.shape[1], per_byte, field.plane), np.uint8)
    for plane in range(per_byte):
        np.right_shift(source, np.uint8(plane * field.bits), out=out[:, :, plane])
    out &= mask
    return out.reshape(n_blocks, field.count)


def put_uint(codes: U8, field: Field) -> U8:
    """The inverse of `take_uint`: uint8 (n_blocks, count), below ``1 << bits``, to bytes (n_blocks, n_bytes)."""
    n_blocks, per_byte = len(codes), 8 // field.bits
    source = codes.reshape(n_blocks, -1, per_byte, field.plane)
    out = source[:, :, 0].copy()
    for plane in range(1, per_byte):
        out |= source[:, :, plane] << np.uint8(plane * field.bits)
    packed: U8 = out.reshape(n_blocks, field.n_bytes)
    return packed


def put_f16(values: F32) -> U8:
    """float32 (n_blocks,) or (n_blocks, count) as the bytes of float16, rounded to nearest even."""
    with np.errstate(over="ignore"):
        halves = values.reshape(len(values), -1).astype("<f2")
    return halves.view(np.uint8)


def decoder(unpack: Callable[[U8], Unpacked], block_size: int, block_bytes: int) -> Callable[[U8], F32]:
    """The decoder that follows from ``unpack``: ``scales * codes - mins``, `CHUNK_WEIGHTS` at a time.

    It needs no more memory than its result and a few megabytes, whatever the number of blocks.
    """

    def decode_chunk(blocks: U8, out: F32) -> None:
        parts = unpack(blocks)
        grouped = out.reshape(len(blocks), parts.scales.shape[1], -1)
        np.multiply(parts.codes.reshape(grouped.shape), parts.scales[:, :, None], out=grouped, dtype=np.float32)
        if parts.mins is not None:
            grouped -= parts.mins[:, :, None]

    return chunked(decode_chunk, block_size, block_bytes)


def chunked(decode_chunk: Callable[[U8, F32], None], block_size: int, block_bytes: int) -> Callable[[U8], F32]:
    """Turn ``decode_chunk(blocks, out)`` into ``decode(blocks) -> float32 (n_blocks, block_size)``."""
    step = max(1, CHUNK_WEIGHTS // block_size)

    def decode(blocks: U8) -> F32:
        if blocks.ndim != 2 or blocks.shape[1] != block_bytes or blocks.dtype != np.uint8:
            raise ValueError(f"expected uint8 (n_blocks, {block_bytes}), got {blocks.dtype} {blocks.shape}")
        out = np.empty((len(blocks), block_size), np.float32)
        # Garbage bytes can hold infinite or huge scales: inf and nan are then the defined result.
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(blocks), step):
                piece = np.ascontiguousarray(blocks[start : start + step])
                decode_chunk(piece, out[start : start + step])
        return out

    return decode


def block_type(
    name: str,
    ggml_id: int,
    layout: tuple[Field, ...],
    unpack: Callable[[U8], Unpacked],
    encode: Encoder | None = None,
    *,
    block_size: int,
    sub_block_size: int,
) -> BlockType:
    """A `BlockType` whose bytes and decoder follow from its layout and ``unpack``."""
    block_bytes = layout[-1].end
    decode = decoder(unpack, block_size, block_bytes)
    return BlockType(name, ggml_id, block_size, block_bytes, sub_block_size, layout, decode, encode, unpack)
