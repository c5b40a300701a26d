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
from tools import spec_reader

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
