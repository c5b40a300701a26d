"""NVFP4: 64 weights as 4-bit floats (E2M1), four sub-blocks of 16 with an unsigned 8-bit float scale (E4M3) each.

``weight = (scale / 2) * value``, where ``value`` is twice the E2M1 number, rounded to float32 once. Bit 7 of a scale
is ignored and 0x7F counts as zero. A tensor's further float32 scale, where a model has one, is a tensor of its own.
"""
from __future__ import annotations

from .base import U8, Field, Unpacked, block_type, take, take_uint
from .codebooks import E2M1_DOUBLED, UE4M3_HALVED

D = Field("d", 0, 4, 4, 8, "ue4m3", "scale of each sub-block: 4 exponent bits, bias 7, 3 mantissa bits")
QS = Field("qs", 4, 32, 64, 4, "uint", "E2M1 code of each weight: sign, 2 exponent bits, 1 mantissa bit", plane=8)


def unpack(blocks: U8) -> Unpacked:
    return Unpacked(E2M1_DOUBLED[take_uint(blocks, QS)], UE4M3_HALVED[take(blocks, D)])


TYPE = block_type("nvfp4", 40, (D, QS), unpack, block_size=64, sub_block_size=16)
