"""Looking into ragged rows: the tail of a row is a block like any other, with its own layout."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import ggblock
from ggblock import blocks
from ggblock.blocks import tails
from ggblock.cli.main import main
from ggblock.format import GgufWriter, TensorSpec
from ggblock.inspect import blocktext, formulas, order, overview, page, report
from ggblock.inspect.blockview import block_document, block_view
from ggblock.inspect.diff import diff
from ggblock.inspect.verify import verify
from tests.blocks.common import assert_same_floats, random_blocks
from tests.inspect import paper, schemas
from tools import spec_panels

TYPES = list(tails.CUT)


def columns(name: str) -> tuple[int, int]:
    """A tail alone, and two blocks with a tail: both with an odd number of sub-blocks where the type has room."""
    size, step = blocks.by_name(name).block_size, tails.CUT[name][0]
    return (3 * step if 3 * step < size else step), 2 * size + (5 * step if 5 * step < size else step)


def raw_rows(name: str, n_rows: int, n_cols: int) -> np.ndarray:
    row = tails.row(blocks.by_name(name), n_cols, ragged=True)
    assert row.tail is not None
    whole = random_blocks(name, n_rows * row.n_blocks, seed=n_cols).reshape(n_rows, row.n_blocks, -1)
    last = tails.shrink(row.tail, row.block, np.ascontiguousarray(whole[:, -1]))
    return np.concatenate([whole[:, :-1].reshape(n_rows, -1), last], axis=1)


def write(path: Path, name: str, raw: np.ndarray, n_cols: int) -> Path:
    specs = [TensorSpec("first", "f32", (5,)), TensorSpec("w", name, (len(raw), n_cols), True)]
    with GgufWriter(path, {"general.architecture": "llama"}, specs, checksums=True) as writer:
        writer.write("first", np.zeros(5, np.float32))
        writer.write("w", raw.reshape(-1))
    return path


@pytest.mark.parametrize("name", TYPES)
def test_every_block_is_found_where_the_file_has_it(name: str, tmp_path: Path) -> None:
    n_cols = columns(name)[1]
    raw = raw_rows(name, 19, n_cols)
    path = write(tmp_path / "m.ggb", name, raw, n_cols)
    data, seen = path.read_bytes(), set[int]()
    with ggblock.open(path) as file:
        tensor = file.tensors["w"]
        size, tail = tensor.type.block_bytes, tensor.row.tail
        assert tail is not None and tensor.row.n_blocks == 3
        for row in range(19):
            for column, end in ((0, size), (1, 2 * size), (2, raw.shape[1])):
                place = order.place(tensor, row, column)
                np.testing.assert_array_equal(place.data, raw[row, column * size : end])
                assert bytes(data[at] for at in place.offsets) == place.data.tobytes()
                assert not seen & set(place.offsets), "two blocks claim a byte"
                seen |= set(place.offsets)
                assert (place.row, place.block, place.blocks_per_row) == (row, column, 3)
                assert place.first_column == column * tensor.type.block_size
                assert place.n_weights == (tail if column == 2 else tensor.type).block_size
        assert order.place(tensor, None, 3 * 7 + 2).data.tobytes() == order.place(tensor, 7, 2).data.tobytes()
    assert len(seen) == raw.size


@pytest.mark.parametrize("name", TYPES)
def test_the_printed_tail_gives_the_weights_of_the_row(name: str, tmp_path: Path) -> None:
    for n_cols in columns(name):
        raw = raw_rows(name, 17, n_cols)
        path = write(tmp_path / f"{n_cols}.ggb", name, raw, n_cols)
        with ggblock.open(path) as file:
            tensor = file.tensors["w"]
            weights, block = tensor.dequantize(), tensor.row.n_blocks - 1
            for row in (0, 16):
                view = block_view(tensor, block, row)
                expected = weights[row, block * tensor.type.block_size :]
                text = "\n".join(blocktext.lines(view, weight=len(expected) - 1))
                assert "the tail," in text
                printed = paper.read_text(text)
                paper.check_places(printed)
                assert_same_floats(paper.check_claims(printed), expected)
                document = json.loads(json.dumps(block_document(view), allow_nan=False))
                schemas.check(document, "block")
                assert_same_floats(paper.check_claims(paper.read_json(document)), expected)
                assert document["block_size"] == document["n_weights"] == len(expected)
                assert document["first_column"] + len(expected) == n_cols


@pytest.mark.parametrize("name", TYPES)
def test_the_steps_are_the_specified_ones(name: str) -> None:
    table = spec_panels.load()["types"][name]["tail"]
    short = tails.tail(blocks.by_name(name), table["step"])
    if "decode" in table:
        assert list(formulas.TAIL_STEPS[name]) == table["decode"]
        assert formulas.steps(short) == (f"m = {table['step']}", *table["decode"])
    else:
        assert name not in formulas.TAIL_STEPS and formulas.steps(short) == formulas.STEPS[name]


@pytest.mark.parametrize("name", ["q4_k", "q6_k", "tq1_0", "q2_k"])
def test_the_report_counts_every_weight_once(name: str, tmp_path: Path) -> None:
    """Norms, errors and their worst places against NumPy over the decoded rows."""
    n_cols = columns(name)[1]
    raw = ggblock.quantize(np.random.default_rng(5).standard_normal((20, n_cols)), name, ragged=True)
    with ggblock.open(write(tmp_path / "m.ggb", name, raw, n_cols)) as file:
        tensor = file.tensors["w"]
        weights = tensor.dequantize().astype(np.float64)
        other = weights.astype(np.float32)
        other[11, -3:] += np.float32(np.abs(weights).max())

        class Other:
            def rows(self, i0: int, i1: int) -> np.ndarray:
                return other[i0:i1]

        made = report.tensor_report(tensor, Other())
        document = report.report_document(made)
        schemas.check(json.loads(json.dumps(document)), "tensor")
        np.testing.assert_allclose(made.maps.row_norms, np.linalg.norm(weights, axis=1), rtol=1e-6)
        nmse = np.square(weights - other).sum() / np.square(other.astype(np.float64)).sum()
        np.testing.assert_allclose(made.maps.nmse, nmse, rtol=1e-5)
        assert (made.worst_blocks[0].row, made.worst_blocks[0].block) == (11, 2) and made.worst_rows[0].row == 11
        assert sum(each["count"] for each in document["codes"]) == weights.size
        assert document["scales"]["n"] == 20 * (2 * tensor.type.n_sub_blocks + tensor.row.tail.n_sub_blocks)
        assert document["tail"]["block_size"] == n_cols % tensor.type.block_size
        assert "is a tail of" in "\n".join(report.lines(made))
        codes = {note.code for note in overview.overview(file).notes}
        assert "ragged" in codes
        html = page.build(file, tensor, block=2, row=17).decode()
        assert f'"block":2,"blocks_per_row":3,"first_column":{2 * tensor.type.block_size}' in html


@pytest.mark.parametrize("name", ["q4_k", "tq1_0", "tq2_0", "nvfp4"])
def test_what_is_wrong_in_a_tail_is_named(name: str, tmp_path: Path) -> None:
    """An infinite scale, or a byte that no encoder writes, in the tail of row 18."""
    block, n_cols = blocks.by_name(name), columns(name)[1]
    x = np.random.default_rng(0).standard_normal((19, n_cols)).astype(np.float32)
    if name == "nvfp4":
        raw = raw_rows(name, 19, n_cols) & 0x77
    else:
        raw = ggblock.quantize(x, name, ragged=True)
    assert verify(write(tmp_path / "a.ggb", name, raw, n_cols)).faults == ()
    short = tails.row(block, n_cols, True).tail
    assert short is not None
    start = 2 * block.block_bytes
    bad = raw.copy()
    if name == "q4_k":
        bad[18, start : start + 2] = (0, 0x7C)
    else:
        field = short.field("d" if name == "nvfp4" else "qs")
        no_trits = next(byte for byte in range(256) if byte not in {-(-n * 256 // 243) for n in range(243)})
        bad[18, start + field.end - 1] = no_trits if name == "tq1_0" else 255
    faults = [f for f in verify(write(tmp_path / "b.ggb", name, bad, n_cols)).faults if f.where == "w"]
    assert len(faults) == 1 and "row 18 block 2" in faults[0].message
    with ggblock.open(tmp_path / "a.ggb") as a, ggblock.open(tmp_path / "b.ggb") as b:
        (change,) = [each for each in diff(a, b).tensors if each.change == "data"]
        assert (change.n_blocks, change.first_block) == (1, 18 * 3 + 2)


def test_the_command(tmp_path: Path) -> None:
    path = write(tmp_path / "m.ggb", "q4_k", raw_rows("q4_k", 19, 640), 640)

    def run(*arguments: object) -> str:
        done = CliRunner().invoke(main, ["dump", str(path), *map(str, arguments)])
        assert done.exit_code == 0, done.output
        return done.output

    assert "ragged rows, of 640 columns" in run()
    assert "tail of 128 weights in 80 bytes" in run("--tensor", "w")
    text = run("--tensor", "w", "--row", 18, "--block", 2, "--weight", 127)
    assert "columns 512 to 639" in text and "weight 127" in text
    assert "80 bytes" in run("--tensor", "w", "--row", 18, "--block", 2, "--hex")
    refused = CliRunner().invoke(main, ["dump", str(path), "--tensor", "w", "--block", "2", "--weight", "128"])
    assert refused.exit_code == 1 and "0 to 127" in refused.output
