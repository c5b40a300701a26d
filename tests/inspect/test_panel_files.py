"""Whole files in panels: facts, checks, differences and edits."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ggblock
from ggblock import errors
from ggblock.format import GgufWriter, TensorSpec, Typed, checksums, ggb
from ggblock.inspect import overview, page
from ggblock.inspect.diff import diff, difference_document
from ggblock.inspect.edit import Changes, edit
from ggblock.inspect.verify import verdict_document, verify
from tests.inspect import crafted, damage, schemas

TENSORS = [
    ("token_embd.weight", "q8_0", (37, 64)), ("norm.weight", "f32", (63,)), ("a.weight", "q4_k", (19, 256)),
    ("b.weight", "f16", (5, 11)), ("c.weight", "iq4_nl", (16, 96)),
]
KEYS: dict[str, object] = {"general.architecture": "llama", "general.name": "tiny"}
MARKS: dict[str, object] = {ggb.VERSION: ggb.WRITE_VERSION, "general.alignment": ggb.ALIGNMENT}


def write(path: Path, interleaved: bool = True) -> Path:
    metadata = {**KEYS, **(MARKS if interleaved else {})}
    specs = [TensorSpec(name, kind, shape, interleaved and len(shape) > 1) for name, kind, shape in TENSORS]
    with GgufWriter(path, metadata, specs, checksums=True) as writer:  # type: ignore[arg-type]
        for name, _, shape in TENSORS:
            writer.write(name, crafted.weights(name, shape))
    return path


def test_the_facts(tmp_path: Path) -> None:
    with ggblock.open(write(tmp_path / "m.ggb")) as file:
        facts = overview.overview(file)
        orders = [overview.tensor_document(t)["order"] for t in file.tensors.values()]
    assert (facts.profile, facts.n_panels, facts.has_checksums) == ("GGB", 4, True)
    assert orders == ["panels", "rows", "panels", "panels", "panels"]
    codes = {note.code for note in facts.notes}
    assert "panel_filling" in codes and "alignment" not in codes
    with ggblock.open(write(tmp_path / "m.gguf", False)) as file:
        facts = overview.overview(file)
    assert (facts.profile, facts.n_panels) == ("GGUF", 0)


def test_a_thousand_random_bit_flips_are_all_found_and_named(tmp_path: Path) -> None:
    path = write(tmp_path / "m.ggb")
    verdict = verify(path)
    assert verdict.faults == () and verdict.has_checksums
    for bit in damage.random_bits(0, path.stat().st_size, 1000, seed=3):
        damage.assert_found_and_named(path, bit)
    assert verify(path).faults == ()


def test_damage_is_reported_as_documented(tmp_path: Path) -> None:
    path = write(tmp_path / "m.ggb")
    base, _ = damage.regions(path)
    for bit in damage.random_bits(base, path.stat().st_size, 5, seed=4):
        schemas.check(verdict_document(damage.flipped(path, bit)), "verify")


def test_a_bad_scale_is_named_where_it_lies(tmp_path: Path) -> None:
    """A scale of infinity in row 18, block 1: the second panel of its tensor."""
    path = write(tmp_path / "m.ggb")
    data = bytearray(path.read_bytes())
    with ggblock.open(path) as file:
        tensor = file.tensors["token_embd.weight"]
        at = tensor.offset_bytes + 16 * 68 + 16 * 34 + 2 * 2  # panel 1, block column 1, scale of row 2 in it
    data[at : at + 2] = b"\x00\x7c"
    path.write_bytes(data)
    fault = next(fault for fault in verify(path).faults if fault.code == "non_finite")
    assert fault.where == "token_embd.weight" and fault.start == at and "row 18 block 1" in fault.message


def test_what_fills_a_panel_is_zero(tmp_path: Path) -> None:
    path = write(tmp_path / "m.ggb")
    data = bytearray(path.read_bytes())
    with ggblock.open(path) as file:
        tensor = file.tensors["b.weight"]
        at = tensor.offset_bytes + 2 * 15  # column 0 of row 15, of which there are 5
    data[at] = 1
    path.write_bytes(data)
    assert ("padding", "b.weight", tensor.offset_bytes) in [(f.code, f.where, f.start) for f in verify(path).faults]


@pytest.mark.parametrize("key", [ggb.VERSION, "general.alignment", checksums.TENSORS, checksums.HEADER])
def test_what_the_profile_requires(key: str, tmp_path: Path) -> None:
    """The key's last letter is another: the file lacks it."""
    path = write(tmp_path / "m.ggb")
    path.write_bytes(path.read_bytes().replace(key.encode(), key[:-1].encode() + b"_", 1))
    verdict = verify(path)
    assert [(fault.code, fault.where) for fault in verdict.faults] == [("structure", key)]
    schemas.check(verdict_document(verdict), "verify")


