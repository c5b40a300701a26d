"""XXH64 against hashes made with the xxhash package 4.1.0 (the reference implementation)."""
from __future__ import annotations

import hashlib

import pytest

from ggblock.inspect.xxh64 import Xxh64

GOLDEN = {
    0: "ef46db3751d8e999", 1: "f3956634dfceb1b6", 3: "1bffb0decffd197e", 4: "12b73787fa39e7eb", 7: "a4ba6be33690e37b",
    8: "9f97163cee56aa28", 15: "ae90e184a99b4231", 31: "e380df9acd046fc4", 32: "3bdc861640d346e8",
    33: "807494322cb9464b", 63: "fb0b60a101d61042", 64: "bc2fe8a4891033ee", 100: "96ae292ef7a76808",
    1000: "e702d1ccb3c27d52", 1048575: "84813fb05c510824", 1048609: "1ef05c654298fff8",
}


def data(n_bytes: int) -> bytes:
    digests = (hashlib.sha256(str(i).encode()).digest() for i in range(-(-n_bytes // 32)))
    return b"".join(digests)[:n_bytes]


@pytest.mark.parametrize("n_bytes", list(GOLDEN))
def test_golden(n_bytes: int) -> None:
    whole = Xxh64()
    whole.update(data(n_bytes))
    assert whole.hexdigest() == GOLDEN[n_bytes]


@pytest.mark.parametrize("pieces", [[1] * 100, [31, 33, 36], [64, 36], [5, 60, 35]])
def test_pieces_give_the_same(pieces: list[int]) -> None:
    digest, at = Xxh64(), 0
    for n in pieces:
        digest.update(data(100)[at : at + n])
        at += n
    assert digest.hexdigest() == GOLDEN[100]
