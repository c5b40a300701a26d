"""What is read from safetensors and torch files, and what is refused."""
from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ggblock import errors
from ggblock.convert.sources import open_source
from ggblock.convert.sources.stored import n_rows

from . import checkpoints as ck


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def arrays() -> ck.Arrays:
    rng = np.random.default_rng(1)
    return {
        "a": rng.standard_normal((5, 7)).astype(np.float32), "b": rng.standard_normal(9).astype(np.float16),
        "c": (rng.standard_normal((3, 4)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16),
        "d": rng.standard_normal((2, 3, 4)),
    }  # fmt: skip


def as_float(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "wrapped.bin"])
def test_every_number_arrives(folder: Path, name: str) -> None:
    written = arrays()
    if name.endswith(".safetensors"):
        ck.write_safetensors(folder / name, written)
    else:
        ck.write_torch(folder / name, written, wrap="state_dict" if name.startswith("wrapped") else None)
    with open_source(folder / name) as source:
        assert set(source.tensors) == set(written)
        for key, array in written.items():
            tensor = source.tensors[key]
            assert tensor.shape == array.shape
            np.testing.assert_array_equal(tensor.rows(0, n_rows(tensor)).reshape(array.shape), as_float(array))


def test_views_of_a_torch_storage(folder: Path) -> None:
    base = np.arange(60, dtype=np.float32).reshape(6, 10)
    views = {"transposed": base.T, "part": base[2:5], "columns": base[:, 1::3], "row": base[3], "column": base[:, 4]}
    ck.write_torch(folder / "v.pt", views)
    with open_source(folder / "v.pt") as source:
        for key, array in views.items():
            tensor = source.tensors[key]
            np.testing.assert_array_equal(tensor.rows(0, n_rows(tensor)).reshape(array.shape), array)
        np.testing.assert_array_equal(source.tensors["transposed"].rows(3, 7), base.T[3:7])


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("executed",))


@pytest.mark.parametrize("kind", ["call", "name", "nested", "global"])
def test_a_pickle_that_names_anything_else_is_refused(
    folder: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    value, entries = ck.torch_value({"a": np.ones((2, 2), np.float32)})
    extra = {
        "call": Bomb(), "name": ck._Global("os", "system"), "nested": [1, (Bomb(),)],
        "global": ck._Call(ck._Global("torch._utils", "_rebuild_device_tensor_from_numpy"), ()),
    }[kind]  # fmt: skip
    with zipfile.ZipFile(folder / "x.pt", "w") as archive:
        archive.writestr("archive/data.pkl", ck.torch_pickle({**value, "b": extra}))
        for name, raw in entries.items():
            archive.writestr(name, raw)
    with pytest.raises(errors.UnsafePickle) as fault:
        open_source(folder / "x.pt")
    assert str(folder / "x.pt") in str(fault.value)
    assert capsys.readouterr().out == ""


def test_a_damaged_pickle_raises_only_named_errors(folder: Path) -> None:
    value, entries = ck.torch_value({"a": np.ones((2, 2), np.float32)})
    whole = ck.torch_pickle(dict(value))
    rng = np.random.default_rng(2)
    opened = 0
    for i in range(300):
        damaged = bytearray(whole[: rng.integers(1, len(whole))] if i % 3 == 0 else whole)
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        with zipfile.ZipFile(folder / "x.pt", "w") as archive:
            archive.writestr("archive/data.pkl", bytes(damaged))
            for name, raw in entries.items():
                archive.writestr(name, raw)
        try:
            with open_source(folder / "x.pt"):
                opened += 1
        except errors.CheckpointError as fault:
            assert "x.pt" in str(fault)
    assert opened < 150


def test_a_view_beyond_its_storage_is_refused(folder: Path) -> None:
    value, entries = ck.torch_value({"a": np.ones((2, 2), np.float32)})
    entries["archive/data/0"] = b"1234"
    with zipfile.ZipFile(folder / "x.pt", "w") as archive:
        archive.writestr("archive/data.pkl", ck.torch_pickle(dict(value)))
        for name, raw in entries.items():
            archive.writestr(name, raw)
    with pytest.raises(errors.BadCheckpoint, match="beyond its storage"):
        open_source(folder / "x.pt")


def test_the_old_torch_format_is_named(folder: Path) -> None:
    (folder / "x.bin").write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02")
    with pytest.raises(errors.BadCheckpoint, match="before version 1.6"):
        open_source(folder / "x.bin")


GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


@pytest.mark.parametrize(
    ("head", "data", "message"),
    [
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 12]}}, 12, "does not fit the bytes"),
        ({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}, 2, "cannot be converted"),
        ({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, 8, "bad shape"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, 8, "bad offsets"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, 12, "does not begin where"),
        ({**GOOD, "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, 12, "does not begin where"),
        ({"a": {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 1 << 62]}}, 8, "outside the file"),
        (GOOD, 4, "outside the file"),
        (GOOD, 9, "bytes after the last tensor"),
        ({"a": []}, 0, "no object"),
        ([], 0, "no JSON object"),
    ],
)
def test_faults_of_safetensors(folder: Path, head: object, data: int, message: str) -> None:
    raw = json.dumps(head).encode()
    (folder / "x.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(data))
    with pytest.raises(errors.BadCheckpoint, match=message):
        open_source(folder / "x.safetensors")


@pytest.mark.parametrize("raw", [b"1234", struct.pack("<Q", 1 << 40) + b"{}", struct.pack("<Q", 2) + b"[{",
                                 struct.pack("<Q", 20) + b'{"a": 1, "a": 2}    '])  # fmt: skip
def test_broken_headers(folder: Path, raw: bytes) -> None:
    (folder / "x.safetensors").write_bytes(raw)
    with pytest.raises(errors.BadCheckpoint):
        open_source(folder / "x.safetensors")


def test_shards_and_their_index(folder: Path) -> None:
    written = arrays()
    parts = {"model-00001-of-00002.safetensors": ["a", "d"], "model-00002-of-00002.safetensors": ["b", "c"]}
    for name, keys in parts.items():
        ck.write_safetensors(folder / name, {key: written[key] for key in keys})
    weight_map = {key: name for name, keys in parts.items() for key in keys}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with open_source(folder) as source:
        assert set(source.tensors) == set("abcd")
    index.write_text(json.dumps({"weight_map": {**weight_map, "e": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(errors.BadCheckpoint, match="promises a tensor"):
        open_source(folder)
    index.write_text(json.dumps({"weight_map": {**weight_map, "e": "../x.safetensors"}}))
    with pytest.raises(errors.BadCheckpoint, match="outside the folder"):
        open_source(folder)
    index.write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(errors.BadCheckpoint, match="missing, with 2 tensors"):
        open_source(folder)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(errors.NotACheckpoint, match="no weights"):
        open_source(tmp_path)
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(errors.NotACheckpoint, match="not a kind of file"):
        open_source(tmp_path / "x.txt")
    with pytest.raises(errors.CannotRead, match="no such file"):
        open_source(tmp_path / "missing.gguf")
    ck.write_safetensors(tmp_path / "x.safetensors", {"a": np.ones(2, np.float32)})
    with pytest.raises(errors.BadCheckpoint, match="config.json"):
        open_source(tmp_path / "x.safetensors")
