"""The specification of panels and ragged rows: its tables are the code's, and a reader by the tables alone agrees."""
from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
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
    stored = {name: runs for name, runs in panels.TABLE.items() if name in blocks.REGISTRY}
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
        check_places(panels.places(short), panels.widths(short), panels.units(short), spec)


def check_places(
    places: Sequence[int], widths: Sequence[int], runs: Sequence[panels.Run], spec: dict[str, Any]
) -> None:
    """Places, widths and runs of a block are those of the units of ``spec``, each behind 16 times those before it."""
    at, found = 0, dict[int, tuple[int, int]]()
    for byte, width in spec_panels.units(spec["units"]):
        found |= {byte + i: (at + i, width) for i in range(width)}
        at += SPEC["rows"] * width
    assert [*zip(places, widths, strict=True)] == [found[byte] for byte in range(spec["block_bytes"])]
    assert [(o, width) for first, n, width in runs for o in range(first, first + n, width)] == [
        *spec_panels.units(spec["units"])
    ]


@pytest.mark.parametrize("name", SPEC["types"])
def test_the_place_of_every_byte_is_the_specified_one(name: str) -> None:
    block, spec = blocks.by_name(name), spec_panels.pieces(BLOCKS[name], SPEC["types"][name], 256)[0]
    assert sorted(byte + i for byte, width in spec_panels.units(spec["units"]) for i in range(width)) == [
        *range(spec["block_bytes"])
    ]
    check_places(panels.places(block), panels.widths(block), panels.UNITS[name], spec)


@pytest.mark.parametrize("name", SPEC["types"])
def test_units_cut_no_number_in_two(name: str) -> None:
    """Numbers of 16 bits and more lie within a unit."""
    spec = spec_panels.pieces(BLOCKS[name], SPEC["types"][name], 256)[0]
    inside = {byte + i for byte, width in spec_panels.units(spec["units"]) for i in range(1, width)}
    for field in spec["fields"]:
        size = field["bytes"] // field["count"] if field["kind"] in ("f16", "bf16", "f32", "u32") else 1
        for start in range(field["offset"], field["offset"] + field["bytes"], size):
            assert inside >= set(range(start + 1, start + size)), field["name"]


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


#: The examples of the page by their heads: type, bytes of a row, and (row, byte, its place in the panel).
EXAMPLES: dict[str, tuple[str, int, list[tuple[int, int, int]]]] = {
    "Q8_0": ("q8_0", 34, [(0, 0, 0), (15, 1, 31), (0, 2, 32), (0, 5, 35), (1, 2, 36), (1, 5, 39), (15, 2, 92),
                          (15, 5, 95), (0, 6, 96), (0, 9, 99)]),
    "Q6_K": ("q6_k", 210, [(0, 0, 288), (15, 0, 348), (0, 128, 352), (0, 4, 416), (0, 132, 480), (3, 132, 492),
                           (0, 156, 1248), (0, 32, 1312), (0, 64, 1824), (0, 160, 1888), (0, 96, 2848), (3, 101, 2925),
                           (3, 200, 163)]),
    "Q4_K, 640 columns": ("q4_k", 368, [(5, 288 + 16, 4884), (5, 288, 4618), (5, 288 + 1, 4619), (5, 288 + 7, 4725)]),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_page(example: str) -> None:
    """Every byte that they name is where they say."""
    text = (PAGES / "panels.md").read_text("utf-8").partition(f"**Example: {example}.**")[2].partition("\n\n")[0]
    name, n_bytes, named = EXAMPLES[example]
    raw = np.zeros((16, n_bytes), np.uint8)
    for i, (row, byte, _) in enumerate(named, 1):
        raw[row, byte] = i
    panel = panels.to_panels(raw, name)
    assert panel.shape == (1, 16 * n_bytes) and str(16 * n_bytes) in text
    assert np.flatnonzero(panel).tolist() == sorted(at for _, _, at in named)
    for i, (_, _, at) in enumerate(named, 1):
        assert int(panel[0, at]) == i and re.search(rf"\b{at}\b", text), at


def test_the_formulas_of_the_example_of_q6_k() -> None:
    """Each row's ``d`` and scales."""
    raw = np.random.default_rng(0).integers(0, 256, (16, 210), np.uint8)
    panel = panels.to_panels(raw, "q6_k")[0]
    for r in range(16):
        assert panel[2 * r : 2 * r + 2].tobytes() == raw[r, 208:].tobytes()
        assert [panel[32 + 16 * s + r] for s in range(16)] == raw[r, 192:208].tolist()


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


def test_many_panels_are_made_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes whatever fits at once; rows that follow one another with a gap, as a slice of a matrix."""
    matrix = np.random.default_rng(3).integers(0, 256, (75, 2 * 210 + 100 + 7), np.uint8)
    rows = matrix[:, : 2 * 210 + 2 * 53]  # Q6_K, 640 columns: two blocks and a tail of 128 weights
    assert tails.row(blocks.by_name("q6_k"), 640, True).n_bytes == rows.shape[1]
    made = {}
    for chunk in (1, 20_000, 1 << 18):
        monkeypatch.setattr(panels, "CHUNK_BYTES", chunk)
        made[chunk] = panels.to_panels(rows, "q6_k")
        np.testing.assert_array_equal(panels.from_panels(made[chunk], "q6_k", 75), rows)
    assert len({stored.tobytes() for stored in made.values()}) == 1 and len(made[1]) == 5


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
