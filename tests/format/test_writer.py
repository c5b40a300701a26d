"""The writer: what it writes is read back, it is atomic, and it names every fault."""
from __future__ import annotations

import gc
import os
import resource
import shutil
import signal
import struct
import sys
from pathlib import Path
from types import FrameType, SimpleNamespace

import gguf
import numpy as np
import pytest

import ggblock
from ggblock import errors
from ggblock.format import GgufWriter, TensorSpec, Typed, limits, writer

from . import craft

KEYS = {"general.architecture": "llama", "n": 7}
W = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64)


def write(path: Path, metadata=KEYS, tensors=(), data=(), **options) -> None:
    with GgufWriter(path, metadata, tensors, **options) as writer:
        for spec, array in zip(tensors, data, strict=True):
            writer.write(spec.name, array)


def left_over(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_plain_values_get_their_usual_kinds(tmp_path: Path):
    values = {
        "str": "é", "true": True, "int": 5, "negative": -5, "large": 1 << 40, "low": -(1 << 40), "float": 0.5,
        "strs": ["a", ""], "bools": [True, False], "ints": [1, -2], "larges": [1 << 31, 0], "floats": [0.5, 1],
        "none": [], "arrays": [[1], ["x"], []], "np": np.array([1, 2], np.int16), "scalar": np.float64(0.1),
        "odd": "\udcff",
    }
    write(tmp_path / "m.gguf", values)
    with ggblock.open(tmp_path / "m.gguf") as file:
        assert {key: file.metadata.kind(key) for key in values} == {
            "str": "str", "true": "bool", "int": "u32", "negative": "i32", "large": "u64", "low": "i64",
            "float": "f32", "strs": "str[]", "bools": "bool[]", "ints": "i32[]", "larges": "u32[]",
            "floats": "f32[]", "none": "i32[]", "arrays": "array[]", "np": "i16[]", "scalar": "f64", "odd": "str",
        }
        for key, value in values.items():
            expected = value.tolist() if isinstance(value, np.ndarray) else value
            assert file.metadata[key] == expected


def test_typed_values(tmp_path: Path):
    values = {"a": Typed("u8", 255), "b": Typed("f64", 1), "c": Typed("u64[]", [0, 1 << 63]), "d": Typed("f64[]", ())}
    write(tmp_path / "m.gguf", values)
    with ggblock.open(tmp_path / "m.gguf") as file:
        assert [file.metadata.typed(k).kind for k in "abcd"] == ["u8", "f64", "u64[]", "f64[]"]
        assert dict(file.metadata) == {"a": 255, "b": 1.0, "c": [0, 1 << 63], "d": []}


@pytest.mark.parametrize("value", [
    None, {}, object(), [1, "a"], [True, 1], [None], 1 << 64, -(1 << 63) - 1, [1 << 64], np.zeros((2, 2)),
    np.array(["a"]), Typed("u8", 256), Typed("u8", -1), Typed("u8", 1.0), Typed("u8", True), Typed("bool", 1),
    Typed("str", 1), Typed("str", b"x"), Typed("f32", 1e39), Typed("f32[]", [1e39]), Typed("u8[]", [256]),
    Typed("u8[]", [0.5]), Typed("bool[]", [0, 1]), Typed("str[]", ["a", 1]), Typed("u8[]", 5), Typed("half", 1),
    Typed("array", []), Typed("array[]", [1]), Typed("half[]", []), "\ud800", ["\ud800"], Typed("i8[]", ["a"]),
])
def test_values_that_cannot_be_stored(tmp_path: Path, value):
    with pytest.raises(errors.WrongKeyKind):
        write(tmp_path / "m.gguf", {"k": value})
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("key", ["", "k" * 65_536, "\ud800"])
def test_keys_that_cannot_be_stored(tmp_path: Path, key: str):
    with pytest.raises(errors.WrongKeyKind):
        write(tmp_path / "m.gguf", {key: 1})


def test_deep_arrays_are_refused(tmp_path: Path):
    write(tmp_path / "m.gguf", {"k": [[[[1]]]]})
    assert ggblock.open(tmp_path / "m.gguf").metadata["k"] == [[[[1]]]]
    with pytest.raises(errors.NestingTooDeep):
        write(tmp_path / "m.gguf", {"k": [[[[[1]]]]]})


def test_tensors_are_encoded_or_copied(tmp_path: Path):
    path = tmp_path / "m.gguf"
    whole = np.arange(-3, 3).reshape(2, 3)
    tensors = [
        TensorSpec("f", "F32", (2, 64)), TensorSpec("q", "q8_0", (2, 64)), TensorSpec("raw", "q8_0", (2, 64)),
        TensorSpec("i", "i32", (2, 3)), TensorSpec("h", "f16", (64, 1, 2, 1)), TensorSpec("s", "f32", ()),
        TensorSpec("big", "f32", (2, 64)),
    ]
    blocks = ggblock.quantize(W, "q8_0")
    write(path, KEYS, tensors, [
        W, W, blocks, whole.astype(">i4"), W.reshape(64, 1, 2, 1), np.float32(7), W.astype(">f8")[:, ::1],
    ])
    with ggblock.open(path) as file:
        read = file.tensors
        assert [t.shape for t in read.values()] == [(2, 64), (2, 64), (2, 64), (2, 3), (64, 1, 2, 1), (1,), (2, 64)]
        assert (read["f"].dequantize() == W).all() and (read["big"].dequantize() == W).all()
        assert (read["q"].raw == blocks).all() and (read["raw"].raw == blocks).all()
        assert (read["i"].raw.view("<i4") == whole).all() and read["s"].dequantize() == [7]
        assert all(t.offset_bytes % 32 == 0 for t in read.values())
        assert path.stat().st_size % 32 == 0


def test_rows_in_several_steps(tmp_path: Path):
    path = tmp_path / "m.gguf"
    with GgufWriter(path, KEYS, [TensorSpec("q", "q8_0", (5, 32)), TensorSpec("f", "f32", (1, 4))]) as writer:
        data = np.linspace(-2, 2, 160, dtype=np.float32).reshape(5, 32)
        writer.write_rows("q", data[:2])
        writer.write_rows("q", ggblock.quantize(data[2:4], "q8_0"))
        with pytest.raises(errors.ShapeMismatch, match="announced order"):
            writer.write("q", data)
        with pytest.raises(errors.ShapeMismatch, match="more rows"):
            writer.write_rows("q", data[:2])
        writer.write_rows("q", data[4:])
        writer.write("f", np.ones((1, 4)))
        with pytest.raises(errors.ShapeMismatch, match="announced order"):
            writer.write("f", np.ones((1, 4)))
        assert writer.n_bytes % 32 == 0
    with ggblock.open(path) as file:
        assert (file.tensors["q"].raw == ggblock.quantize(data, "q8_0")).all() and path.stat().st_size == file.n_bytes


@pytest.mark.parametrize(("data", "word"), [
    (np.zeros((2, 63), np.float32), "another shape"),
    (np.zeros((64, 2), np.float32), "another shape"),
    (np.zeros(67, np.uint8), "wrong number of bytes"),
    (np.zeros((2, 68, 2), np.uint8), "wrong number of bytes"),
])
def test_data_that_do_not_fit(tmp_path: Path, data, word):
    with pytest.raises(errors.ShapeMismatch, match=word) as caught:
        write(tmp_path / "m.gguf", KEYS, [TensorSpec("q", "q8_0", (2, 64))], [data])
    assert caught.value.where == "q" and caught.value.file == str(tmp_path / "m.gguf")
    assert left_over(tmp_path) == []


def test_a_weight_that_is_no_number_names_file_and_tensor(tmp_path: Path):
    with pytest.raises(errors.NonFiniteWeight, match=r"m\.gguf: q: row 0, column 3") as caught:
        bad = W.copy()
        bad[0, 3] = np.nan
        write(tmp_path / "m.gguf", KEYS, [TensorSpec("q", "q8_0", (2, 64))], [bad])
    assert left_over(tmp_path) == [] and caught.value.file == str(tmp_path / "m.gguf")


@pytest.mark.parametrize(("tensors", "error"), [
    ([TensorSpec("w", "f32", (1,)), TensorSpec("w", "f32", (1,))], errors.DuplicateTensor),
    ([TensorSpec("w" * 64, "f32", (1,))], errors.BadTensorName),
    ([TensorSpec("", "f32", (1,))], errors.BadTensorName),
    ([TensorSpec("\udcff", "f32", (1,))], errors.BadTensorName),
    ([TensorSpec("w", "f32", (1, 0))], errors.BadShape),
    ([TensorSpec("w", "f32", (-1, -1))], errors.BadShape),
    ([TensorSpec("w", "f32", (1, 1, 1, 1, 1))], errors.BadShape),
    ([TensorSpec("w", "q8_0", (2, 33))], errors.BadShape),
    ([TensorSpec("w", "f32", (1 << 32, 1 << 32))], errors.BadShape),
    ([TensorSpec("w", "q9_9", (32,))], errors.UnknownType),
    ([TensorSpec("w", "q4_2", (32,))], errors.RemovedType),
])
def test_bad_plans_create_nothing(tmp_path: Path, tensors, error):
    with pytest.raises(error):
        write(tmp_path / "m.gguf", KEYS, tensors)
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(("metadata", "option", "expected", "stored"), [
    ({}, None, 32, None), ({}, 32, 32, None), ({}, 64, 64, 64), ({"general.alignment": 8}, None, 8, 8),
    ({"general.alignment": 8}, 4096, 4096, 4096), ({"general.alignment": 64}, 32, 32, 32),
])
def test_alignment(tmp_path: Path, metadata, option, expected, stored):
    path = tmp_path / "m.gguf"
    tensors = [TensorSpec(name, "f32", (3,)) for name in "abc"]
    write(path, metadata, tensors, [np.ones(3)] * 3, alignment=option)
    with ggblock.open(path) as file:
        assert file.alignment == expected and file.metadata.get("general.alignment") == stored
        assert all(t.offset_bytes % expected == 0 for t in file.tensors.values())
    reader = gguf.GGUFReader(path)
    assert reader.alignment == expected and all((t.data == 1).all() for t in reader.tensors)


@pytest.mark.parametrize("alignment", [0, 1, 4, 24, -32, 1 << 31])
def test_unusable_alignments(tmp_path: Path, alignment: int):
    with pytest.raises(errors.BadAlignment):
        write(tmp_path / "m.gguf", KEYS, alignment=alignment)


class Stop(Exception):
    pass


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, SystemExit, MemoryError])
def test_whatever_stops_it_leaves_the_old_file(tmp_path: Path, error: type[BaseException]):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"old")
    with pytest.raises(error), GgufWriter(path, KEYS, [TensorSpec("w", "f32", (2, 64))]) as writer:
        assert len(left_over(tmp_path)) == 2
        writer.write_rows("w", W[:1])
        raise error
    assert path.read_bytes() == b"old" and left_over(tmp_path) == ["m.gguf"]


