"""Statistics of a tensor, held against plain NumPy over the decoded weights."""
from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

import ggblock
from ggblock import blocks, errors
from ggblock.format import GgufWriter, TensorSpec
from ggblock.inspect import maps, reference, report
from tests.inspect import crafted


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return crafted.write(tmp_path / "m.gguf")


@pytest.mark.parametrize("name", [name for name, _, _ in crafted.TENSORS])
def test_sums_and_histograms_are_those_of_the_weights(name: str, path: Path) -> None:
    with ggblock.open(path) as file:
        tensor = file.tensors[name]
        got, all_ = report.tensor_report(tensor), tensor.dequantize().astype(np.float64)
    m = got.maps
    assert m.mean == pytest.approx(all_.mean()) and m.rms == pytest.approx(np.sqrt((all_**2).mean()))
    assert (m.low, m.high) == (all_.min(), all_.max())
    assert m.kurtosis == pytest.approx((all_**4).mean() / (all_**2).mean() ** 2)
    rows = all_.reshape(-1, all_.shape[-1])
    np.testing.assert_allclose(m.row_norms, np.linalg.norm(rows, axis=1), rtol=1e-5)
    assert m.histogram is not None and m.histogram.sum() == all_.size
    top = got.outliers[0]
    group = maps.group_size(tensor)
    peaks = np.abs(rows).reshape(len(rows), -1, group).max(axis=2)
    assert (top.row, top.block) == np.unravel_index(peaks.argmax(), peaks.shape)
    assert top.value == pytest.approx(peaks.max() / m.rms)


@pytest.mark.parametrize("values", [[3e9] * 8, [1e30] * 8, [-3e38] * 8, [2e9, 2e9 + 256] * 4, [0.0, 1e-45] * 4])
def test_a_histogram_of_a_narrow_range(values: list[float], tmp_path: Path) -> None:
    with GgufWriter(tmp_path / "m.gguf", {}, [TensorSpec("w", "f32", (8,))]) as writer:
        writer.write("w", np.array(values, np.float32))
    with ggblock.open(tmp_path / "m.gguf") as file:
        counts = report.tensor_report(file.tensors["w"]).maps.histogram
    assert counts is not None and counts.sum() == 8
    assert np.count_nonzero(counts) == len(set(values))


def test_codes_and_scales_of_q4_k(path: Path) -> None:
    with ggblock.open(path) as file:
        tensor = file.tensors["blk.0.attn_q.weight"]
        parts = tensor.type.unpack(np.array(tensor.raw).reshape(-1, 144))  # type: ignore[misc]
        m = report.tensor_report(tensor).maps
    values, counts = np.unique(parts.codes, return_counts=True)
    assert m.codes == {float(v): int(n) for v, n in zip(values, counts, strict=True)}
    assert m.scales is not None and m.mins is not None and parts.mins is not None
    assert (m.scales.low, m.scales.high, m.scales.n) == (parts.scales.min(), parts.scales.max(), parts.scales.size)
    assert m.mins.n_zero == int((parts.mins == 0).sum())
    assert m.scale is not None
    np.testing.assert_array_equal(m.scale.ravel(), np.abs(parts.scales).ravel())


@pytest.mark.parametrize("name", list(maps.LEVELS))
def test_no_type_expresses_more_levels_than_stated(name: str) -> None:
    block, (possible, low, high) = blocks.by_name(name), maps.LEVELS[name]
    data = np.random.default_rng(2).integers(0, 256, (400, block.block_bytes), dtype=np.uint8)
    assert block.unpack is not None
    with np.errstate(all="ignore"):
        codes = np.unique(block.unpack(data).codes.astype(np.float64))
    codes = codes[codes != -128]  # of the 8-bit types: a byte that no encoder writes
    assert (codes.min(), codes.max()) == (low, high)
    assert len(codes) == (255 if possible == 256 else possible)


def test_every_type_with_scales_has_levels() -> None:
    assert set(maps.LEVELS) == {name for name, block in blocks.REGISTRY.items() if block.unpack is not None}


def crafted_q8(path: Path, rows: np.ndarray) -> Path:
    with GgufWriter(path, {"general.architecture": "x"}, [TensorSpec("w", "q8_0", rows.shape)]) as writer:
        writer.write("w", rows)
    return path


