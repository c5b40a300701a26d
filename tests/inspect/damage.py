"""Flip single bits of a file and see whether `verify` finds and names each of them."""
from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

import ggblock
from ggblock.inspect.verify import Verdict, verify


def random_bits(low: int, high: int, n: int, seed: int) -> list[int]:
    """Positions of ``n`` random bits between two bytes."""
    return [int(i) for i in np.random.default_rng(seed).integers(8 * low, 8 * high, n)]


@lru_cache(maxsize=4)
def regions(path: Path) -> tuple[int, dict[str, tuple[int, int]]]:
    """End of the header with its padding, and the bytes of each tensor."""
    with ggblock.open(path) as file:
        spans = {t.name: (t.offset_bytes, t.offset_bytes + t.n_bytes) for t in file.tensors.values()}
    return min(start for start, _ in spans.values()), spans


def flipped(path: Path, bit: int) -> Verdict:
    """What `verify` says of the file with one bit flipped; the bit is flipped back.

    The one byte is written in place: a file that is truncated and written anew waits for the disk on some file
    systems, which took ten times as long as all the rest.
    """
    with path.open("r+b", buffering=0) as stream:
        def flip() -> None:
            stream.seek(bit // 8)
            (byte,) = stream.read(1)
            stream.seek(bit // 8)
            stream.write(bytes([byte ^ 1 << bit % 8]))

        flip()
        verdict = verify(path)
        flip()
    return verdict


def assert_found_and_named(path: Path, bit: int) -> None:
    """A flipped bit of a tensor is blamed on that tensor with its bytes, one of padding on that byte, one of the header
    on the header."""
    base, spans = regions(path)
    byte = bit // 8
    verdict = flipped(path, bit)
    assert not verdict.is_whole, f"bit {bit} went unnoticed"
    named = [fault for fault in verdict.faults if not fault.warning]
    inside = [name for name, (start, end) in spans.items() if start <= byte < end]
    if inside:
        assert {fault.where for fault in named} == set(inside)
        checksum = next(fault for fault in named if fault.code == "checksum")
        assert (checksum.start, checksum.end) == spans[inside[0]]
    elif byte >= base:
        exact = next(fault for fault in named if fault.code == "padding")
        assert (exact.start, exact.end) == (byte, byte + 1)
    else:
        # A broken length can make the reader stumble only later; all else is known to be in the header.
        assert any(each.code == "structure" or (each.start or 0) < base for each in named if each.where)
