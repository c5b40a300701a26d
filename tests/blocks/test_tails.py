"""Tails, the last blocks of ragged rows: against whole blocks, and against readers written by hand from the text."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import ggblock
from ggblock import blocks, errors
from ggblock.blocks import tails

TAILS = [
    (name, m) for name, (step, _) in tails.CUT.items() for m in range(step, blocks.by_name(name).block_size, step)
]


def random_blocks(name: str, n: int, seed: int = 0) -> np.ndarray:
    """uint8 (n, block_bytes), any codes, finite scales."""
    block = blocks.by_name(name)
    raw = np.random.default_rng(seed).integers(0, 256, (n, block.block_bytes), dtype=np.uint8)
    for field in block.layout:
        if field.kind == "f16":
            raw[:, field.offset + 1 : field.end : 2] &= 0xBB  # below the exponent of infinity
    return raw


@pytest.mark.parametrize(("name", "m"), TAILS)
def test_a_tail_is_the_beginning_of_a_whole_block(name: str, m: int) -> None:
    block = blocks.by_name(name)
    short = tails.tail(block, m)
    whole = random_blocks(name, 9)
    cut = tails.shrink(short, block, whole)
    assert cut.shape == (9, short.block_bytes) and short.block_bytes < block.block_bytes
    np.testing.assert_array_equal(short.decode(cut), block.decode(whole)[:, :m])
    again = tails.expand(short, block, cut)
    np.testing.assert_array_equal(block.decode(again)[:, :m], block.decode(whole)[:, :m])
    np.testing.assert_array_equal(tails.shrink(short, block, again), cut)
    assert tails.tail_of_bytes(block, short.block_bytes) is short and short.is_tail


def f16(raw: np.ndarray, at: int) -> np.float32:
    return np.float32(raw[at : at + 2].copy().view("<f2")[0])


def naive_q4_k(raw: np.ndarray, m: int) -> list[np.float32]:
    """From the text of spec/panels.md and spec/blocks/q4_k.md, a weight at a time."""
    out, p = [], raw[4:16].astype(int)
    for j in range(m):
        s = j // 32
        scale = p[s] & 63 if s < 4 else p[s + 4] & 15 | p[s - 4] >> 6 << 4
        low = p[s + 4] & 63 if s < 4 else p[s + 4] >> 4 | p[s] >> 6 << 4
        code = int(raw[16 + j % (m // 2)]) >> 4 * (j // (m // 2)) & 15
        out.append(f16(raw, 0) * np.float32(scale) * np.float32(code) - f16(raw, 2) * np.float32(low))
    return out


def naive_q2_k(raw: np.ndarray, m: int) -> list[np.float32]:
    n, out = m // 16, []
    for j in range(m):
        both, code = int(raw[j // 16]), int(raw[n + j % (m // 4)]) >> 2 * (j // (m // 4)) & 3
        at = n + m // 4
        out.append(f16(raw, at) * np.float32(both & 15) * np.float32(code) - f16(raw, at + 2) * np.float32(both >> 4))
    return out


def naive_q3_k(raw: np.ndarray, m: int) -> list[np.float32]:
    n_mask, out = (m // 8 + 3) // 4 * 4, []
    at = n_mask + m // 4
    for j in range(m):
        s = j // 16
        low = int(raw[at + s % 8]) >> 4 * (s // 8) & 15
        high = int(raw[at + 8 + s % 4]) >> 2 * (s // 4) & 3
        code = int(raw[n_mask + j % (m // 4)]) >> 2 * (j // (m // 4)) & 3
        code |= (int(raw[j % n_mask]) >> j // n_mask & 1) << 2
        out.append(f16(raw, at + 12) * np.float32((low | high << 4) - 32) * np.float32(code - 4))
    return out


def naive_q6_k(raw: np.ndarray, m: int) -> list[np.float32]:
    out, at = [], m // 2 + m // 4
    for j in range(m):
        code = int(raw[j % (m // 2)]) >> 4 * (j // (m // 2)) & 15
        code |= (int(raw[m // 2 + j % (m // 4)]) >> 2 * (j // (m // 4)) & 3) << 4
        scale = int(raw[at + j // 16]) - (int(raw[at + j // 16]) >> 7 << 8)
        out.append(f16(raw, at + m // 16) * np.float32(scale) * np.float32(code - 32))
    return out


def naive_tq1_0(raw: np.ndarray, m: int) -> list[np.float32]:
    n, out = len(raw) - 2, []
    for j in range(m):
        byte = int(raw[j % n]) * 3 ** (j // n) & 255
        out.append(f16(raw, n) * np.float32((byte * 3 >> 8) - 1))
    return out


@pytest.mark.parametrize("naive", [naive_q2_k, naive_q3_k, naive_q4_k, naive_q6_k, naive_tq1_0])
def test_readers_written_by_hand(naive: Callable[[np.ndarray, int], list[np.float32]]) -> None:
    name = naive.__name__.removeprefix("naive_")
    block = blocks.by_name(name)
    step, _ = tails.CUT[name]
    for m in (step, 3 * step, 128, block.block_size - step):
        short = tails.tail(block, m)
        cut = tails.shrink(short, block, random_blocks(name, 3, seed=m))
        with np.errstate(all="ignore"):
            expected = np.array([naive(row, m) for row in cut], np.float32)
        np.testing.assert_array_equal(short.decode(cut), expected)


def test_the_example_of_the_specification() -> None:
    """Q4_K, 640 columns: 4.6 bits a weight, a tail of 80 bytes with one plane of 64 bytes of codes."""
    row = tails.row(blocks.by_name("q4_k"), 640, ragged=True)
    assert (row.n_whole, row.n_blocks, row.n_bytes, 8 * row.n_bytes / 640) == (2, 3, 368, 4.6)
    assert row.tail is not None and row.type_of(2) is row.tail and row.type_of(1) is row.block
    codes = row.tail.field("qs")
    assert row.tail.block_bytes == 80 and [codes.place(j) for j in (0, 63, 64)] == [(16, 0), (79, 0), (16, 4)]
    odd = tails.tail(blocks.by_name("q4_k"), 96).field("qs")
    assert [odd.place(j) for j in (47, 48, 95)] == [(63, 0), (16, 4), (63, 4)]
    mask = tails.tail(blocks.by_name("q3_k"), 48).field("hmask")
    assert mask.n_bytes == 8 and mask.place(13) == (5, 1)


@pytest.mark.parametrize("name", ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k"])
def test_the_reference_encoder_sees_only_what_the_row_has(name: str) -> None:
    """Weights, a tail alone and after whole blocks, cost no larger error than inside a whole block.

    Within half a percent: this encoder minimizes a weighted sum of its own, not the one measured here.
    """
    rng = np.random.default_rng(3)
    x = rng.standard_normal((64, 512)).astype(np.float32)
    importance = rng.uniform(0.2, 3, 512).astype(np.float32)
    for given in (None, importance):
        whole = blocks.dequantize(blocks.quantize(x, name, given), name, x.shape)
        for n_cols in (48 if name != "q4_k" and name != "q5_k" else 32, 256 + 160):
            weights = None if given is None else given[:n_cols]
            packed = blocks.quantize(x[:, :n_cols], name, weights, ragged=True)
            back = blocks.dequantize(packed, name, (64, n_cols), ragged=True)
            counts = np.ones(n_cols) if weights is None else weights
            first = n_cols // 256 * 256

            def error(y: np.ndarray, first: int = first, n_cols: int = n_cols, counts: np.ndarray = counts) -> float:
                return float((np.square(y[:, first:n_cols] - x[:, first:n_cols]) * counts[first:]).sum())

            assert error(back) <= error(whole) * 1.005
            np.testing.assert_array_equal(back[:, :first], whole[:, :first])


def test_faults() -> None:
    q4_k = blocks.by_name("q4_k")
    for m in (0, 16, 256, 288, -32):
        with pytest.raises(ValueError, match="no tail"):
            tails.tail(q4_k, m)
    with pytest.raises(ValueError, match="no tail"):
        tails.tail(blocks.by_name("q8_0"), 16)
    with pytest.raises(ValueError, match="no tail"):
        tails.tail(tails.tail(q4_k, 64), 32)
    with pytest.raises(ValueError, match="no multiple of 256"):
        tails.row(q4_k, 640)
    with pytest.raises(ValueError, match="has 81 bytes"):
        tails.tail_of_bytes(q4_k, 81)
    with pytest.raises(errors.BadShape, match="Q4_K row is a whole number of sub-blocks"):
        blocks.quantize(np.zeros((1, 48)), "q4_k", ragged=True)
    with pytest.raises(errors.BadShape, match="Q4_K row is a whole number of blocks"):
        ggblock.dequantize(b"", "q4_k", (1, 640))
    with pytest.raises(errors.BadShape, match="wrong number of bytes"):
        ggblock.dequantize(bytes(367), "q4_k", (1, 640), ragged=True)
