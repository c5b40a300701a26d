"""What the tests of the block families share. Scalar on purpose: nothing here comes from the package."""
from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np

from ggblock import blocks

#: float32 of one number: every operation on its results is rounded to float32 once.
f32 = np.float32

ScalarDecoder = Callable[[bytes], list[np.float32]]


def half(block: bytes, at: int) -> np.float32:
    """The float16 at byte ``at``, as float32."""
    return f32(struct.unpack_from("<e", block, at)[0])


def signed(byte: int) -> int:
    """A byte as a two's complement number."""
    return byte - 256 if byte > 127 else byte


def word(block: bytes, at: int, n_bytes: int) -> int:
    """An unsigned little-endian number."""
    return int.from_bytes(block[at : at + n_bytes], "little")


def random_blocks(name: str, n_blocks: int, seed: int) -> np.ndarray:
    """uint8 (n_blocks, block_bytes), any bytes."""
    block = blocks.by_name(name)
    return np.random.default_rng(seed).integers(0, 256, (n_blocks, block.block_bytes), dtype=np.uint8)


def edge_blocks(name: str) -> np.ndarray:
    """Blocks of one repeated byte: zeros, ones, lone bits, the largest and smallest signed bytes."""
    n_bytes = blocks.by_name(name).block_bytes
    return np.repeat(np.array([0, 1, 2, 4, 8, 16, 32, 64, 127, 128, 254, 255], np.uint8)[:, None], n_bytes, axis=1)


def assert_same_floats(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal to the bit, signs of zeros included; any NaN equals any NaN."""
    actual, expected = np.asarray(actual, np.float32).ravel(), np.asarray(expected, np.float32).ravel()
    assert actual.shape == expected.shape
    wrong = (actual.view(np.uint32) != expected.view(np.uint32)) & ~(np.isnan(actual) & np.isnan(expected))
    where = np.flatnonzero(wrong)
    assert not len(where), f"{len(where)} of {len(wrong)} differ, first at {where[0]}: " + \
        f"{actual[where[0]]!r} instead of {expected[where[0]]!r}"


def check_twin(name: str, decode_block: ScalarDecoder, n_blocks: int = 24) -> None:
    """The package's decoder gives what the scalar ``decode_block`` gives, for random bytes and for edge cases."""
    data = np.concatenate([random_blocks(name, n_blocks, seed=len(name)), edge_blocks(name)])
    with np.errstate(all="ignore"):
        expected = [decode_block(bytes(block)) for block in data]
    assert_same_floats(blocks.by_name(name).decode(data), np.array(expected, np.float32))


def nibbles(block: bytes, at: int, n_bytes: int) -> Iterator[int]:
    """The low halves of some bytes, then their high halves."""
    for byte in block[at : at + n_bytes]:
        yield byte % 16
    for byte in block[at : at + n_bytes]:
        yield byte // 16
