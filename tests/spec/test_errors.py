"""spec/errors.toml: every rule has its vectors, every vector its rule, and the package raises exactly these errors."""
from __future__ import annotations

import ast
import hashlib
from collections import Counter
from pathlib import Path

import pytest

import ggblock
from ggblock import errors
from tests.spec.vectors import FAULTS, VALID, VECTORS, Vector
from tools import spec_pages, spec_reader

RULES = spec_pages.read_toml("errors")["rule"]
#: Modules that only read; the writer's and the user's errors are not the reader's.
READING = ("ggb", "header", "mapped", "reader", "splits", "strings", "validate")


def names(vectors: list[Vector]) -> list[str]:
    return [vector.name for vector in vectors]


def test_every_vector_has_a_name_of_its_own() -> None:
    assert max(Counter(names(VECTORS)).values()) == 1


def test_every_vector_shows_one_rule_and_every_rule_has_a_vector() -> None:
    shown = Counter(name for rule in RULES for name in rule["vectors"])
    assert set(shown) == set(names(FAULTS)) and max(shown.values()) == 1
    error_of = {name: rule["error"] for rule in RULES for name in rule["vectors"]}
    assert error_of == {vector.name: vector.error for vector in FAULTS}
    without = {(rule["error"], rule["stage"]) for rule in RULES if not rule["vectors"]}
    assert without == {("CannotRead", "file"), ("NotGguf", "file")}  # below: these are no bytes


def test_the_errors_are_those_of_the_package() -> None:
    for rule in RULES:
        kind = getattr(errors, rule["error"])
        assert kind.__bases__ == (getattr(errors, rule["parent"]),), rule
    stages = [stage["name"] for stage in spec_pages.read_toml("errors")["stages"]]
    assert {rule["stage"] for rule in RULES} == set(stages)


def test_the_package_raises_no_other_errors_while_reading() -> None:
    folder, raised = Path(ggblock.__file__).parent / "format", set()
    for module in READING:
        for node in ast.walk(ast.parse((folder / f"{module}.py").read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if isinstance(node.func.value, ast.Name) and node.func.value.id == "errors":
                    raised.add(node.func.attr)
    raised.add("RemovedType")  # blocks.by_id
    assert raised == {rule["error"] for rule in RULES}


@pytest.mark.parametrize("vector", VECTORS, ids=names(VECTORS))
def test_vectors_have_not_changed(vector: Vector) -> None:
    assert {name: hashlib.sha256(raw).hexdigest() for name, raw in vector.files.items()} == vector.hashes


@pytest.mark.parametrize("vector", FAULTS, ids=names(FAULTS))
def test_the_package_names_the_fault(vector: Vector, tmp_path: Path) -> None:
    path = vector.write(tmp_path)
    with pytest.raises(errors.GgblockError) as caught:
        ggblock.open(path)
    fault = caught.value
    assert type(fault).__name__ == vector.error
    assert fault.file is not None and Path(fault.file).parent == tmp_path and "\n" not in str(fault)
    assert fault.expected is not None or fault.actual is not None or "same" in fault.message or "must" in fault.message
    if vector.where:
        assert fault.where == vector.where
    if vector.offset_bytes is not None:
        assert fault.offset_bytes == vector.offset_bytes


@pytest.mark.parametrize("vector", FAULTS, ids=names(FAULTS))
def test_the_reader_by_the_specification_alone_finds_it(vector: Vector, tmp_path: Path) -> None:
    with pytest.raises(spec_reader.Refused) as caught:
        spec_reader.read(vector.write(tmp_path))
    assert caught.value.error == vector.error
    if vector.where:
        assert caught.value.where == vector.where
    if vector.offset_bytes is not None:
        assert caught.value.at == vector.offset_bytes


@pytest.mark.parametrize("vector", VALID, ids=names(VALID))
def test_both_open_what_is_valid(vector: Vector, tmp_path: Path) -> None:
    path = vector.write(tmp_path)
    read = spec_reader.read(path)
    with ggblock.open(path) as file:
        assert set(read.values) == set(file.metadata)
        assert {name: file.metadata.kind(name) for name in file.metadata} == {k: v.kind for k, v in read.values.items()}
        expected = vector.expect.get("tensors", {})
        assert {name: t.dequantize().tolist() for name, t in file.tensors.items()} == expected
        assert {name: t.weights().tolist() for name, t in read.tensors.items()} == expected
        for key, value in vector.expect.get("metadata", {}).items():
            assert file.metadata[key] == value


def test_what_is_no_file_of_bytes(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    for path, error in ((tmp_path / "none", errors.CannotRead), (tmp_path, errors.NotGguf),
                        (tmp_path / "empty", errors.NotGguf), (Path("/dev/null"), errors.NotGguf)):  # fmt: skip
        with pytest.raises(error):
            ggblock.open(path)