def test_a_real_interrupt(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), GgufWriter(tmp_path / "m.gguf", KEYS, [TensorSpec("w", "f32", (64,))]):
        signal.raise_signal(signal.SIGINT)
    assert left_over(tmp_path) == []


def test_an_interrupt_before_any_line_leaves_nothing(tmp_path: Path):
    """Ctrl-C as it may really come: before every single line that the writer runs, in turn."""
    path = tmp_path / "m.gguf"

    def interrupted(at: int) -> int:
        """Write a file, interrupted before line ``at`` of the writer; how many lines there were."""
        n = 0

        def trace(frame: FrameType, event: str, _: object) -> object:
            nonlocal n
            if frame.f_code.co_filename != writer.__file__:
                return None
            n += event == "line"
            if n == at and event == "line":
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            with GgufWriter(path, KEYS, [TensorSpec("w", "f32", (2, 64))]) as out:
                out.write("w", W[:2])
        finally:
            sys.settrace(None)
        return n

    lines = interrupted(0)
    assert lines > 100 and left_over(tmp_path) == ["m.gguf"]
    for at in range(1, lines + 1):
        path.write_bytes(b"old")
        with pytest.raises(KeyboardInterrupt):
            interrupted(at)
        gc.collect()
        assert left_over(tmp_path) == ["m.gguf"], at
        assert path.read_bytes() == b"old" or path.stat().st_size > 512, at


