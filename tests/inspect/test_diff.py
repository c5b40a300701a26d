"""Differences between files."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ggblock
from ggblock.format import GgufWriter, TensorSpec, Typed
from ggblock.inspect.diff import Difference, diff, difference_document
from ggblock.inspect.edit import PADDING, Changes, edit
from tests.inspect import crafted, schemas


def differences(a: Path, b: Path) -> Difference:
    with ggblock.open(a) as first, ggblock.open(b) as second:
        found = diff(first, second)
        schemas.check(difference_document(first, second, found), "diff")
        return found


def test_a_file_and_itself(tmp_path: Path) -> None:
    path = crafted.write(tmp_path / "m.gguf")
    found = differences(path, path)
    assert found.is_none and found.n_same == 8 and not found.order


def test_metadata(tmp_path: Path) -> None:
    first = crafted.write(tmp_path / "a.gguf", {
        **crafted.METADATA, "gone": 1, "f": 1.0, "l": [1, 2, 3], "n": [[1], [2]], "nan": float("nan"),
    })  # fmt: skip
    second = crafted.write(tmp_path / "b.gguf", {
        **crafted.METADATA, "new": "x", "general.name": "other", "f": Typed("f64", 1.0), "l": [1, 2, 4],
        "n": [[1], [3]], "nan": float("nan"),
        "tokenizer.ggml.tokens": [*[f"t{i}" for i in range(40)], *["u"] * 24],
    })  # fmt: skip
    changes = {each.key: (each.change, each.first_difference) for each in differences(first, second).keys}
    assert changes == {
        "gone": ("removed", None), "new": ("added", None), "general.name": ("changed", None), "f": ("changed", None),
        "l": ("changed", 2), "n": ("changed", 1), "tokenizer.ggml.tokens": ("changed", 40),
    }


def test_zeros_of_both_signs_differ_and_lengths_count(tmp_path: Path) -> None:
    first = crafted.write(tmp_path / "a.gguf", {"z": 0.0, "l": [1, 2]}, [])
    second = crafted.write(tmp_path / "b.gguf", {"z": -0.0, "l": [1, 2, 3]}, [])
    assert {each.key: each.first_difference for each in differences(first, second).keys} == {"z": None, "l": 2}


def test_tensors(tmp_path: Path) -> None:
    first = crafted.write(tmp_path / "a.gguf")
    names = {name: (kind, shape) for name, kind, shape in crafted.TENSORS}
    names["blk.0.attn_q.weight"] = ("q8_0", (256, 256))
    names["blk.0.ffn_up.weight"] = ("q5_0", (256, 512))
    del names["blk.1.ffn_up.weight"]
    names["extra.weight"] = ("f32", (3,))
    second = crafted.write(tmp_path / "b.gguf", None, [(name, *rest) for name, rest in names.items()])
    found = differences(first, second)
    changes = {each.name: each for each in found.tensors if each.change != "moved"}
    assert {name: each.change for name, each in changes.items()} == {
        "blk.0.attn_q.weight": "type", "blk.0.ffn_up.weight": "shape", "blk.1.ffn_up.weight": "removed",
        "extra.weight": "added",
    }
    assert found.n_same == 5 and not found.is_none
    with ggblock.open(first) as a, ggblock.open(second) as b:
        x, y = (f.tensors["blk.0.attn_q.weight"].dequantize().astype(np.float64) for f in (a, b))
    assert changes["blk.0.attn_q.weight"].nmse == pytest.approx(((x - y) ** 2).sum() / (x**2).sum())
    assert changes["blk.0.attn_q.weight"].largest == pytest.approx(np.abs(x - y).max())


def test_one_byte_is_one_block(tmp_path: Path) -> None:
    first, second = crafted.write(tmp_path / "a.gguf"), crafted.write(tmp_path / "b.gguf")
    data = bytearray(second.read_bytes())
    with ggblock.open(second) as file:
        at = file.tensors["blk.0.ffn_down.weight"].offset_bytes + 34 * 17 + 9
    data[at] ^= 1
    second.write_bytes(data)
    (change,) = differences(first, second).tensors
    assert (change.change, change.n_blocks, change.first_block) == ("data", 1, 17)
    assert change.nmse is not None and 0 < change.nmse < 1e-6


def test_order_and_place_are_no_difference_in_content(tmp_path: Path) -> None:
    first = crafted.write(tmp_path / "a.gguf")
    second = crafted.write(tmp_path / "b.gguf", None, crafted.TENSORS[::-1])
    found = differences(first, second)
    assert found.is_none and found.order and {each.change for each in found.tensors} == {"moved"}


def test_not_finite_values(tmp_path: Path) -> None:
    for name, values in (("a", [1.0, np.nan, np.inf, 2.0]), ("b", [1.0, np.nan, np.inf, 3.0])):
        with GgufWriter(tmp_path / name, {}, [TensorSpec("w", "f32", (4,))]) as writer:
            writer.write("w", np.array(values, np.float32))
    (change,) = differences(tmp_path / "a", tmp_path / "b").tensors
    assert change.nmse == pytest.approx(1 / 5) and change.largest == 1


def test_the_filler_of_an_edit_is_no_difference(tmp_path: Path) -> None:
    """A header that was shortened in place holds a filler; the content is that of a file without it."""
    path, other = crafted.write(tmp_path / "a.gguf"), tmp_path / "b.gguf"
    edit(path, other, Changes({}, ["general.name"]))
    edit(path, None, Changes({}, ["general.name"]))
    with ggblock.open(path) as a, ggblock.open(other) as b:
        assert (PADDING in a.metadata) != (PADDING in b.metadata)
        found = diff(a, b)
    assert found.is_none and [(each.key, each.is_storage) for each in found.keys] == [(PADDING, True)]
