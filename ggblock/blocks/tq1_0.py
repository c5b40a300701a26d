"""TQ1_0: 256 ternary weights, five to a byte, one float16 scale. ``weight = d * (digit - 1)``.

A byte holds ``ceil(n * 256 / 243)`` of a five-digit ternary number ``n``; its digits come out from the most
significant one by multiplying with 3 and taking what overflows the byte. Byte ``b``'s digit ``k`` is
``((b * 3**k mod 256) * 3) >> 8``.
"""
from __future__ import annotations

import numpy as np

from .base import U8, BlockType, Field, Unpacked, block_type, take_f16

QS = Field("qs", 0, 48, 240, 0, "trits", "weights 0-159: digit j // 32 of byte j % 32; 160-239: by 16, bytes 32-47")
QH = Field("qh", 48, 4, 16, 0, "trits", "weights 240-255: digit j // 4 of byte j % 4, four digits a byte")
D = Field("d", 52, 2, 1, 16, "f16", "scale")


def _runs(block: BlockType) -> tuple[tuple[int, int, int], ...]:
    """(first byte, number of bytes, digits a byte), in weight order; a tail (`tails`) has one run."""
    return ((0, block.layout[0].n_bytes, 5),) if block.is_tail else ((0, 32, 5), (32, 16, 5), (48, 4, 4))


def digits(blocks: U8, block: BlockType) -> U8:
    """Every digit, 0 to 2, in weight order: uint8 (n_blocks, at least block_size)."""
    found = []
    for first, n_bytes, n_digits in _runs(block):
        bytes_ = blocks[:, first : first + n_bytes]
        for k in range(n_digits):
            rest = bytes_ * np.uint8(3**k)  # modulo 256
            found.append((rest.astype(np.uint16) * 3 >> 8).astype(np.uint8))
    return np.concatenate(found, axis=1)


def put_digits(codes: U8, block: BlockType, out: U8) -> None:
    """The inverse of `digits`: ``codes`` uint8 (n_blocks, block_size) into the bytes of ``out``; missing ones are 0."""
    at = 0
    for first, n_bytes, n_digits in _runs(block):
        number = np.zeros((len(codes), n_bytes), np.uint32)
        for k in range(5):
            digit = codes[:, at : at + n_bytes] if k < n_digits else codes[:, :0]
            number *= 3
            number[:, : digit.shape[1]] += digit
            at += n_bytes if k < n_digits else 0
        out[:, first : first + n_bytes] = (number * 256 + 242) // 243


def unpack(blocks: U8) -> Unpacked:
    return Unpacked(digits(blocks, TYPE).view(np.int8) - np.int8(1), take_f16(blocks, D))


TYPE = block_type("tq1_0", 34, (QS, QH, D), unpack, block_size=256, sub_block_size=256)