def test_both_profiles_of_a_model_are_the_same(tmp_path: Path) -> None:
    with ggblock.open(write(tmp_path / "m.gguf", False)) as a, ggblock.open(write(tmp_path / "m.ggb")) as b:
        for first, second in ((a, b), (b, a)):
            found = diff(first, second)
            schemas.check(difference_document(first, second, found), "diff")
            assert found.is_none and found.n_same == 5
            assert [each.change for each in found.tensors].count("order") == 4
            assert {each.key for each in found.keys} == {*MARKS, *checksums.KEYS}
            assert all(each.is_storage for each in found.keys)


def test_a_difference_across_profiles_is_found(tmp_path: Path) -> None:
    plain, path = write(tmp_path / "m.gguf", False), write(tmp_path / "m.ggb")
    data = bytearray(path.read_bytes())
    with ggblock.open(path) as file:
        data[file.tensors["token_embd.weight"].offset_bytes + 16 * 68 + 32 + 4 * 3] ^= 64  # row 19, block 0, code 0
    path.write_bytes(data)
    with ggblock.open(plain) as a, ggblock.open(path) as b:
        found = diff(a, b)
    (change,) = [each for each in found.tensors if each.change == "data"]
    assert (change.name, change.n_blocks, change.first_block) == ("token_embd.weight", 1, 19 * 2)
    assert not found.is_none


@pytest.mark.parametrize("in_place", [False, True])
def test_edits_keep_panels_and_checksums(in_place: bool, tmp_path: Path) -> None:
    path = write(tmp_path / "m.ggb")
    with ggblock.open(path) as file:
        before = {t.name: t.dequantize() for t in file.tensors.values()}
        n_bytes = sum(t.n_bytes for t in file.tensors.values())
    out = None if in_place else tmp_path / "out.ggb"
    done = edit(path, out, Changes({"general.name": Typed("str", "x")}, (), {"a.weight": "z.weight"}))
    assert done.tensor_bytes == n_bytes and verify(done.path).faults == ()
    with ggblock.open(done.path) as file:
        assert file.metadata["general.name"] == "x" and file.tensors["z.weight"].in_panels
        for name, weights in before.items():
            np.testing.assert_array_equal(file.tensors[name.replace("a.w", "z.w")].dequantize(), weights)
    sealed = edit(done.path, tmp_path / "again.ggb", Changes({}, seal=True))
    assert verify(sealed.path).faults == ()


@pytest.mark.parametrize("key", [ggb.VERSION, "general.alignment", checksums.TENSORS, checksums.HEADER])
def test_edits_leave_what_the_profile_needs(key: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.ggb")
    with pytest.raises(errors.SettingError, match="the GGB profile needs"):
        edit(path, tmp_path / "out.ggb", Changes({}, [key]))
    assert not (tmp_path / "out.ggb").exists()


def test_an_edit_makes_no_ggb_file(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", False)
    with pytest.raises(errors.SettingError, match="only a conversion"):
        edit(path, tmp_path / "out.gguf", Changes({ggb.VERSION: Typed("u32", ggb.WRITE_VERSION)}))


def test_the_page_shows_scattered_blocks(tmp_path: Path) -> None:
    with ggblock.open(write(tmp_path / "m.ggb")) as file:
        html = page.build(file, file.tensors["a.weight"], block=0, row=17).decode()
    assert '"profile":"GGB","n_panels":4' in html and '"row":17' in html and '"order":"panels"' in html
