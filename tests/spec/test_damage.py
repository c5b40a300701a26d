"""Two readers written apart, the package and the one by the tables alone, agree about every damaged file."""
from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ggblock
from ggblock import errors
from tests.spec.vectors import FILES, VALID
from tools import gen_golden_files, spec_reader

EVIL = [0, 1, 2, 3, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 128, 255, 640, 0x47470000, 0x4747000C, 0x47480000, 1 << 31,
        (1 << 32) - 1, 1 << 32, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 64, (1 << 64) - 1]  # fmt: skip
#: Small files with one of everything; of longer ones the end of the header is what matters.
SOUND = [raw for vector in VALID if len(vector.files) == 1 for raw in vector.files.values()] + [
    (FILES / name).read_bytes() for name in ("aligned.gguf", "aligned.ggb", "empty.ggb")
]


def verdicts(path: Path) -> tuple[str, str]:
    """What the package and the other reader say: the name of an error, or all there is in the file."""
    try:
        with ggblock.open(path) as file:
            ours = str(sorted((t.name, t.type.name, t.ne, t.in_panels, t.raw.tobytes()) for t in file.tensors.values()))
            ours += str(list(file.metadata))
    except errors.GgblockError as fault:
        ours = type(fault).__name__
    try:
        read = spec_reader.read(path)
        theirs = str(sorted((t.name, t.type, t.ne, t.in_panels, t.rows.tobytes()) for t in read.tensors.values()))
        theirs += str(list(read.values))
    except spec_reader.Refused as refused:
        theirs = refused.error
    return ours, theirs


def agree(path: Path) -> None:
    ours, theirs = verdicts(path)
    if "SplitMismatch" in (ours, theirs):  # the one looks at split.count before the tensors' places, the other after
        assert len(ours) < 30 and len(theirs) < 30
    else:
        assert ours == theirs


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_files(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from(SOUND)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, len(raw) - 1)))
        how = data.draw(st.sampled_from(["byte", "u32", "u64", "cut", "remove", "insert", "swap"]))
        if how == "byte":
            raw[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
        elif how in ("u32", "u64"):
            n_bytes = int(how[1:]) // 8
            raw[at : at + n_bytes] = struct.pack("<Q", data.draw(st.sampled_from(EVIL)))[:n_bytes]
        elif how == "cut":
            del raw[at + 1 :]
        elif how == "remove":
            del raw[at : at + data.draw(st.integers(1, 16))]
        elif how == "insert":
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=16))
        else:
            raw[at : at + 8] = raw[at : at + 8][::-1]
    (tmp_path / "m.gguf").write_bytes(raw or b"\0")
    agree(tmp_path / "m.gguf")


@pytest.mark.parametrize("name", ["aligned.ggb", "aligned.gguf"])
@pytest.mark.parametrize("value", [0, (1 << 64) - 1, 0x47470002])
def test_every_number_of_a_header_replaced(name: str, value: int, tmp_path: Path) -> None:
    raw, path = (FILES / name).read_bytes(), tmp_path / "m.gguf"
    for at in range(0, len(raw) - 64, 3):
        path.write_bytes(raw[:at] + struct.pack("<Q", value) + raw[at + 8 :])
        agree(path)


IDS = [spec["id"] for spec in spec_reader.TYPES.values()]
SIZES = sorted({spec["block_size"] for spec in spec_reader.TYPES.values()})


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A file whose tensor table is made up: types, shapes and places that are nearly right, or not at all."""
    n_cols = st.sampled_from(SIZES).flatmap(lambda size: st.integers(1, 3).map(lambda n: n * size))
    n_cols |= st.integers(1, 20).map(lambda n: n * 16) | st.sampled_from([0, 1, 7, 1 << 33, (1 << 64) - 256])
    n_rows = st.integers(1, 40) | st.sampled_from([0, 1 << 20, 1 << 32, 1 << 58, (1 << 63) - 1])
    numbers = st.sampled_from(IDS) | st.sampled_from([4, 38, 43, 99, 1 << 31])
    is_ggb = draw(st.booleans())
    out = gen_golden_files.Writer(False)
    keys = [*gen_golden_files.marks(), ("ggblock.tensors.sha256", "str[]", []), ("ggblock.header.sha256", "str", "")]
    keys = keys if is_ggb else []
    n_tensors = draw(st.integers(1, 3))
    out.out += b"GGUF"
    for kind, value in (("u32", 3), ("u64", n_tensors), ("u64", len(keys))):
        out.number(kind, value)
    for key, kind, value in keys:
        out.text(key)
        out.number("u32", gen_golden_files.KIND_IDS["array" if kind == "str[]" else kind])
        out.value(kind, value)
    end, align = 0, 64 if is_ggb else 32
    for i in range(n_tensors):
        number = draw(numbers) + (0x47470000 if is_ggb and draw(st.integers(0, 3)) else 0)
        ne = [draw(n_cols), *draw(st.lists(n_rows, max_size=3))][draw(st.integers(0, 9)) == 0 :]
        offset = draw(st.sampled_from([end] * 6 + [end + align, max(0, end - align), end + 8, (1 << 64) - align]))
        out.text(f"t{i}")
        out.number("u32", len(ne))
        for n in ne:
            out.number("u64", n)
        out.number("u32", number & 0xFFFFFFFF)
        out.number("u64", offset)
        end += draw(st.integers(0, 200)) * align
    out.pad(align)
    size = draw(st.sampled_from([end, end + 64, end + 100_000]))
    return bytes(out.out) + bytes(range(256)) * (size // 256) + bytes(size % 256)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=tables())
def test_made_up_tensor_tables(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(raw)
    agree(tmp_path / "m.gguf")