def test_zero_saturated_and_non_finite_blocks(tmp_path: Path) -> None:
    rows = crafted.weights("w", (4, 64))
    rows[0, :32] = 0
    rows[1, 32:] = 0.5  # every code at the top
    path = crafted_q8(tmp_path / "m.gguf", rows)
    with ggblock.open(path) as file:
        start = file.tensors["w"].offset_bytes
        m = report.tensor_report(file.tensors["w"]).maps
    assert (m.n_zero, m.n_saturated, m.n_non_finite) == (1, 1, 0)
    raw = bytearray(path.read_bytes())
    raw[start + 68 * 3 : start + 68 * 3 + 2] = b"\x00\x7c"  # an infinite scale in the last row
    path.write_bytes(raw)
    with ggblock.open(path) as file:
        got = report.tensor_report(file.tensors["w"])
    assert got.maps.n_non_finite == 32 and got.maps.scales is not None and got.maps.scales.n_non_finite == 1
    assert "32 NOT FINITE" in "\n".join(report.lines(got))
    json.dumps(report.report_document(got), allow_nan=False)


def safetensors(path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> Path:
    header, data = {}, b""
    for name, (dtype, array) in tensors.items():
        header[name] = {
            "dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + array.nbytes]
        }
        data += array.tobytes()
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("dtype", ["F32", "F64", "F16", "BF16"])
def test_errors_against_a_safetensors_file(dtype: str, path: Path, tmp_path: Path) -> None:
    name = "blk.0.attn_q.weight"
    original = crafted.weights(name, (256, 256))
    if dtype == "BF16":
        stored = (original.view(np.uint32) >> 16).astype("<u2")
        exact = (stored.astype(np.uint32) << 16).view(np.float32)
    else:
        stored = original.astype({"F32": "<f4", "F64": "<f8", "F16": "<f2"}[dtype])
        exact = stored.astype(np.float32)
    other = safetensors(tmp_path / "r.safetensors", {"x": ("I64", np.arange(3)), name: (dtype, stored)})
    with ggblock.open(path) as file, reference.open_any(other) as source:
        tensor = file.tensors[name]
        got = report.tensor_report(tensor, reference.find(source, name, tensor.shape))
        difference = tensor.dequantize().astype(np.float64) - exact
    nmse = (difference**2).sum() / (exact.astype(np.float64) ** 2).sum()
    assert got.maps.nmse == pytest.approx(nmse, rel=1e-5) and 1e-4 < nmse < 1e-2
    assert got.snr_db == pytest.approx(-10 * np.log10(nmse), rel=1e-5)
    assert got.maps.largest_error == pytest.approx(np.abs(difference).max())
    by_block = (difference**2).mean(axis=1)  # rows of one block
    assert got.worst_blocks[0].row == by_block.argmax() == got.worst_rows[0].row


def test_a_file_against_itself_has_no_error(path: Path) -> None:
    with ggblock.open(path) as file, reference.open_any(path) as other:
        tensor = file.tensors["blk.0.ffn_down.weight"]
        got = report.tensor_report(tensor, reference.find(other, tensor.name, tensor.shape))
    assert got.snr_db == float("inf") and got.worst_blocks == () and got.worst_rows == ()


def entry(shape: str) -> bytes:
    """A header with one tensor of four bytes."""
    text = f'{{"a":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,4]}}}}'.ljust(60)
    return struct.pack("<Q", 60) + text.encode()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"\xff" * 8, "too long"), (b"", "is empty"), (b"ab", "no header"),
        (struct.pack("<Q", 2) + b"[]", "no object"), (struct.pack("<Q", 4) + b"{{{{", "not JSON"),
        (struct.pack("<Q", 10) + b'{"a": [1]}', "not usable"), (entry("9") + b"abcd", "disagree"),
        (entry("1"), "not usable"), (entry("-1") + b"abcd", "not usable"),
    ],
)
def test_broken_references_are_named(header: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.safetensors").write_bytes(header)
    with pytest.raises(errors.FormatError, match=message):
        reference.open_any(tmp_path / "r.safetensors")


def test_references_that_do_not_fit(path: Path, tmp_path: Path) -> None:
    other = safetensors(tmp_path / "r.safetensors", {"i": ("I64", np.zeros((2, 3), "<i8"))})
    with reference.open_any(other) as source:
        with pytest.raises(errors.MissingTensor):
            reference.find(source, "w", (2, 3))
        with pytest.raises(errors.ShapeMismatch):
            reference.find(source, "i", (3, 2))
        with pytest.raises(errors.FormatError, match="floating-point"):
            reference.find(source, "i", (2, 3))
