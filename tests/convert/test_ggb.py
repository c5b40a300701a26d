"""The GGB profile: panels and back to the bit for every type and odd shapes; what is refused."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import ggblock
from ggblock import blocks, errors
from ggblock.cli.main import main
from ggblock.convert import Options, execute, make_plan, open_source
from ggblock.format import GgufWriter, TensorSpec, Typed, checksums, ggb, header, panels
from ggblock.format.mapped import Mapped
from ggblock.inspect.verify import verify

from . import checkpoints as ck


def convert(
    source: Path, target: Path, kind: str | None = None, split_bytes: int = 0, keep: bool = False
) -> list[Path]:
    options = Options(type=kind, allow_nonfinite=True, split_bytes=split_bytes, keep_split=keep)
    with open_source(source) as opened:
        return [Path(path) for path in execute(make_plan(opened, str(target), options)).plan.paths]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_to_panels_and_back_loses_nothing(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("ggb")
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    specs, contents = [], []
    for i in range(data.draw(st.integers(0, 4))):
        block = blocks.by_name(data.draw(st.sampled_from(sorted(blocks.REGISTRY))))
        shape = tuple(data.draw(st.lists(st.integers(1, 37), max_size=2) | st.tuples(*[st.integers(1, 5)] * 3)))
        shape = (*shape, block.block_size * data.draw(st.integers(1, 3)))
        specs.append(TensorSpec(f"t{i}", block, shape))
        n_bytes = int(np.prod(shape)) // block.block_size * block.block_bytes
        contents.append(rng.integers(0, 256, n_bytes, np.uint8))
    stated = data.draw(st.sampled_from([{}, {"general.alignment": 32}, {"general.alignment": 128}]))
    keys = {"general.architecture": "x", **stated, "last": "y"}
    with GgufWriter(folder / "a.gguf", keys, specs, checksums=True) as writer:
        for spec, raw in zip(specs, contents, strict=True):
            writer.write(spec.name, raw)
    convert(folder / "a.gguf", folder / "b.ggb")
    convert(folder / "b.ggb", folder / "c.gguf")
    a, b, c = (ggblock.open(folder / name) for name in ("a.gguf", "b.ggb", "c.gguf"))
    with a, b, c:
        assert list(a.tensors) == list(b.tensors) == list(c.tensors)
        for name, tensor in a.tensors.items():
            assert np.array_equal(tensor.raw, b.tensors[name].raw) and np.array_equal(tensor.raw, c.tensors[name].raw)
            middle = tensor.n_rows // 2
            assert np.array_equal(tensor.raw[middle:], b.tensors[name].raw_rows(middle, tensor.n_rows))
            assert b.tensors[name].in_panels == (len(tensor.shape) > 1 and tensor.type.name in panels.UNITS)
    assert (folder / "a.gguf").read_bytes() == (folder / "c.gguf").read_bytes()
    convert(folder / "c.gguf", folder / "d.ggb")
    assert (folder / "b.ggb").read_bytes() == (folder / "d.ggb").read_bytes()


@pytest.mark.parametrize("name", sorted(blocks.REGISTRY))
def test_every_type_and_shape_goes_there_and_back(tmp_path: Path, name: str) -> None:
    """One dimension to four; less than a panel, one, one and a bit, and matrices that share a panel."""
    block, n_bytes = blocks.by_name(name), 0
    leads = [(), (1,), (15,), (16,), (17,), (3, 7), (1, 1, 33), (2, 3, 5)]
    specs = [TensorSpec(f"t{i}", name, (*lead, block.block_size * (1 + i % 3))) for i, lead in enumerate(leads)]
    rng = np.random.default_rng(len(name))
    with GgufWriter(tmp_path / "a.gguf", {"general.alignment": 32}, specs, checksums=True) as writer:
        for spec in specs:
            n_bytes = int(np.prod(spec.shape)) // block.block_size * block.block_bytes
            writer.write(spec.name, rng.integers(0, 256, n_bytes, np.uint8))
    convert(tmp_path / "a.gguf", tmp_path / "b.ggb")
    convert(tmp_path / "b.ggb", tmp_path / "c.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "c.gguf").read_bytes()
    assert verify(tmp_path / "b.ggb", values=False).faults == ()


def test_a_big_endian_file_becomes_little_endian_in_panels(tmp_path: Path) -> None:
    """Its numbers are turned around on the way; panels themselves are never big-endian (spec/panels.toml's vectors)."""
    source = Path(__file__).parents[2] / "spec" / "files" / "big-endian.gguf"
    convert(source, tmp_path / "b.ggb")
    convert(tmp_path / "b.ggb", tmp_path / "c.gguf")
    with ggblock.open(source) as a, ggblock.open(tmp_path / "b.ggb") as b, ggblock.open(tmp_path / "c.gguf") as c:
        assert (a.byte_order, b.byte_order, c.byte_order) == ("big", "little", "little")
        for name, tensor in a.tensors.items():
            assert np.array_equal(tensor.raw, b.tensors[name].raw) and np.array_equal(tensor.raw, c.tensors[name].raw)


def test_a_ggb_file_from_a_checkpoint(tmp_path: Path) -> None:
    ck.make(tmp_path / "m", ck.llama_config())
    convert(tmp_path / "m", tmp_path / "m.gguf", "q8_0")
    convert(tmp_path / "m", tmp_path / "m.ggb", "q8_0")
    with ggblock.open(tmp_path / "m.gguf") as a, ggblock.open(tmp_path / "m.ggb") as b:
        for name, tensor in a.tensors.items():
            other = b.tensors[name]
            assert np.array_equal(tensor.raw, other.raw)
            if other.in_panels:
                assert other.offset_bytes % 64 == 0
                assert np.array_equal(other.panels, panels.to_panels(tensor.raw, tensor.type.name))
                rows = np.array([3, 0, 3, tensor.n_rows - 1])
                assert np.array_equal(other.gather(rows), tensor.raw[rows])
        assert b.metadata["ggblock.ggb.version"] == 2
        assert sum(t.in_panels for t in b.tensors.values()) == 15


def test_other_readers_refuse_it(tmp_path: Path) -> None:
    import gguf

    ck.make(tmp_path / "m", ck.llama_config())
    convert(tmp_path / "m", tmp_path / "m.ggb", "q8_0")
    with pytest.raises(ValueError):
        gguf.GGUFReader(tmp_path / "m.ggb")
    known = set(gguf.GGMLQuantizationType)
    assert not known & {panels.type_id(block.ggml_id) for block in blocks.REGISTRY.values()}


def test_faults(tmp_path: Path) -> None:
    spec = TensorSpec("w", "q8_0", (20, 64), in_panels=True)
    raw = np.zeros((20, 68), np.uint8)
    with GgufWriter(tmp_path / "x.ggb", {}, [spec]) as writer:
        writer.write("w", raw)
    assert verify(tmp_path / "x.ggb").is_whole, "with checksums, though nobody asked for them"
    for key in checksums.KEYS:
        data = (tmp_path / "x.ggb").read_bytes()
        (tmp_path / "w.ggb").write_bytes(data.replace(key.encode(), b"x" * len(key)))
        with pytest.raises(errors.MissingKey, match="must have checksums"):
            ggblock.open(tmp_path / "w.ggb")
    with pytest.raises(errors.UnknownType, match="no panels"):
        GgufWriter(tmp_path / "y.ggb", {}, [TensorSpec("w", "iq1_s", (2, 256), in_panels=True)])
    with pytest.raises(errors.ShapeMismatch, match="16 at a time"):
        with GgufWriter(tmp_path / "y.ggb", {}, [spec], checksums=True) as writer:
            writer.write_rows("w", raw[:3])
            writer.write_rows("w", raw[3:])
    with GgufWriter(tmp_path / "z.ggb", {}, [spec], checksums=True) as writer:
        writer.write("w", raw)
    whole = (tmp_path / "z.ggb").read_bytes()
    at = whole.index((panels.FIRST_ID + 8).to_bytes(4, "little"))
    for number in (panels.FIRST_ID + 16, panels.FIRST_ID + 999):
        (tmp_path / "w.ggb").write_bytes(whole[:at] + number.to_bytes(4, "little") + whole[at + 4 :])
        with pytest.raises((errors.UnknownType, errors.BadShape)):
            ggblock.open(tmp_path / "w.ggb")
    (tmp_path / "w.ggb").write_bytes(whole[:-64])
    with pytest.raises(errors.TensorOutOfFile):
        ggblock.open(tmp_path / "w.ggb")


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "f16"])
def test_a_ggb_file_runs_as_it_lies(tmp_path: Path, kind: str) -> None:
    from ggblock.models import build

    config = ck.llama_config(tie_word_embeddings=False)
    ck.make(tmp_path / "m", config)
    logits = []
    convert(tmp_path / "m", tmp_path / "m.gguf", kind)
    convert(tmp_path / "m.gguf", tmp_path / "m.ggb")
    for target in ("m.gguf", "m.ggb"):
        with ggblock.open(tmp_path / target) as file:
            model = build(file, threads=1)
            logits.append(model.forward([5, 9, 200, 3, 9], 0, all_logits=True))
            model.close()
    assert np.array_equal(*logits) and float(np.std(logits[0])) > 0


