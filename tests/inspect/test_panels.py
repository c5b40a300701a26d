"""Looking into tensors in panels: every block where the file has it, with the values of the rows that went in."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ggblock
from ggblock import blocks, errors
from ggblock.format import GgufWriter, TensorSpec, ggb, panels
from ggblock.inspect import blocktext, order, report
from ggblock.inspect.blockview import block_document, block_view
from tests.blocks.common import assert_same_floats, random_blocks
from tests.inspect import crafted, paper, schemas
from tools import spec_panels

#: Rows that fill no panel, one, and one and a bit.
ROWS = (1, 16, 37)
COLUMNS = 3
SPEC = spec_panels.load()["types"]


def shape_of(name: str, n_rows: int) -> tuple[int, int]:
    """Three blocks a row; 11 columns for plain numbers, so that the last 8 of a panel are not full."""
    size = blocks.by_name(name).block_size
    return n_rows, size * COLUMNS if size > 1 else 11


def pair(folder: Path, name: str, n_rows: int) -> tuple[Path, Path, np.ndarray]:
    """One tensor of random blocks, row after row and in panels, after another tensor that shifts it; its rows."""
    block, shape = blocks.by_name(name), shape_of(name, n_rows)
    raw = random_blocks(name, shape[0] * shape[1] // block.block_size, seed=n_rows).reshape(n_rows, -1)
    for path, interleaved in ((folder / "m.gguf", False), (folder / "m.ggb", True)):
        specs = [TensorSpec("first", "f32", (5,)), TensorSpec("w", name, shape, interleaved)]
        marks: dict[str, object] = {ggb.VERSION: ggb.WRITE_VERSION} if interleaved else {}
        with GgufWriter(path, marks, specs, 64, checksums=True) as writer:
            writer.write("first", np.zeros(5, np.float32))
            writer.write("w", raw.reshape(-1))
    return folder / "m.gguf", folder / "m.ggb", raw


def some_blocks(n_rows: int, per_row: int) -> list[tuple[int, int]]:
    """Corners, both sides of the seam between panels, and the last block of a row."""
    rows = {0, n_rows - 1, *(r for r in (7, 15, 16, 31, 32) if r < n_rows)}
    return [(r, b) for r in sorted(rows) for b in sorted({0, per_row // 2, per_row - 1})]


@pytest.mark.parametrize("name", sorted(panels.UNITS.keys() & blocks.REGISTRY.keys()))
@pytest.mark.parametrize("n_rows", ROWS)
def test_every_block_is_found_where_the_file_has_it(name: str, n_rows: int, tmp_path: Path) -> None:
    plain, interleaved, raw = pair(tmp_path, name, n_rows)
    data, size = interleaved.read_bytes(), blocks.by_name(name).block_bytes
    seen: set[int] = set()
    with ggblock.open(plain) as a, ggblock.open(interleaved) as b:
        tensor, other = a.tensors["w"], b.tensors["w"]
        assert other.in_panels and not tensor.in_panels
        per_row = tensor.n_cols // tensor.type.block_size
        for row in range(n_rows):
            for column in range(per_row):
                place, expected = order.place(other, row, column), raw[row, column * size : (column + 1) * size]
                np.testing.assert_array_equal(place.data, expected)
                assert bytes(data[at] for at in place.offsets) == expected.tobytes()
                low, high = place.span
                assert other.offset_bytes <= low < high <= other.offset_bytes + other.n_bytes
                assert not seen & set(place.offsets), "two blocks claim a byte"
                seen |= set(place.offsets)
                assert [(place.row, place.block, place.blocks_per_row), place.n_weights] == [
                    (row, column, per_row), tensor.type.block_size
                ]
    assert len(seen) == raw.size, "every byte of every block has a place of its own"


@pytest.mark.parametrize("name", sorted(panels.UNITS.keys() & blocks.REGISTRY.keys()))
def test_the_printed_block_gives_the_weights_of_the_rows(name: str, tmp_path: Path) -> None:
    plain, interleaved, _ = pair(tmp_path, name, 19)
    data, size = interleaved.read_bytes(), blocks.by_name(name).block_size
    with ggblock.open(plain) as a, ggblock.open(interleaved) as b:
        tensor, other = a.tensors["w"], b.tensors["w"]
        weights = tensor.dequantize()
        assert_same_floats(other.dequantize(), weights)
        for row, block in some_blocks(19, tensor.n_cols // size)[-4:]:
            view = block_view(other, block, row)
            expected = weights[row, block * size : (block + 1) * size]
            text = "\n".join(blocktext.lines(view))
            assert_same_floats(paper.check_claims(paper.read_text(text)), expected)
            section = text.partition("every byte\n")[2].partition("\n\n")[0].split("\n")[1:]
            listed = [line.split()[1:3] for line in section]
            assert [int(digits, 16) for _, digits in listed] == [data[int(at)] for at, _ in listed]
            assert len(listed) == tensor.type.block_bytes
            document = json.loads(json.dumps(block_document(view), allow_nan=False))
            schemas.check(document, "block")
            assert document["order"] == "panels"
            assert_same_floats(paper.check_claims(paper.read_json(document)), expected)
            assert bytes(data[at] for at in document["offsets"]).hex() == document["bytes"]
            assert_same_floats(np.array([np.float32(v) for v in document["weights"]]), expected)
            same = block_document(block_view(tensor, block, row))
            stored = ("path", "order", "offsets", "runs")
            assert {k: v for k, v in same.items() if k not in stored} == {
                k: v for k, v in document.items() if k not in stored
            }


def specified(name: str) -> list[tuple[int, int, int, int, int | None]]:
    """Runs of ``spec/panels.toml`` in the order of the block's bytes: first byte, bytes, width, place in the panel
    block for row 0, and from one unit to the next (None: there is but one)."""
    out, at = [], 0
    for first, n_bytes, width, *second in SPEC[name]["units"]:
        places = (first, *second)
        step = 16 * width * len(places) if n_bytes > width else None
        out += [(byte, n_bytes, width, at + 16 * width * turn, step) for turn, byte in enumerate(places)]
        at += 16 * n_bytes * len(places)
    return sorted(out)


@pytest.mark.parametrize("name", sorted(panels.UNITS.keys() & blocks.REGISTRY.keys()))
def test_the_runs_say_where_each_byte_is(name: str, tmp_path: Path) -> None:
    _, interleaved, _ = pair(tmp_path, name, 37)
    with ggblock.open(interleaved) as file:
        for row, block in ((0, 0), (15, 1), (36, 2)):
            place = order.place(file.tensors["w"], row, block)
            spelled = [
                run.start + i * run.step + k for run in place.runs for i in range(run.count) for k in range(run.width)
            ]
            assert spelled == list(place.offsets)
            if blocks.by_name(name).block_size > 1:
                n_bytes, per_row = blocks.by_name(name).block_bytes, place.blocks_per_row
                start = file.tensors["w"].offset_bytes + 16 * n_bytes * (row // 16 * per_row + block)
                found = [(run.first, run.count * run.width, run.width, run.start - start - run.width * (row % 16),
                          run.step if run.count > 1 else None) for run in place.runs]
                assert found == specified(name), "the table of the specification"


def test_the_example_of_the_specification(tmp_path: Path) -> None:
    """Q8_0: scales of rows 0 to 15 at bytes 0 to 31, codes 0 to 3 of row 1 at 36 to 39, codes 4 to 7 of row 0 at 96."""
    _, interleaved, _ = pair(tmp_path, "q8_0", 19)
    with ggblock.open(interleaved) as file:
        tensor = file.tensors["w"]
        start = tensor.offset_bytes
        at = {row: [each - start for each in order.place(tensor, row, 0).offsets] for row in (0, 1, 15, 16)}
        assert at[0][:2] == [0, 1] and at[15][:2] == [30, 31]
        assert at[0][2:6] == [32, 33, 34, 35] and at[1][2:6] == [36, 37, 38, 39] and at[15][2:6] == [92, 93, 94, 95]
        assert at[0][6:10] == [96, 97, 98, 99]
        assert at[16] == [each + 3 * 544 for each in at[0]], "the second panel"
        text = "\n".join(blocktext.head(block_view(tensor, 2, 17)))
        assert "panel 1, place 1 of 16 in it" in text and "scattered over" in text
        assert "bytes 2 to 33: 8 units of 4 bytes" in text and "(64 apart)" in text


def test_bytes_that_lie_by_turns_are_shown_as_two_runs(tmp_path: Path) -> None:
    """Q6_K: ql and qh."""
    _, interleaved, _ = pair(tmp_path, "q6_k", 19)
    with ggblock.open(interleaved) as file:
        at = file.tensors["w"].offset_bytes
        text = "\n".join(blocktext.head(block_view(file.tensors["w"], 0, 0)))
    for line in (
        f"bytes 0 to 31: 8 units of 4 bytes, at {at + 288}, {at + 416}, ... {at + 1184} (128 apart)",
        f"bytes 32 to 63: 8 units of 4 bytes, at {at + 1312}, {at + 1376}, ... {at + 1760} (64 apart)",
        f"bytes 128 to 159: 8 units of 4 bytes, at {at + 352}, {at + 480}, ... {at + 1248} (128 apart)",
        f"bytes 208 to 209: 2 bytes at {at}",
    ):
        assert line in text


def test_blocks_count_through_the_rows_and_not_through_the_file(tmp_path: Path) -> None:
    _, interleaved, _ = pair(tmp_path, "q4_0", 19)
    with ggblock.open(interleaved) as file:
        tensor = file.tensors["w"]
        for block in (0, 3 * 16 + 1, 56):
            place = order.place(tensor, None, block)
            assert (place.row, place.block) == divmod(block, 3)
        for row, block in ((None, 57), (19, 0), (18, 3), (None, -1)):
            with pytest.raises(errors.SettingError, match="no such"):
                order.place(tensor, row, block)


def test_types_without_panels_stay_in_rows(tmp_path: Path) -> None:
    marks = {ggb.VERSION: ggb.WRITE_VERSION, "general.alignment": ggb.ALIGNMENT}
    path = crafted.write(tmp_path / "m.ggb", marks, [("w", "f32", (7,))], checksums=True)
    with ggblock.open(path) as file:
        place = order.place(file.tensors["w"], 0, 6)
        assert place.order == "rows" and place.is_contiguous and place.span[1] - place.span[0] == 4
        assert [(run.count, run.width) for run in place.runs] == [(1, 4)]


@pytest.mark.parametrize("name", ["q4_k", "q8_0", "f16", "q3_k"])
def test_the_report_is_that_of_the_rows(name: str, tmp_path: Path) -> None:
    shape = (37, 256 if name != "f16" else 11)
    for path, interleaved in ((tmp_path / "a.gguf", False), (tmp_path / "a.ggb", True)):
        with GgufWriter(path, {}, [TensorSpec("w", name, shape, interleaved)], checksums=True) as writer:
            writer.write("w", crafted.weights("w", shape))
    with ggblock.open(tmp_path / "a.gguf") as a, ggblock.open(tmp_path / "a.ggb") as b:
        plain, other = (report.report_document(report.tensor_report(f.tensors["w"], a.tensors["w"])) for f in (a, b))
    schemas.check(other, "tensor")
    stored = ("path", "offset_bytes", "n_bytes", "bits_per_weight", "order")
    assert {k: v for k, v in plain.items() if k not in stored} == {k: v for k, v in other.items() if k not in stored}
    assert other["error"]["nmse"] == 0 and other["n_bytes"] > plain["n_bytes"]
