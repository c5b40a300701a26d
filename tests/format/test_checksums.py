"""Checksums in the metadata, computed again here from the bytes alone."""
from __future__ import annotations

import hashlib
from pathlib import Path

import gguf
import numpy as np
import pytest

import ggblock
from ggblock.format import GgufWriter, TensorSpec, Typed, checksums
from ggblock.inspect.edit import Changes, edit
from ggblock.inspect.verify import verify
from tests.inspect import crafted
from tools import spec_reader


def digest_of_the_rest(path: Path) -> str:
    """The definition in spec/container.md, by way of the gguf package."""
    raw = bytearray(path.read_bytes())
    reader = gguf.GGUFReader(path)
    field = reader.fields["ggblock.header.sha256"]
    at = int(field.offset) + sum(part.nbytes for part in field.parts[: field.data[0]])
    raw[at : at + 64] = b"0" * 64
    tensors = [(int(t.data_offset), int(t.n_bytes)) for t in reader.tensors]
    for start, n_bytes in reversed(tensors):
        del raw[start : start + n_bytes]
    return hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_the_writer_fills_them_in(alignment: int, tmp_path: Path) -> None:
    path = crafted.write(tmp_path / "m.gguf", alignment=alignment, checksums=True)
    with ggblock.open(path) as file:
        stored = file.metadata[checksums.TENSORS]
        assert stored == [hashlib.sha256(t.raw.tobytes()).hexdigest() for t in file.tensors.values()]
        assert file.metadata[checksums.HEADER] == digest_of_the_rest(path)


def test_rows_in_pieces_give_the_same(tmp_path: Path) -> None:
    rows = crafted.weights("w", (10, 64))
    for name, step in (("whole", 10), ("pieces", 3)):
        with GgufWriter(tmp_path / name, {}, [TensorSpec("w", "q8_0", (10, 64))], checksums=True) as writer:
            for start in range(0, 10, step):
                writer.write_rows("w", rows[start : start + step])
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "pieces").read_bytes()


def test_without_being_asked_nothing_is_added(tmp_path: Path) -> None:
    with ggblock.open(crafted.write(tmp_path / "m.gguf")) as file:
        assert not checksums.KEYS & set(file.metadata)


def test_other_readers_load_the_file(tmp_path: Path) -> None:
    path = crafted.write(tmp_path / "m.gguf", checksums=True)
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == "output_norm.weight")
    np.testing.assert_array_equal(tensor.data, crafted.weights("output_norm.weight", (256,)))


def test_a_text_that_looks_like_the_key_is_left_alone(tmp_path: Path) -> None:
    """Before, behind and within arrays, and as a tensor's name: none of them is the key."""
    record = (21).to_bytes(8, "little") + b"ggblock.header.sha256" + bytes([8, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0])
    fake = (record + b"0" * 64).decode()
    before = {"a": fake, "b": ["x", fake], "c": Typed("array[]", [[fake], [1, 2]]), "n": [1, 2], "e": 0.5, "f": True}
    path = tmp_path / "m.gguf"
    values = {**before, **checksums.room(1), "z": fake}
    with GgufWriter(path, values, [TensorSpec("w", "f32", (2,))], checksums=True) as writer:
        writer.write("w", np.zeros(2, np.float32))
    assert verify(path).faults == ()
    with ggblock.open(path) as file:
        assert [file.metadata["a"], file.metadata["z"], file.metadata["b"][1], file.metadata["c"][0][0]] == [fake] * 4
        (part,) = spec_reader.read(path).parts
        assert file.metadata[checksums.HEADER] == part.text(checksums.HEADER) == spec_reader.digests(part)[1]
    alone = tmp_path / "alone.gguf"
    with GgufWriter(alone, {"a": fake, "z": fake}, []):
        pass
    edited = edit(alone, tmp_path / "edited.gguf", Changes({"n": Typed("u32", 1)}))
    with ggblock.open(edited.path) as file:
        assert dict(file.metadata) == {"a": fake, "z": fake, "n": 1}


def test_a_header_without_room_is_left_alone() -> None:
    assert checksums.seal(b"GGUF", []) == b"GGUF" and checksums.digits_at(b"GGUF") is None
    with pytest.raises(ValueError, match="no ggblock"):
        checksums.header_digest(b"GGUF", [])
