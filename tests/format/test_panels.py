"""The specification of panels and ragged rows: its tables are the code's, and a reader by the tables alone agrees."""
from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ggblock
from ggblock import blocks, errors
from ggblock.blocks import tails
from ggblock.format import GgufWriter, TensorSpec, panels
from tools import spec_blocks, spec_panels

SPEC = spec_panels.load()
BLOCKS = spec_blocks.load()
PAGES = spec_blocks.SPEC.parent
VECTORS: list[dict[str, Any]] = spec_blocks.tomllib.loads((PAGES / "panels_vectors.toml").read_text("utf-8"))["vector"]
RAGGED = [name for name, entry in SPEC["types"].items() if "tail" in entry]


def test_the_tables_are_the_code_s() -> None:
    stored = {name: runs for name, runs in panels.UNITS.items() if name in blocks.REGISTRY}
    assert {name: tuple(map(tuple, entry["units"])) for name, entry in SPEC["types"].items()} == stored
    assert (SPEC["rows"], SPEC["first_id"]) == (panels.ROWS, panels.FIRST_ID)
    assert {name: SPEC["types"][name]["tail"]["step"] for name in RAGGED} == {k: v[0] for k, v in tails.CUT.items()}
    sizes = {name: 8 if name in panels.FLOATS else blocks.by_name(name).block_size for name in stored}
    assert {name: entry["columns"] for name, entry in SPEC["types"].items()} == sizes


@pytest.mark.parametrize("name", RAGGED)
def test_the_layout_of_every_tail_is_the_specified_one(name: str) -> None:
    block = blocks.by_name(name)
    for m in range(tails.step(block), block.block_size, tails.step(block)):
        short, spec = tails.tail(block, m), spec_panels.tail(BLOCKS[name], SPEC["types"][name], m)
        assert short.block_bytes == spec["block_bytes"] and short.block_size == m
        fields = [(f.name, f.offset, f.n_bytes, f.kind, f.bits, f.plane) for f in short.layout]
        wanted = [(f["name"], f["offset"], f["bytes"], f["kind"], f["bits"], f.get("plane", 0)) for f in spec["fields"]]
        assert fields == wanted
        spread = [width for n, width in panels.units(short) for _ in range(n)]
        assert spread == [width for n, width in spec["units"] for _ in range(n)]


