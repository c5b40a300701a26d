"""Execute spec/container.toml: tables against the code, valid vectors against the reader. Faults: tests/spec."""
from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

import ggblock
from ggblock import errors
from ggblock.format import encode, header, kinds, limits
from ggblock.format.mapped import Mapped

from . import craft

SPEC = craft.spec()


def _ids(vectors: list[dict[str, Any]]) -> list[str]:
    return [vector["name"] for vector in vectors]


def test_kinds_are_the_spec_s():
    table = [(kind["id"], kind["name"], kind["n_bytes"]) for kind in SPEC["kind"]]
    assert table == sorted((kind.id, kind.name, kind.n_bytes) for kind in kinds.KINDS)


def test_limits_are_the_spec_s():
    ours = {name: value for name, value in vars(limits).items() if name.isupper() and isinstance(value, int)}
    del ours["WRITE_VERSION"]
    assert ours == SPEC["limits"]
    assert limits.MAGIC.decode() == SPEC["header"]["magic"]
    assert list(limits.VERSIONS) == SPEC["header"]["versions"]
    assert limits.WRITE_VERSION == SPEC["header"]["write_version"]


_SIZES = {"u32": 4, "u64": 8}


def test_header_order_and_sizes_are_the_spec_s(tmp_path: Path):
    """The writer's bytes, taken apart by the spec's field lists alone."""
    record = header.TensorRecord("w", (7, 5), 0, 96, 0)
    raw = encode.header({"k": "v"}, [record])
    fields: dict[str, int] = {}
    pos = 0

    def take(items: list[str]) -> None:
        nonlocal pos
        for item in items:
            name, kind, *times = item.split()
            if kind == "str":
                n_bytes = struct.unpack_from("<Q", raw, pos)[0] + 8
            elif kind in _SIZES:
                n_bytes = _SIZES[kind] * (fields[times[1]] if times else 1)
            else:
                n_bytes = int(kind)
            fields[name] = int.from_bytes(raw[pos : pos + n_bytes], "little")
            pos += n_bytes

    take(SPEC["header"]["fields"])
    assert (fields["version"], fields["n_tensors"], fields["n_keys"]) == (3, 1, 1)
    take(SPEC["header"]["key"][:2])
    assert fields["kind"] == 8
    take(["value str"])
    take(SPEC["header"]["tensor"])
    assert fields["ne"] == 7 + (5 << 64) and fields["type"] == 0 and fields["offset"] == 96
    assert pos == len(raw)


@pytest.mark.parametrize("vector", SPEC["valid"], ids=_ids(SPEC["valid"]))
def test_valid_vectors_open(vector: dict[str, Any], tmp_path: Path):
    path = tmp_path / "v.gguf"
    path.write_bytes(craft.assemble(vector["parts"], vector.get("big", False)))
    expect = vector["expect"]
    with ggblock.open(path) as file:
        assert file.version == expect["version"] and file.byte_order == expect["byte_order"]
        for name, value in expect.get("metadata", {}).items():
            assert file.metadata[name] == value
            assert type(file.metadata[name]) is type(value) or isinstance(value, list)
        assert {name: t.dequantize().tolist() for name, t in file.tensors.items()} == expect.get("tensors", {})


@pytest.mark.parametrize("vector", SPEC["valid"], ids=_ids(SPEC["valid"]))
def test_every_shorter_file_is_refused_or_whole(vector: dict[str, Any], tmp_path: Path):
    """Cut a valid file at every byte: a named error, except where only padding behind the last tensor is lost."""
    raw = craft.assemble(vector["parts"], vector.get("big", False))
    path = tmp_path / "v.gguf"
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(errors.FormatError):
            header_and_tensors(path)


def header_and_tensors(path: Path) -> None:
    with ggblock.open(path) as file:
        for tensor in file.tensors.values():
            tensor.dequantize()


def test_parse_leaves_the_mapping_closable(tmp_path: Path):
    path = tmp_path / "v.gguf"
    path.write_bytes(craft.assemble(SPEC["valid"][2]["parts"]))
    mapped = Mapped(path)
    header.parse(mapped)
    data = mapped.data
    mapped.close()
    with pytest.raises(ValueError):
        data[0]