def test_a_split_ggb_file_runs_as_it_lies(tmp_path: Path) -> None:
    from ggblock.models import build

    ck.make(tmp_path / "m", ck.llama_config(tie_word_embeddings=False))
    whole = convert(tmp_path / "m", tmp_path / "m.ggb", "q8_0")
    parts = convert(tmp_path / "m", tmp_path / "parts.ggb", "q8_0", split_bytes=30_000)
    assert len(parts) > 2
    logits = []
    for path in (whole[0], parts[1]):
        with ggblock.open(path) as file:
            model = build(file, threads=1)
            logits.append(model.forward([5, 9, 200, 3, 9], 0, all_logits=True))
            model.close()
    assert np.array_equal(*logits)


@pytest.mark.parametrize(("version", "way"), [(1, "convert it again"), (3, "a newer ggblock may read it")])
def test_another_version_is_refused_in_one_line(tmp_path: Path, version: int, way: str) -> None:
    spec = TensorSpec("w", "q8_0", (16, 32), in_panels=True)
    marks = {"ggblock.ggb.version": Typed("u32", version)}
    with GgufWriter(tmp_path / "x.ggb", marks, [spec], checksums=True) as writer:
        writer.write("w", np.zeros((16, 34), np.uint8))
    with pytest.raises(errors.UnsupportedVersion, match=f"expected 2; found {version}") as caught:
        ggblock.open(tmp_path / "x.ggb")
    assert way in str(caught.value) and caught.value.where == ggb.VERSION
    for command in (["dump", str(tmp_path / "x.ggb")], ["convert", str(tmp_path / "x.ggb"), str(tmp_path / "y.ggb")]):
        result = CliRunner().invoke(main, command)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1) and way in result.stderr
    assert not (tmp_path / "y.ggb").exists()