def test_missing_tensors_are_an_error(tmp_path: Path):
    tensors = [TensorSpec("a", "f32", (1,)), TensorSpec("b", "f32", (2, 1))]
    with pytest.raises(errors.MissingTensor) as caught, GgufWriter(tmp_path / "m.gguf", KEYS, tensors) as writer:
        writer.write("a", np.ones(1))
        writer.write_rows("b", np.ones((1, 1)))
    assert caught.value.where == "b" and caught.value.actual == 1 and left_over(tmp_path) == []


def test_the_file_appears_complete_and_only_at_the_end(tmp_path: Path):
    path = tmp_path / "m.gguf"
    with GgufWriter(path, KEYS, [TensorSpec("w", "f32", (64,))]) as writer:
        writer.write("w", W[0])
        assert not path.exists()
    assert left_over(tmp_path) == ["m.gguf"]
    with pytest.raises(ValueError, match="used once"), writer:
        pass
    with pytest.raises(ValueError, match="with statement"):
        writer.write("w", W[0])


def test_permissions_are_the_usual_ones(tmp_path: Path):
    write(tmp_path / "m.gguf")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "m.gguf").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_stays_a_link(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "m.gguf").symlink_to(tmp_path / "real" / "m.gguf")
    write(tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").is_symlink() and left_over(tmp_path / "real") == ["m.gguf"]


def test_a_full_disk_while_writing(tmp_path: Path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(errors.DiskFull, match=r"m\.gguf") as caught:
            write(tmp_path / "m.gguf", KEYS, [TensorSpec("w", "f32", (1000, 64))], [np.zeros((1000, 64))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert left_over(tmp_path) == [] and "bytes" in str(caught.value)


def test_a_full_disk_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(errors.DiskFull) as caught:
        write(tmp_path / "m.gguf", KEYS, [TensorSpec("w", "f32", (1000, 64))], [np.zeros((1000, 64))])
    assert caught.value.actual == 1000 and left_over(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "folder.gguf").mkdir()
    for name in ("missing/m.gguf", "folder.gguf"):
        with pytest.raises(errors.CannotWrite) as caught:
            write(tmp_path / name)
        assert caught.value.file == str(tmp_path / name)
    assert left_over(tmp_path) == ["folder.gguf"]


def test_its_own_input_is_refused(tmp_path: Path):
    path, other = tmp_path / "m.gguf", tmp_path / "other.gguf"
    write(path, KEYS | {"a": [1, 2]}, [TensorSpec("w", "f32", (2, 64))], [W])
    before = path.read_bytes()
    (tmp_path / "hard.gguf").hardlink_to(path)
    (tmp_path / "soft.gguf").symlink_to(path)
    with ggblock.open(path) as file:
        for target in (path, tmp_path / "hard.gguf", tmp_path / "soft.gguf"):
            for metadata, inputs in ((file.metadata, ()), (KEYS, [path]), (KEYS, [str(path)]),
                                     ({"a": file.metadata["a"]}, ()), (file.metadata.typed_items(), ())):
                with pytest.raises(errors.WouldOverwriteInput):
                    write(target, metadata, inputs=inputs)
        write(other, file.metadata, inputs=[path, tmp_path / "not there"])
    assert path.read_bytes() == before and sorted(left_over(tmp_path)) == [
        "hard.gguf", "m.gguf", "other.gguf", "soft.gguf"
    ]


def test_a_derived_file_is_the_same_to_the_byte(tmp_path: Path):
    odd = craft.container([
        craft.key("tokens", 9, craft.string_array([b"a", b"\xff", b""])), craft.key("k", 8, craft.text(b"\xfe")),
        craft.key("x", 3, struct.pack("<h", -1)), craft.key("n", 9, struct.pack("<IQIQB", 9, 1, 0, 1, 7)),
        craft.key("general.alignment", 4, struct.pack("<I", 32)),
    ], [craft.tensor("w", (8,), 0, 0)], bytes(range(32)))
    (tmp_path / "a.gguf").write_bytes(odd)
    with ggblock.open(tmp_path / "a.gguf") as file:
        tensors = list(file.tensors.values())
        specs = [TensorSpec(t.name, t.type, t.shape) for t in tensors]
        for metadata in (file.metadata, file.metadata.typed_items()):
            write(tmp_path / "b.gguf", metadata, specs, [t.raw for t in tensors])
            assert (tmp_path / "b.gguf").read_bytes() == odd


def test_a_big_endian_file_becomes_a_little_endian_one(tmp_path: Path):
    vector = next(v for v in craft.spec()["valid"] if v["name"] == "big-endian")
    (tmp_path / "a.gguf").write_bytes(craft.assemble(vector["parts"], big=True))
    with ggblock.open(tmp_path / "a.gguf") as file:
        specs = [TensorSpec(t.name, t.type, t.shape) for t in file.tensors.values()]
        write(tmp_path / "b.gguf", file.metadata, specs, [t.raw for t in file.tensors.values()])
    with ggblock.open(tmp_path / "b.gguf") as file:
        assert file.byte_order == "little" and dict(file.metadata) == vector["expect"]["metadata"]
        assert {n: t.dequantize().tolist() for n, t in file.tensors.items()} == vector["expect"]["tensors"]


def test_too_many_of_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("MAX_KEYS", "MAX_TENSORS", "MAX_ARRAY_STRINGS", "MAX_ARRAY_NUMBERS", "MAX_INNER_ARRAYS"):
        monkeypatch.setattr(limits, name, 2)
    specs = [TensorSpec(n, "f32", (1,)) for n in "abc"]
    for metadata, tensors in (({"a": 1, "b": 1, "c": 1}, ()), ({}, specs), ({"a": ["x"] * 3}, ()),
                              ({"a": [1] * 3}, ()), ({"a": [[1]] * 3}, ())):
        with pytest.raises(errors.CountTooLarge):
            write(tmp_path / "m.gguf", metadata, tensors)


def test_nothing_at_all_is_a_file(tmp_path: Path):
    write(tmp_path / "m.gguf", {})
    with ggblock.open(tmp_path / "m.gguf") as file:
        assert len(file.metadata) == 0 and len(file.tensors) == 0
    assert gguf.GGUFReader(tmp_path / "m.gguf").tensors == [] and os.path.getsize(tmp_path / "m.gguf") == 32


def test_long_names_in_any_script(tmp_path: Path):
    name = "é" * 120 + ".gguf"  # 245 bytes
    write(tmp_path / name)
    assert left_over(tmp_path) == [name]
