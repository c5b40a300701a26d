"""XXH3 (64 bits) against hashes made with the xxhash package 4.1.0 (the reference implementation)."""
from __future__ import annotations

import pytest

from ggblock.inspect.xxh3 import Xxh3
from tests.inspect.test_xxh64 import data

GOLDEN = {
    0: "2d06800538d394c2", 1: "3f8008e68ae06a13", 2: "204cbebfdf0827c6", 3: "1e13e2e6f20a95b0", 4: "e84f204286aa9095",
    7: "f2a719d25f082f70", 8: "fbc1a1a539b82739", 9: "29c548ddbc599dd4", 15: "a9b5725a0b3e1f97",
    16: "f2230d2018ae6982", 17: "43fcd8e964ee5228", 31: "a44e1909f97d829b", 32: "e336e44290b71a2c",
    33: "0f592f16a63d776a", 64: "b88d2e7a13e18872", 100: "d3d12c26c072dd2e", 127: "dcdaed02b5014a45",
    128: "6ae94990a832439e", 129: "5f2dcc93929aaa6e", 144: "58411007ad42c48d", 160: "e972601c32ee9dcb",
    239: "2df822947632178d", 240: "393b23e864fddf44", 241: "586ba85119d756f0", 255: "93ea0b3496e83881",
    256: "652bed881945607c", 511: "ca93f1ef1c912d82", 512: "1c14c557ea83c9fc", 1023: "fe158dea6ba6d340",
    1024: "5cbe5e348ae22b9f", 1025: "cc15cb371870a804", 1087: "b0db158a1ed5de1c", 1088: "be66834bafcf5e0b",
    1089: "c5bbf806b012853b", 2048: "02fdc2aeff606b99", 2049: "e4c7e6c84112caf9", 1048577: "e15f619af858c024",
    3000001: "2f3661bd65153a59",
}


@pytest.mark.parametrize("n_bytes", list(GOLDEN))
def test_golden(n_bytes: int) -> None:
    whole = Xxh3()
    whole.update(data(n_bytes))
    assert whole.hexdigest() == GOLDEN[n_bytes]


@pytest.mark.parametrize("pieces", [[1] * 2049, [31, 33, 1985], [1024, 1024, 1], [1023, 1, 1025], [0, 2048, 0, 1]])
def test_pieces_give_the_same(pieces: list[int]) -> None:
    digest, at = Xxh3(), 0
    for n in pieces:
        digest.update(data(2049)[at : at + n])
        at += n
    assert digest.hexdigest() == GOLDEN[2049]
