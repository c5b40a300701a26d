"""The 12 bytes in which Q4_K and Q5_K keep eight 6-bit scales and eight 6-bit mins.

Bytes 0-3 hold scales 0-3 in their low six bits, bytes 4-7 mins 0-3. The upper two bits of byte ``i`` (0-3)
are bits 4-5 of scale ``4 + i``, those of byte ``4 + i`` bits 4-5 of min ``4 + i``; byte ``8 + i`` holds the low
four bits of scale ``4 + i`` (low nibble) and of min ``4 + i`` (high nibble).
"""
from __future__ import annotations

import numpy as np

from .base import U8

MEANING = "eight 6-bit scales and eight 6-bit mins, packed as the decoding steps show"


def unpack_scales(packed: U8) -> tuple[U8, U8]:
    """uint8 (n_blocks, 12) to scales and mins, uint8 (n_blocks, 8) each, 0..63."""
    first, second, third = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=1)
    mins = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=1)
    return scales, mins


def pack_scales(scales: U8, mins: U8) -> U8:
    """The inverse of `unpack_scales`."""
    return np.concatenate(
        [
            scales[:, :4] | scales[:, 4:] >> 4 << 6,
            mins[:, :4] | mins[:, 4:] >> 4 << 6,
            (scales[:, 4:] & 15) | (mins[:, 4:] & 15) << 4,
        ],
        axis=1,
    )
