"""Properties: what is written is read back; damage never gives anything but a named error or a sound file."""
from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ggblock
from ggblock import errors
from ggblock.format import ArrayValue, GgufWriter, TensorSpec, Typed, kinds

from . import craft

#: More than a damaged file of some kilobytes may make the reader allocate.
PEAK_BYTES = 2 << 20


def scalars(kind: kinds.ValueKind) -> st.SearchStrategy[object]:
    if kind.name == "str":
        return st.text(st.characters(exclude_categories=()), max_size=20).filter(storable)
    if kind.name == "bool":
        return st.booleans()
    if kind.letter.startswith("f"):
        return st.floats(width=8 * kind.n_bytes)  # type: ignore[arg-type]
    return st.integers(kind.low, kind.high)


def storable(text: str) -> bool:
    """Whether ``text`` survives the way to bytes and back: no surrogates but those that stand for bytes."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") == text
    except UnicodeEncodeError:
        return False


def typed() -> st.SearchStrategy[Typed]:
    plain = [kind for kind in kinds.KINDS if kind.name != "array"]
    one = st.sampled_from(plain).flatmap(lambda kind: scalars(kind).map(lambda value: Typed(kind.name, value)))
    many = st.sampled_from(plain).flatmap(
        lambda kind: st.lists(scalars(kind), max_size=100).map(lambda values: Typed(kind.name + "[]", values))
    )
    nested = st.lists(many, max_size=3).map(lambda arrays: Typed("array[]", arrays))
    return st.one_of(one, many, nested)


def keys() -> st.SearchStrategy[str]:
    return st.text(min_size=1, max_size=12).filter(lambda s: s != "general.alignment" and not s.startswith("split."))


def specs() -> st.SearchStrategy[list[TensorSpec]]:
    kinds_and_columns = [("f32", 1), ("f16", 3), ("q8_0", 32), ("q4_0", 64), ("q6_k", 256), ("i16", 5)]
    shape = st.lists(st.integers(1, 4), max_size=3).flatmap(
        lambda lead: st.sampled_from(kinds_and_columns).map(lambda kind: (kind[0], (*lead, kind[1])))
    )
    name = st.text(min_size=1, max_size=15)
    return st.lists(st.tuples(name, shape), max_size=5, unique_by=lambda pair: pair[0]).map(
        lambda pairs: [TensorSpec(name, kind, dims) for name, (kind, dims) in pairs]
    )


def same(found: object, wanted: object) -> bool:
    if isinstance(wanted, Typed):
        return same(found, wanted.value)
    if isinstance(found, ArrayValue):
        assert isinstance(wanted, list)
        return len(found) == len(wanted) and all(same(a, b) for a, b in zip(found, wanted, strict=True))
    return found == wanted or (found != found and wanted != wanted)  # NaN


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(keys(), typed(), max_size=6), specs(), st.sampled_from([None, 8, 32, 256]), st.data())
def test_written_is_read(tmp_path, values, tensors, alignment, data):
    path = tmp_path / "m.gguf"
    raws = {}
    with GgufWriter(path, values, tensors, alignment) as writer:
        for spec in tensors:
            block = ggblock.blocks.by_name(spec.type)
            n_bytes = int(np.prod(spec.shape)) // block.block_size * block.block_bytes
            raws[spec.name] = np.frombuffer(data.draw(st.binary(min_size=n_bytes, max_size=n_bytes)), np.uint8)
            writer.write(spec.name, raws[spec.name])
    with ggblock.open(path) as file:
        assert [key for key in file.metadata if key != "general.alignment"] == list(values)
        for key, value in values.items():
            assert file.metadata.kind(key) == value.kind and same(file.metadata[key], value), key
        assert [(t.name, t.type.name, t.shape) for t in file.tensors.values()] == [
            (spec.name, spec.type, spec.shape) for spec in tensors
        ]
        for name, raw in raws.items():
            assert file.tensors[name].raw.tobytes() == raw.tobytes()
        assert len(path.read_bytes()) == file.n_bytes == writer.n_bytes
    reader = gguf.GGUFReader(path)
    assert [tensor.name for tensor in reader.tensors] == [spec.name for spec in tensors]


def small_file() -> bytes:
    """A sound file with one of everything."""
    scalars = [
        craft.key(kind.name, kind.id, bytes(kind.n_bytes)) for kind in kinds.KINDS if kind.n_bytes
    ]
    arrays = [
        craft.key("numbers", 9, struct.pack("<IQ4I", 4, 4, 1, 2, 3, 4)),
        craft.key("tokens", 9, craft.string_array([b"token%d" % i for i in range(100)])),
        craft.key("flags", 9, struct.pack("<IQ4B", 7, 4, 1, 0, 0, 1)),
        craft.key("nested", 9, struct.pack("<IQ", 9, 2) + struct.pack("<IQB", 0, 1, 5) + craft.string_array([b"x"])),
        craft.key("text", 8, craft.text("müsli".encode())),
        craft.key("general.alignment", 4, struct.pack("<I", 32)),
    ]
    tensors = [
        craft.tensor("f32", (3, 2), 0, 0), craft.tensor("q8_0", (32, 2), 8, 32), craft.tensor("q4_k", (256,), 12, 128)
    ]
    return craft.container(scalars + arrays, tensors, bytes(range(256)) + bytes(128))


def read_everything(path: Path) -> None:
    """What a caller may do with a file that opened; none of it may fail or touch bytes outside the file."""
    with ggblock.open(path) as file:
        size = path.stat().st_size
        for key, value in file.metadata.items():
            assert file.metadata.kind(key)
            if isinstance(value, ArrayValue):
                assert len(value.tolist()) == len(value)
            elif isinstance(value, str):
                value.encode("utf-8", "surrogateescape")
        end = 0
        for tensor in file.tensors.values():
            assert end <= tensor.offset_bytes and tensor.offset_bytes % file.alignment == 0
            end = tensor.offset_bytes + tensor.n_bytes
            assert end <= size and tensor.raw.nbytes == tensor.n_bytes
            assert tensor.dequantize().size == tensor.n_weights == int(np.prod(tensor.shape))


def open_or_named_error(path: Path) -> bool:
    """True when the file is sound. Anything but a GgblockError, or a large allocation, fails the test."""
    try:
        tracemalloc.start()
        try:
            ggblock.open(path).close()
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < PEAK_BYTES
        read_everything(path)
    except errors.GgblockError as fault:
        assert fault.file == str(path) and "\n" not in str(fault)
        return False
    return True


def test_the_small_file_is_sound(tmp_path: Path):
    path = tmp_path / "m.gguf"
    path.write_bytes(small_file())
    assert open_or_named_error(path)


EVIL = [0, 1, 2, 9, 31, 33, 127, 128, 255, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 62, (1 << 63) - 1, 1 << 63,
        (1 << 64) - 1, (1 << 64) - 32]


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damage_is_named_or_harmless(tmp_path, data):
    raw = bytearray(small_file())
    header_end = raw.index(b"q4_k") + 40
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, header_end))
        how = data.draw(st.sampled_from(["byte", "u32", "u64", "cut", "remove", "insert"]))
        if how == "byte":
            raw[at] = data.draw(st.integers(0, 255))
        elif how == "u32":
            raw[at : at + 4] = struct.pack("<I", data.draw(st.sampled_from(EVIL)) & 0xFFFFFFFF)
        elif how == "u64":
            raw[at : at + 8] = struct.pack("<Q", data.draw(st.sampled_from(EVIL)))
        elif how == "cut":
            del raw[at + 1 :]
        elif how == "remove":
            del raw[at : at + data.draw(st.integers(1, 16))]
        else:
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=16))
        header_end = max(0, min(header_end, len(raw) - 1))
        if not raw:
            break
    path = tmp_path / "m.gguf"
    path.write_bytes(raw)
    open_or_named_error(path)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=400), st.sampled_from([b"", b"GGUF", b"GGUF\3\0\0\0", b"GGUF\0\0\0\3", b"GGUF\2\0\0\0"]))
def test_noise_is_named(tmp_path, noise, head):
    path = tmp_path / "m.gguf"
    path.write_bytes(head + noise)
    open_or_named_error(path)


@pytest.mark.parametrize("value", EVIL)
def test_every_word_of_the_header_replaced(tmp_path: Path, value: int):
    """A 64-bit word of the small file's header becomes ``value``: at every byte for 2^64 - 1, at some for the rest."""
    raw = small_file()
    path = tmp_path / "m.gguf"
    sound = 0
    for at in range(0, raw.index(b"q4_k") + 40, 1 if value == EVIL[-2] else 29):
        damaged = raw[:at] + struct.pack("<Q", value) + raw[at + 8 :]
        path.write_bytes(damaged)
        sound += open_or_named_error(path)
    assert sound < len(raw)