def test_the_page_says_the_same() -> None:
    """The rows of the page's table of tails, evaluated at every length."""
    text = (PAGES / "panels.md").read_text("utf-8").partition("## Ragged rows")[2]
    seen = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or cells[0] not in SPEC["types"]:
            continue
        seen.append(cells[0])
        table = SPEC["types"][cells[0]]["tail"]
        assert int(cells[1]) == table["step"]
        for m in range(table["step"], BLOCKS[cells[0]]["block_size"], table["step"]):
            parts = []
            for cell in cells[2].split(","):
                name, _, rest = cell.strip().partition(" ")
                amount, _, width = rest.rpartition(" ")
                formula = amount.replace("`", "").replace(" up to a multiple of 4", "").split("/")
                n_bytes = -(-m // int(formula[1])) if len(formula) > 1 else int(formula[0])
                n_bytes = -(-n_bytes // 4) * 4 if "up to" in amount else n_bytes
                parts.append((name, n_bytes, int(width.strip("()"))))
            spec = spec_panels.tail(BLOCKS[cells[0]], SPEC["types"][cells[0]], m)
            assert parts == [
                (f["name"], f["bytes"], row["width"]) for f, row in zip(spec["fields"], table["fields"], strict=True)
            ]
    assert seen == RAGGED


@pytest.mark.parametrize("vector", VECTORS, ids=[f"{v['type']}-{v['columns']}" for v in VECTORS])
def test_vectors(vector: dict[str, Any], tmp_path: Path) -> None:
    """A file of the vector's rows: panels as hashed, weights as hashed, and rows as they were."""
    name, n_cols = vector["type"], vector["columns"]
    row = spec_panels.pieces(BLOCKS[name], SPEC["types"][name], n_cols)
    rows = spec_panels.vector_rows(BLOCKS[name], row, 19, n_cols)
    assert {len(raw) for raw in rows} == {vector["row_bytes"]}
    with GgufWriter(tmp_path / "v.ggb", {}, [TensorSpec("w", name, (19, n_cols), True)], checksums=True) as writer:
        writer.write("w", np.frombuffer(b"".join(rows), np.uint8))
    with ggblock.open(tmp_path / "v.ggb") as file:
        tensor = file.tensors["w"]
        assert hashlib.sha256(tensor.panels.tobytes()).hexdigest() == vector["panels_sha256"]
        assert spec_blocks.float_hash(tensor.dequantize()) == vector["weights_sha256"]
        assert tensor.raw.tobytes() == b"".join(rows)
        assert tensor.gather(np.array([18, 3])).tobytes() == rows[18] + rows[3]
        for i0, i1 in ((0, 1), (15, 17), (18, 19)):
            np.testing.assert_array_equal(tensor.rows(i0, i1), tensor.dequantize()[i0:i1])


def test_the_vectors_are_those_of_the_tool() -> None:
    assert spec_panels.vectors() == (PAGES / "panels_vectors.toml").read_text("utf-8")


def test_the_examples_of_the_page(tmp_path: Path) -> None:
    """Q4_K, 640 columns: bytes 16, 0 and 7 of row 5's tail are at 4884, 4618 and 4725 of the panel."""
    raw = np.zeros((16, 368), np.uint8)
    raw[5, 288 + 16], raw[5, 288], raw[5, 288 + 7] = 1, 2, 3
    panel = panels.to_panels(raw, "q4_k")
    assert panel.shape == (1, 5888)
    assert [int(panel[0, at]) for at in (4884, 4618, 4725)] == [1, 2, 3] and np.count_nonzero(panel) == 3


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_panels_of_any_ragged_shape_lose_nothing(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(RAGGED)))
    block = blocks.by_name(name)
    n_cols = data.draw(st.integers(1, 3 * block.block_size // tails.step(block))) * tails.step(block)
    n_rows, n_bytes = data.draw(st.integers(1, 40)), tails.row(block, n_cols, True).n_bytes
    rows = np.random.default_rng(data.draw(st.integers(0, 1 << 30))).integers(0, 256, (n_rows, n_bytes), np.uint8)
    stored = panels.to_panels(rows, name)
    pieces = spec_panels.pieces(BLOCKS[name], SPEC["types"][name], n_cols)
    assert stored.tobytes() == spec_panels.to_panels([raw.tobytes() for raw in rows], pieces)
    np.testing.assert_array_equal(panels.from_panels(stored, name, n_rows), rows)


def test_faults(tmp_path: Path) -> None:
    for name, n_cols, unit in (("q4_k", 624, 32), ("q2_k", 24, 16), ("q8_0", 48, 32), ("q5_0", 16, 32)):
        with pytest.raises(errors.BadShape, match=f"multiple of {unit}"):
            GgufWriter(tmp_path / "x.ggb", {}, [TensorSpec("w", name, (20, n_cols), True)])
    with pytest.raises(errors.BadShape, match="multiple of 256"):
        GgufWriter(tmp_path / "x.gguf", {}, [TensorSpec("w", "q4_k", (20, 640))])
    path = tmp_path / "z.ggb"
    with GgufWriter(path, {}, [TensorSpec("w", "q4_k", (20, 640), True)], checksums=True) as writer:
        writer.write("w", np.random.default_rng(0).standard_normal((20, 640)))
    whole = path.read_bytes()
    at = whole.index((panels.FIRST_ID + 12).to_bytes(4, "little"))
    for number, n_cols, message in (
        (panels.FIRST_ID + 12, 624, "no whole number of Q4_K sub-blocks"),
        (panels.FIRST_ID + 8, 656, "no whole number of Q8_0 blocks"),
        (12, 640, "no whole number of Q4_K blocks"),
    ):
        bad = whole[: at - 16] + n_cols.to_bytes(8, "little") + whole[at - 8 : at] + number.to_bytes(4, "little")
        (tmp_path / "w.ggb").write_bytes(bad + whole[at + 4 :])
        with pytest.raises(errors.BadShape, match=message):
            ggblock.open(tmp_path / "w.ggb")
