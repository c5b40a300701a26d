"""`quantize` and `dequantize`: shapes, kinds of buffers, refusals, memory."""
from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from ggblock import blocks, errors

from .common import assert_same_floats, random_blocks


def test_shapes() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 512)).astype(np.float32)
    data = blocks.quantize(x, "q4_k")
    assert data.shape == (6, 288) and data.dtype == np.uint8
    decoded = blocks.dequantize(data, "q4_k", x.shape)
    assert decoded.shape == x.shape and decoded.dtype == np.float32
    np.testing.assert_array_equal(blocks.dequantize(data.tobytes(), "Q4_K", (6, 512)).reshape(x.shape), decoded)
    np.testing.assert_array_equal(blocks.dequantize(memoryview(data[0].tobytes()), "q4_k", 512), decoded[0, 0])
    assert blocks.quantize(x[0, 0], blocks.by_name("q4_k")).shape == (1, 288)
    assert blocks.dequantize(b"", "q4_k", (0, 256)).shape == (0, 256)
    assert blocks.quantize(np.zeros((0, 256)), "q4_k").shape == (0, 144)


def test_rows_do_not_depend_on_each_other_or_on_the_chunk() -> None:
    x = np.random.default_rng(1).standard_normal((700, 256)).astype(np.float32)
    importance = np.random.default_rng(2).uniform(0.1, 2, 256)
    for name in ("q4_0", "q4_k", "q6_k", "iq4_nl"):
        some = [0, 255, 256, 699]
        whole = blocks.quantize(x, name, importance)
        np.testing.assert_array_equal(whole[some], blocks.quantize(x[some], name, importance))


@pytest.mark.parametrize("name", list(blocks.REGISTRY))
def test_chunks_do_not_show(name: str) -> None:
    block = blocks.by_name(name)
    n_blocks = 70000 // block.block_size + 3
    data = random_blocks(name, n_blocks, seed=4)
    parts = [block.decode(data[i : i + n_blocks // 3]) for i in range(0, n_blocks, n_blocks // 3)]
    assert_same_floats(block.decode(data), np.concatenate(parts))


@pytest.mark.parametrize("name", list(blocks.REGISTRY))
def test_views_that_are_not_contiguous_or_read_only(name: str) -> None:
    block, data = blocks.by_name(name), random_blocks(name, 8, seed=5)
    padded = np.zeros((16, block.block_bytes + 3), np.uint8)
    padded[::2, 1:-2] = data
    padded.setflags(write=False)
    assert_same_floats(block.decode(padded[::2, 1:-2]), block.decode(data))
    assert_same_floats(
        blocks.dequantize(padded[::2, 1:-2], name, (8, block.block_size)), block.decode(data)
    )


def test_other_kinds_of_numbers_are_converted() -> None:
    x = np.arange(-128, 128)
    np.testing.assert_array_equal(blocks.quantize(x, "q8_0"), blocks.quantize(x.astype(np.float32), "q8_0"))
    np.testing.assert_array_equal(
        blocks.quantize(np.asfortranarray(np.ones((4, 64)) * [[1], [2], [3], [4]]), "q8_0")[:, :2].view("<f2").ravel(),
        (np.arange(1, 5, dtype=np.float32) / 127).astype(np.float16),
    )


@pytest.mark.parametrize("shape", [(), (2, 255), (255,), (-256,), (2, 128)])
def test_dequantize_refuses_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(errors.BadShape):
        blocks.dequantize(bytes(144), "q4_k", shape)


def test_dequantize_refuses_other_lengths_and_kinds() -> None:
    with pytest.raises(errors.BadShape, match=r"144.*145"):
        blocks.dequantize(bytes(145), "q4_k", (1, 256))
    with pytest.raises(errors.BadShape, match="uint8"):
        blocks.dequantize(np.zeros(144, np.int8), "q4_k", (1, 256))
    with pytest.raises(errors.UnknownType, match="q4_x"):
        blocks.dequantize(bytes(144), "q4_x", (1, 256))
    with pytest.raises(errors.RemovedType, match="Q4_2"):
        blocks.dequantize(bytes(144), "q4_2", (1, 256))


@pytest.mark.parametrize("shape", [(), (2, 255), (0,), (2, 0)])
def test_quantize_refuses_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(errors.BadShape):
        blocks.quantize(np.zeros(shape), "q4_k")


def test_quantize_refuses_types_without_an_encoder() -> None:
    for name, block in blocks.REGISTRY.items():
        if block.encode is None:
            with pytest.raises(errors.NoEncoder, match=block.label):
                blocks.quantize(np.zeros((1, 256)), name)


def test_quantize_refuses_bad_importance() -> None:
    for wrong in (np.ones(255), np.ones((1, 256)), 1.0):
        with pytest.raises(errors.BadShape, match="importance"):
            blocks.quantize(np.zeros((1, 256)), "q4_k", wrong)
    for wrong in (np.full(256, -1.0), np.full(256, np.nan), np.full(256, np.inf)):
        with pytest.raises(errors.SettingError, match="importance"):
            blocks.quantize(np.zeros((1, 256)), "q4_k", wrong)


@pytest.mark.parametrize("name", [name for name, block in blocks.REGISTRY.items() if block.block_size > 1])
def test_decoding_needs_little_more_than_its_result(name: str) -> None:
    n_weights = 1 << 22
    block = blocks.by_name(name)
    data = np.zeros((n_weights // block.block_size, block.block_bytes), np.uint8)
    tracemalloc.start()
    block.decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * n_weights + 4_000_000  # the result, and a few megabytes whatever its size
