"""TQ1_0: 256 ternary weights, five to a byte, one float16 scale. ``weight = d * (digit - 1)``.

A byte holds ``ceil(n * 256 / 243)`` of a five-digit ternary number ``n``; its digits come out from the most
significant one by multiplying with 3 and taking what overflows the byte. Byte ``b``'s digit ``k`` is
``((b * 3**k mod 256) * 3) >> 8``.
"""
from __future__ import annotations

import numpy as np

from .base import U8, Field, Unpacked, block_type, take, take_f16

QS = Field("qs", 0, 48, 240, 0, "trits", "weights 0-159: digit j // 32 of byte j % 32; 160-239: by 16, bytes 32-47")
QH = Field("qh", 48, 4, 16, 0, "trits", "weights 240-255: digit j // 4 of byte j % 4, four digits a byte")
D = Field("d", 52, 2, 1, 16, "f16", "scale")

#: (field, first byte, number of bytes, digits a byte), in weight order.
_RUNS = ((QS, 0, 32, 5), (QS, 32, 16, 5), (QH, 0, 4, 4))


def unpack(blocks: U8) -> Unpacked:
    codes = np.empty((len(blocks), 256), np.int8)
    start = 0
    for field, first, n_bytes, n_digits in _RUNS:
        bytes_ = take(blocks, field)[:, first : first + n_bytes]
        for k in range(n_digits):
            rest = bytes_ * np.uint8(3**k)  # modulo 256
            codes[:, start : start + n_bytes] = (rest.astype(np.uint16) * 3 >> 8).astype(np.int8) - np.int8(1)
            start += n_bytes
    return Unpacked(codes, take_f16(blocks, D))


TYPE = block_type("tq1_0", 34, (QS, QH, D), unpack, block_size=256, sub_block_size=256)
