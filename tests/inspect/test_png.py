"""PNG files, decoded here by the format's own rules."""
from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from ggblock import errors
from ggblock.inspect import files, png


def decode(data: bytes) -> np.ndarray:
    """uint8 (height, width, 3) of an 8-bit RGB PNG without filters; checks every CRC."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, []
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(kind + body),)
        chunks.append((kind, body))
        at += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert rest == [8, 2, 0, 0, 0]
    raw = np.frombuffer(zlib.decompress(chunks[1][1]), np.uint8).reshape(height, 1 + 3 * width)
    assert not raw[:, 0].any()
    return raw[:, 1:].reshape(height, width, 3)


def test_pixels_survive() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(png.encode(pixels)), pixels)


def test_a_heat_map_is_brighter_where_there_is_more() -> None:
    values = np.arange(300, dtype=np.float32).reshape(300, 1) @ np.ones((1, 300), np.float32)
    grey = decode(png.heat_map(values)).astype(int).sum(axis=2)
    assert grey.shape == (300, 300) and (np.diff(grey[:, 0]) >= 0).all() and grey[-1, 0] > grey[0, 0] + 400


def test_sizes() -> None:
    ones = np.ones((3, 4), np.float32)
    assert decode(png.heat_map(ones)).shape == (255, 256, 3), "small ones are enlarged"
    assert decode(png.heat_map(np.ones((5000, 3000), np.float32))).shape == (1024, 1024, 3)


@pytest.mark.parametrize("shape", [(10, 7), (64, 64), (65, 33), (1000, 3)])
def test_shrinking_keeps_the_mean_of_each_cell(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(1).random(shape).astype(np.float32)
    small = png.shrink(values, 8, 8)
    rows, columns = (np.arange(8) * n // 8 if n > 8 else np.arange(n) for n in shape)
    for i, a in enumerate(rows):
        for j, b in enumerate(columns):
            low = rows[i + 1] if i + 1 < len(rows) else shape[0]
            right = columns[j + 1] if j + 1 < len(columns) else shape[1]
            assert small[i, j] == pytest.approx(values[a:low, b:right].mean(axis=0).mean(), rel=1e-5)


def test_what_is_not_finite_is_brightest() -> None:
    levels, low, high = png.levels(np.array([[0, 1, np.nan, np.inf]], np.float32))
    assert levels.tolist()[0][2:] == [255, 255] and np.isfinite([low, high]).all()
    assert png.levels(np.full((2, 2), np.nan, np.float32))[1:] == (0, 0)


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    files.write_whole(str(target), b"abc")
    assert target.read_bytes() == b"abc" and list(tmp_path.iterdir()) == [target]
    with pytest.raises(errors.CannotWrite):
        files.write_whole(str(tmp_path / "none" / "out"), b"abc")
    with pytest.raises(errors.CannotWrite, match="directory"):
        files.write_whole(str(tmp_path), b"abc")
    with pytest.raises(errors.WouldOverwriteInput):
        files.write_whole(str(target), b"abc", [str(target)])
