"""Damage of every kind is found and named."""
from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

import ggblock
from ggblock import blocks, errors
from ggblock.format import GgufWriter, TensorSpec, header
from ggblock.format.mapped import Mapped
from ggblock.format.metadata import Typed
from ggblock.inspect.verify import verify
from tests.inspect import crafted, damage

SMALL = [
    ("token_embd.weight", "q8_0", (64, 64)), ("blk.0.attn_norm.weight", "f32", (63,)), ("a.weight", "q4_k", (3, 256)),
    ("b.weight", "iq4_nl", (5, 96)), ("output_norm.weight", "f32", (64,)),
]
SMALL_METADATA = {
    "general.architecture": "llama", "general.name": "small", "llama.embedding_length": 64,
    "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": [f"token {i}" for i in range(64)],
    "tokenizer.ggml.scores": [0.5] * 64, "flag": True, "general.alignment": 64,
}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small file with checksums, and with padding after nearly every tensor."""
    path = crafted.write(tmp_path_factory.mktemp("sealed") / "m.gguf", SMALL_METADATA, SMALL, checksums=True)
    return path.read_bytes()


def test_a_whole_file(sealed: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(sealed)
    verdict = verify(tmp_path / "m.gguf")
    assert verdict.is_whole and verdict.faults == () and verdict.has_checksums
    assert verdict.checks == ("structure", "checksums", "values", "metadata against tensors")


def test_a_thousand_random_bit_flips_are_all_found_and_named(sealed: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(sealed)
    for bit in damage.random_bits(0, len(sealed), 1000, seed=5):
        damage.assert_found_and_named(path, bit)
    assert path.read_bytes() == sealed and verify(path).faults == ()


def test_a_thousand_bit_flips_in_the_header_are_all_found(sealed: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(sealed)
    base, _ = damage.regions(path)
    unnoticed = [bit for bit in damage.random_bits(0, base, 1000, seed=6) if damage.flipped(path, bit).is_whole]
    assert unnoticed == []


def test_every_bit_of_the_checksum_keys_counts(sealed: bytes, tmp_path: Path) -> None:
    """Also those that turn a key into another one."""
    at = sealed.index(b"ggblock.header.sha256")
    path = tmp_path / "m.gguf"
    path.write_bytes(sealed)
    unnoticed = [bit for bit in range(8 * (at - 8), 8 * (at + 33)) if damage.flipped(path, bit).is_whole]
    assert unnoticed == []


@pytest.mark.parametrize("cut", [10, 100, -1, -40, -4000])
def test_a_truncated_file_is_one_named_fault(cut: int, sealed: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(sealed[:cut])
    verdict = verify(tmp_path / "m.gguf")
    assert not verdict.is_whole and verdict.faults[0].code in ("structure", "checksum")


def test_added_bytes_are_found(sealed: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(sealed + bytes(3))
    assert [fault.where for fault in verify(tmp_path / "m.gguf").faults] == ["header"]


def test_missing_files_raise(tmp_path: Path) -> None:
    with pytest.raises(errors.CannotRead):
        verify(tmp_path / "none.gguf")


def test_split_files_carry_checksums_a_part(tmp_path: Path) -> None:
    for number in range(2):
        metadata = {"split.no": number, "split.count": 2, "split.tensors.count": 2}
        crafted.write(tmp_path / f"m-{number + 1:05d}-of-00002.gguf", metadata, SMALL[2 + number : 3 + number],
                      checksums=True)  # fmt: skip
    first, second = sorted(tmp_path.iterdir())
    assert verify(first).is_whole
    data = bytearray(second.read_bytes())
    data[-70] ^= 1
    second.write_bytes(data)
    (fault,) = [fault for fault in verify(first).faults if fault.code == "checksum"]
    assert (fault.where, fault.path) == ("b.weight", str(second))


@pytest.mark.parametrize(("file_type", "whole"), [(7, True), (1, False)])
def test_checksums_that_another_program_copied(tmp_path: Path, file_type: int, whole: bool) -> None:
    """llama.cpp's quantizer copies keys that it does not know into the file that it makes."""
    keys = {"general.architecture": "llama", "ggblock.recipe": "f16", "general.file_type": 1}
    shapes = [(f"blk.{i}.w.weight", (4, 64)) for i in range(6)]
    numbers = np.random.default_rng(1).standard_normal((6, 4, 64)).astype(np.float32)

    def write(name: str, values: dict[str, object], kind: str, n: int, checksums: bool) -> Path:
        specs = [TensorSpec(tensor, kind, shape) for tensor, shape in shapes[:n]]
        with GgufWriter(tmp_path / name, values, specs, checksums=checksums) as writer:
            for spec, data in zip(specs, numbers, strict=False):
                writer.write(spec.name, data)
        return tmp_path / name

    first = write("first.gguf", keys, "f16", 6, True)
    assert verify(first).is_whole
    verdicts = []
    for name, n in (("second.gguf", 6), ("third.gguf", 4)):
        with ggblock.open(first) as file:
            values = {**file.metadata.typed_items(), "general.file_type": Typed("u32", file_type)}
            path = write(name, values, "q8_0", n, False)
        raw = bytearray(path.read_bytes())
        at = raw.index(b"ggblock.header.sha256") + 33
        raw[at : at + 64] = b"ab" * 32          # our writer fills in the true one, others copy
        path.write_bytes(raw)
        verdicts.append(verify(path))
    for verdict, text in zip(verdicts, ("6 of 6 tensors differ", "the number of tensors differs"), strict=True):
        (fault,) = verdict.faults
        assert verdict.is_whole is whole and fault.warning is whole and "of another file" in fault.message
        assert text in fault.message


