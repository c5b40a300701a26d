"""Split files: read as one from any part, and every way in which parts may not belong together."""
from __future__ import annotations

import struct
from pathlib import Path

import pytest

import ggblock
from ggblock import errors

from . import craft


def part(number: int, count: int, names: list[str], total: int | None, extra: tuple[bytes, ...] = ()) -> bytes:
    keys = [craft.key("split.no", 2, struct.pack("<H", number)), craft.key("split.count", 2, struct.pack("<H", count))]
    if total is not None:
        keys.append(craft.key("split.tensors.count", 5, struct.pack("<i", total)))
    tensors = [craft.tensor(name, (2,), 0, 32 * i) for i, name in enumerate(names)]
    data = b"".join(struct.pack("<ff", ord(name), number) + bytes(24) for name in names)
    return craft.container([*extra, *keys], tensors, data)


def name(number: int, count: int = 3) -> str:
    return f"m-{number:05d}-of-{count:05d}.gguf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    architecture = craft.key("general.architecture", 8, craft.text(b"llama"))
    (tmp_path / name(1)).write_bytes(part(0, 3, ["a", "b"], 4, (architecture,)))
    (tmp_path / name(2)).write_bytes(part(1, 3, ["c"], 4))
    (tmp_path / name(3)).write_bytes(part(2, 3, ["d"], None))
    return tmp_path


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_part_opens_the_whole(folder: Path, number: int):
    with ggblock.open(folder / name(number)) as file:
        assert file.path == str(folder / name(number))
        assert file.paths == tuple(str(folder / name(i)) for i in (1, 2, 3))
        assert dict(file.metadata) == {"general.architecture": "llama"}
        assert [(n, *t.dequantize().tolist()) for n, t in file.tensors.items()] == [
            ("a", 97, 0), ("b", 98, 0), ("c", 99, 1), ("d", 100, 2)
        ]
        assert Path(file.tensors["c"].path).name == name(2)
        assert file.n_bytes == sum(p.stat().st_size for p in folder.iterdir())


def test_a_single_part_is_an_ordinary_file(tmp_path: Path):
    path = tmp_path / "any name.gguf"
    path.write_bytes(part(0, 1, ["a"], 1))
    assert list(ggblock.open(path).tensors) == ["a"]


def test_a_split_name_alone_makes_no_split(tmp_path: Path):
    path = tmp_path / name(1)
    path.write_bytes(craft.container([]))
    assert ggblock.open(path).paths == (str(path),)


def test_the_first_part_may_hold_no_tensors(folder: Path):
    (folder / name(1)).write_bytes(part(0, 3, [], 2))
    assert list(ggblock.open(folder / name(1)).tensors) == ["c", "d"]


def refuse(path: Path, word: str) -> errors.GgblockError:
    with pytest.raises(errors.SplitMismatch, match=word) as caught:
        ggblock.open(path)
    return caught.value


def test_missing_part(folder: Path):
    (folder / name(2)).unlink()
    assert name(2) in str(refuse(folder / name(1), "1 of 3 parts is missing"))
    (folder / name(1)).unlink()
    refuse(folder / name(3), "2 of 3 parts are missing")


def test_renamed_part(folder: Path):
    (folder / name(2)).rename(folder / "other.gguf")
    refuse(folder / "other.gguf", "name does not say which")
    (folder / "other.gguf").rename(folder / "m-00002-of-00004.gguf")
    refuse(folder / "m-00002-of-00004.gguf", "disagree")
    (folder / "m-00002-of-00004.gguf").rename(folder / "m-00007-of-00003.gguf")
    refuse(folder / "m-00007-of-00003.gguf", "number in the name")


def test_swapped_parts(folder: Path):
    two, three = (folder / name(2)).read_bytes(), (folder / name(3)).read_bytes()
    (folder / name(2)).write_bytes(three)
    (folder / name(3)).write_bytes(two)
    fault = refuse(folder / name(1), "does not belong")
    assert (fault.file, fault.where, fault.expected, fault.actual) == (str(folder / name(2)), "split.no", 1, 2)


@pytest.mark.parametrize(("raw", "word"), [
    (part(1, 4, ["c"], 4), "does not belong"),
    (craft.container([]), "missing or not an integer"),
    (part(1, 3, ["c", "x"], 4), "as many tensors"),
])
def test_a_part_of_something_else(folder: Path, raw: bytes, word: str):
    (folder / name(2)).write_bytes(raw)
    refuse(folder / name(1), word)


def test_total_is_required_in_the_first_part(folder: Path):
    (folder / name(1)).write_bytes(part(0, 3, ["a", "b"], None))
    assert refuse(folder / name(2), "missing or not").where == "split.tensors.count"


@pytest.mark.parametrize("key", [
    craft.key("split.count", 2, struct.pack("<H", 0)),
    craft.key("split.count", 5, struct.pack("<i", -1)),
    craft.key("split.count", 8, craft.text(b"3")),
    craft.key("split.count", 7, b"\1"),
    craft.key("split.count", 10, struct.pack("<Q", 1 << 40)),
])
def test_impossible_counts(tmp_path: Path, key: bytes):
    (tmp_path / name(1)).write_bytes(craft.container([key]))
    assert refuse(tmp_path / name(1), "impossible|not an integer|disagree").where == "split.count"


def test_the_same_tensor_in_two_parts(folder: Path):
    (folder / name(2)).write_bytes(part(1, 3, ["a"], 4))
    with pytest.raises(errors.DuplicateTensor, match=name(1)) as caught:
        ggblock.open(folder / name(3))
    assert caught.value.where == "a" and caught.value.file == str(folder / name(2))


def test_a_fault_in_another_part_names_that_part(folder: Path):
    raw = (folder / name(3)).read_bytes()
    (folder / name(3)).write_bytes(raw[:-30])
    with pytest.raises(errors.TensorOutOfFile) as caught:
        ggblock.open(folder / name(1))
    assert caught.value.file == str(folder / name(3))
