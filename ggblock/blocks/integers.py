"""I8, I16, I32, I64: plain signed integers, one a block; not weights but tables (index lists and the like).

Decoding to float32 rounds to nearest even, so I32 and I64 beyond 2**24 lose their last digits; read them with
``.view("<i4")`` where that matters. There is no encoder.
"""
from __future__ import annotations

from .base import F32, U8, BlockType, Field, chunked


def _integer(name: str, ggml_id: int, n_bytes: int) -> BlockType:
    dtype = f"<i{n_bytes}"

    def decode_chunk(blocks: U8, out: F32) -> None:
        out[:] = blocks.view(dtype)

    layout = (Field("x", 0, n_bytes, 1, 8 * n_bytes, name, "the number, two's complement"),)
    return BlockType(name, ggml_id, 1, n_bytes, 1, layout, chunked(decode_chunk, 1, n_bytes))


I8_TYPE = _integer("i8", 24, 1)
I16_TYPE = _integer("i16", 25, 2)
I32_TYPE = _integer("i32", 26, 4)
I64_TYPE = _integer("i64", 27, 8)

TYPES = (I8_TYPE, I16_TYPE, I32_TYPE, I64_TYPE)