def split_ggb(folder: Path) -> list[Path]:
    """A split GGB file: a part with tensors in panels, one with both kinds, one with a plain tensor alone."""
    specs = [TensorSpec("a", "q8_0", (17, 64)), TensorSpec("b", "f32", (5,)), TensorSpec("c", "q4_k", (3, 256)),
             TensorSpec("d", "f32", (3000,))]  # fmt: skip
    with GgufWriter(folder / "m.gguf", {"general.architecture": "x"}, specs, checksums=True) as writer:
        for i, spec in enumerate(specs):
            writer.write(spec.name, np.random.default_rng(i).normal(size=spec.shape).astype(np.float32))
    return convert(folder / "m.gguf", folder / "m.ggb", split_bytes=4000)


def test_each_part_of_a_split_file_is_a_ggb_file(tmp_path: Path) -> None:
    paths = split_ggb(tmp_path)
    assert [path.name for path in paths] == [f"m-0000{i}-of-00003.ggb" for i in (1, 2, 3)]
    n_tensors = 0
    for path in paths:
        with Mapped(path) as mapped:
            head = header.parse(mapped)
            marks = {key: head.values[key] for key in (ggb.VERSION, "general.alignment")}
            assert marks == {ggb.VERSION: Typed("u32", 2), "general.alignment": Typed("u32", 64)}
            assert len(head.values[checksums.TENSORS].value) == len(head.records)  # type: ignore[arg-type]
            assert all(record.offset % 64 == 0 for record in head.records) and mapped.size % 64 == 0
            n_tensors += len(head.records)
    with ggblock.open(paths[1]) as whole, ggblock.open(tmp_path / "m.gguf") as plain:
        assert n_tensors == 4 and list(whole.tensors) == list("abcd") and whole.alignment == 64
        assert len({tensor.path for tensor in whole.tensors.values()}) == 3
        for name, tensor in plain.tensors.items():
            assert np.array_equal(tensor.raw, whole.tensors[name].raw)
            assert whole.tensors[name].offset_bytes % 64 == 0
    assert verify(paths[0]).faults == ()
    data = bytearray(paths[2].read_bytes())
    data[-65] ^= 1
    paths[2].write_bytes(data)
    assert [(fault.code, fault.where, fault.path) for fault in verify(paths[0]).faults] == \
        [("checksum", "d", str(paths[2]))]


def test_a_split_file_and_back(tmp_path: Path) -> None:
    paths = split_ggb(tmp_path)
    (one,) = convert(paths[0], tmp_path / "back.gguf")
    assert one.read_bytes() == (tmp_path / "m.gguf").read_bytes()
    kept = convert(paths[2], tmp_path / "kept.gguf", keep=True)
    again = convert(kept[1], tmp_path / "m.ggb", keep=True)
    assert len(kept) == 3 and again == paths
    (joined,) = convert(again[0], tmp_path / "joined.gguf")
    assert joined.read_bytes() == one.read_bytes()


def test_parts_of_different_profiles_do_not_belong_together(tmp_path: Path) -> None:
    paths = split_ggb(tmp_path)
    parts = convert(paths[0], tmp_path / "m.gguf", keep=True)
    paths[2].write_bytes(parts[2].read_bytes())  # a plain tensor in a part without marks
    with pytest.raises(errors.SplitMismatch, match="different profiles") as caught:
        ggblock.open(paths[0])
    assert caught.value.file == str(paths[2]) and caught.value.where == ggb.VERSION


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("key", [ggb.VERSION, "general.alignment", checksums.TENSORS, checksums.HEADER])
def test_a_part_that_lacks_a_key_is_refused(tmp_path: Path, key: str, number: int) -> None:
    paths = split_ggb(tmp_path)
    data = paths[number].read_bytes()
    paths[number].write_bytes(data.replace(key.encode(), key[:-1].encode() + b"_"))
    with pytest.raises((errors.MissingKey, errors.BadAlignment, errors.SplitMismatch)) as caught:
        ggblock.open(paths[1])
    assert caught.value.where == key