# ---- values ---------------------------------------------------------------------------------------------------

def file_of(path: Path, name: str, data: np.ndarray) -> Path:
    block = blocks.by_name(name)
    with GgufWriter(path, {}, [TensorSpec("w", name, (len(data), block.block_size))]) as writer:
        writer.write("w", data)
    return path


@pytest.mark.parametrize("name", [n for n, b in blocks.REGISTRY.items() if b.encode is not None])
def test_what_an_encoder_writes_has_no_bad_blocks(name: str, tmp_path: Path) -> None:
    block = blocks.by_name(name)
    assert block.encode is not None
    data = block.encode(crafted.weights(name, (50, block.block_size)))
    assert verify(file_of(tmp_path / "m.gguf", name, data)).faults == ()


@pytest.mark.parametrize("name", [n for n in blocks.REGISTRY if n[0] != "i" or n.startswith("iq")])
def test_values_that_are_not_finite_are_named(name: str, tmp_path: Path) -> None:
    """Every random block whose weights are not all finite is found, and no other is called so."""
    block = blocks.by_name(name)
    data = np.random.default_rng(8).integers(0, 256, (600, block.block_bytes), dtype=np.uint8)
    weights = block.decode(data)
    bad = np.flatnonzero(~np.isfinite(weights).all(axis=1))
    if name == "f64":  # finite as stored, too large for float32
        bad = np.flatnonzero(~np.isfinite(data.view("<f8")[:, 0]))
    verdict = verify(file_of(tmp_path / "m.gguf", name, data))
    faults = [fault for fault in verdict.faults if fault.code in ("non_finite", "overflow")]
    if not len(bad):
        assert faults == [] or name == "q8_1"
        return
    fault = min(faults, key=lambda each: each.start or 0)
    with ggblock.open(tmp_path / "m.gguf") as file:
        start = file.tensors["w"].offset_bytes
    assert fault.where == "w" and fault.start is not None
    if name not in ("q8_1", "q2_k", "q4_1", "q5_1", "q4_k", "q5_k", "q6_k", "q3_k", "iq4_xs"):
        assert fault.start == start + int(bad[0]) * block.block_bytes
        assert sum(int(each.message.rpartition("(")[2].split()[0]) for each in faults) == len(bad)
    else:  # a NaN times a scale of zero, or a field that decoding does not use
        assert fault.start <= start + int(bad[0]) * block.block_bytes


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tq1_0", lambda b: b.__setitem__((3, 5), 1)), ("tq2_0", lambda b: b.__setitem__((3, 5), 0xFF)),
        ("mxfp4", lambda b: b.__setitem__((3, 0), 255)), ("nvfp4", lambda b: b.__setitem__((3, 2), 127)),
        ("q8_k", lambda b: b.__setitem__((3, 270), b[3, 270] ^ 1)),
    ],
)
def test_impossible_codes_are_named(name: str, change: object, tmp_path: Path) -> None:
    block = blocks.by_name(name)
    weights = crafted.weights(name, (6, block.block_size))
    data = block.encode(weights) if block.encode is not None else np.zeros((6, block.block_bytes), np.uint8)
    assert callable(change)
    assert verify(file_of(tmp_path / "m.gguf", name, data)).faults == ()
    change(data)
    (fault,) = verify(file_of(tmp_path / "m.gguf", name, data)).faults
    with ggblock.open(tmp_path / "m.gguf") as file:
        start = file.tensors["w"].offset_bytes + 3 * block.block_bytes
    assert (fault.code, fault.start, fault.end) == ("impossible_code", start, start + block.block_bytes)


def test_padding_without_checksums_is_a_warning(tmp_path: Path) -> None:
    path = crafted.write(tmp_path / "m.gguf", {}, SMALL[1:3])
    data = bytearray(path.read_bytes())
    with Mapped(path) as mapped:
        end = header.parse(mapped).end
    data[end] = 1
    path.write_bytes(data)
    (fault,) = verify(path).faults
    assert fault.warning and fault.start == end and verify(path).is_whole


def test_contradictions_are_faults(tmp_path: Path) -> None:
    path = crafted.write(tmp_path / "m.gguf", {**SMALL_METADATA, "llama.embedding_length": 63}, SMALL)
    assert [(f.code, f.where) for f in verify(path).faults] == [("contradiction", "llama.embedding_length")]


# ---- hashes from outside --------------------------------------------------------------------------------------

@pytest.mark.parametrize(
    "line", ["{hash}  m.gguf", "{hash} *m.gguf", "{hash}", "SHA256 (m.gguf) = {hash}", "# note\n{hash}  /else/m.gguf\n"]
)
def test_sha256_files(line: str, sealed: bytes, tmp_path: Path) -> None:
    path, sums = tmp_path / "m.gguf", tmp_path / "m.gguf.sha256"
    path.write_bytes(sealed)
    sums.write_text(line.format(hash=hashlib.sha256(sealed).hexdigest()))
    assert verify(path, sums).is_whole
    sums.write_text(line.format(hash=hashlib.sha256(b"other").hexdigest()))
    (fault,) = verify(path, sums).faults
    assert (fault.code, fault.where, fault.start, fault.end) == ("against", "m.gguf", 0, len(sealed))


def test_a_fault_in_the_header_is_where_the_reader_says(sealed: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(sealed[:8] + struct.pack("<Q", 1 << 60) + sealed[16:])
    (fault,) = verify(tmp_path / "m.gguf").faults
    assert (fault.code, fault.start) == ("structure", 8)
