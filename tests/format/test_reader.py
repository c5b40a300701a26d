"""What an open file gives, what it refuses to open, and that it stays lazy."""
from __future__ import annotations

import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import ggblock
from ggblock import errors
from ggblock.format import limits

from . import craft


def opened(tmp_path: Path, raw: bytes) -> ggblock.GgufFile:
    path = tmp_path / "m.gguf"
    path.write_bytes(raw)
    return ggblock.open(path)


def vocabulary(n_tokens: int) -> bytes:
    tokens = [b"token%d" % i * (1 + i % 3) for i in range(n_tokens)]
    return craft.container([
        craft.key("tokenizer.ggml.tokens", 9, craft.string_array(tokens)),
        craft.key("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, n_tokens) + bytes(4 * n_tokens)),
        craft.key("after", 4, struct.pack("<I", 9)),
    ])


@pytest.mark.parametrize(("name", "make", "error", "word"), [
    ("missing.gguf", lambda p: None, errors.CannotRead, "no such file"),
    ("missing/m.gguf", lambda p: None, errors.CannotRead, "no such file"),
    ("folder", lambda p: p.mkdir(), errors.NotGguf, "directory"),
    ("empty.gguf", lambda p: p.write_bytes(b""), errors.NotGguf, "empty"),
    ("text.gguf", lambda p: p.write_text("hello, this is text"), errors.NotGguf, "not a GGUF file"),
])
def test_what_is_no_file_is_one_clear_line(tmp_path: Path, name, make, error, word):
    path = tmp_path / name
    make(path)
    with pytest.raises(error, match=word) as caught:
        ggblock.open(path)
    assert caught.value.file == str(path) and "\n" not in str(caught.value)


@pytest.mark.parametrize("path", [b"\0", "a\0b"])
def test_impossible_paths_are_named_errors(path):
    with pytest.raises(errors.CannotRead):
        ggblock.open(path)


if hasattr(os, "mkfifo"):
    def test_a_fifo_is_refused_without_waiting(tmp_path: Path):
        os.mkfifo(tmp_path / "pipe.gguf")
        with pytest.raises(errors.NotGguf, match="not a regular file"):
            ggblock.open(tmp_path / "pipe.gguf")


def test_a_path_may_be_bytes_or_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "m.gguf").write_bytes(craft.container([]))
    monkeypatch.chdir(tmp_path)
    for path in ("m.gguf", b"m.gguf", Path("m.gguf")):
        with ggblock.open(path) as file:
            assert file.path == "m.gguf" and file.paths == ("m.gguf",)


def test_arrays_behave_as_sequences(tmp_path: Path):
    numbers = struct.pack("<IQ6h", 3, 6, 5, -4, 3, -2, 1, 0)
    file = opened(tmp_path, craft.container([
        craft.key("n", 9, numbers), craft.key("s", 9, craft.string_array([b"a", b"", "é".encode(), b"z" * 300])),
        craft.key("b", 9, struct.pack("<IQ3B", 7, 3, 1, 0, 1)), craft.key("e", 9, struct.pack("<IQ", 12, 0)),
    ]))
    n, s = file.metadata["n"], file.metadata["s"]
    assert n == [5, -4, 3, -2, 1, 0] and n != [5] and n != [5, -4, 3, -2, 1, 1] and n == (5, -4, 3, -2, 1, 0)
    assert (n[0], n[-1], n[2:4], n[::-2], n[4:1], len(n)) == (5, 0, [3, -2], [0, -2, -4], [], 6)
    assert [type(x) for x in n] == [int] * 6 and list(reversed(n)) == [0, 1, -2, 3, -4, 5] and -2 in n and 7 not in n
    assert n.element_type == "i16" and n.kind == "i16[]" == file.metadata.kind("n")
    assert n.numpy().dtype == np.int16 and n.numpy().flags.aligned and n.numpy().flags.owndata
    assert s.tolist() == ["a", "", "é", "z" * 300] == list(s) and s[2] == "é" and s[-4:2] == ["a", ""]
    assert file.metadata["b"].tolist() == [True, False, True] and file.metadata["b"].numpy().dtype == np.bool_
    assert file.metadata["e"] == [] and file.metadata["e"].numpy().dtype == np.float64
    for index in (6, -7):
        with pytest.raises(IndexError):
            n[index]
    with pytest.raises(errors.WrongKeyKind):
        s.numpy()
    assert repr(n) == "<6 x i16: [5, -4, 3, -2, ...]>"


def test_strings_that_are_not_utf8_are_kept(tmp_path: Path):
    odd = [b"\xff\xfe", b"ok", b"\xed\xa0\x80", b"\xc3"]
    file = opened(tmp_path, craft.container([
        craft.key("s", 9, craft.string_array(odd)), craft.key("t", 8, craft.text(b"caf\xe9")),
    ]))
    assert [s.encode("utf-8", "surrogateescape") for s in file.metadata["s"]] == odd
    assert file.metadata["s"].raw_list() == odd and file.metadata["s"].raw(3) == b"\xc3"
    assert file.metadata["t"] == "caf\udce9"


def test_tensor_views(tmp_path: Path):
    weights = np.arange(24, dtype="<f4").reshape(2, 3, 4)
    tensors = [craft.tensor("w", (4, 3, 2), 0, 0), craft.tensor("one", (), 0, 96)]
    file = opened(tmp_path, craft.container([], tensors, weights.tobytes() + struct.pack("<f", 7)))
    w, one = file.tensors["w"], file.tensors["one"]
    assert list(file.tensors) == ["w", "one"]
    assert (w.shape, w.ne, w.n_rows, w.n_cols, w.row_bytes, w.n_bytes, w.n_weights) == (
        (2, 3, 4), (4, 3, 2), 6, 4, 16, 96, 24
    )
    assert w.type.name == "f32" and w.offset_bytes % file.alignment == 0 and w.path == file.path
    assert w.raw.shape == (6, 16) and not w.raw.flags.writeable and w.raw.tobytes() == weights.tobytes()
    assert (w.dequantize() == weights).all() and (w.rows(1, 3) == weights.reshape(6, 4)[1:3]).all()
    assert w.rows(2, 2).shape == (0, 4) and one.dequantize().shape == () and one.dequantize() == 7
    for bad in ((-1, 2), (3, 2), (0, 7)):
        with pytest.raises(IndexError):
            w.rows(*bad)
    with pytest.raises(TypeError):
        file.tensors["new"] = w  # type: ignore[index]


def test_after_closing_views_live_and_the_rest_says_so(tmp_path: Path):
    data = struct.pack("<f", 7)
    file = opened(tmp_path, craft.container(
        [craft.key("n", 9, struct.pack("<IQI", 4, 1, 5))], [craft.tensor("w", (1,), 0, 0)], data
    ))
    raw, array, tensor = file.tensors["w"].raw, file.metadata["n"], file.tensors["w"]
    with file:
        pass
    assert file.closed and raw.tobytes() == data
    for use in (lambda: array[0], lambda: tensor.raw, lambda: tensor.dequantize(), array.numpy):
        with pytest.raises(ValueError, match="closed"):
            use()
    file.close()


def test_metadata_is_a_mapping_that_knows_kinds(tmp_path: Path):
    file = opened(tmp_path, craft.container([craft.key("a", 4, b"\1\0\0\0"), craft.key("b", 12, struct.pack("<d", 2))]))
    assert dict(file.metadata) == {"a": 1, "b": 2.0} and "c" not in file.metadata and file.metadata.get("c") is None
    assert [file.metadata.kind(k) for k in file.metadata] == ["u32", "f64"]
    with pytest.raises(KeyError):
        file.metadata["c"]


def test_a_large_vocabulary_opens_lazily(tmp_path: Path):
    path = tmp_path / "v.gguf"
    path.write_bytes(vocabulary(262_144))
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        file = ggblock.open(path)
    finally:
        sys.setprofile(None)
    file.close()
    # a call for every string would be 262,144 of them; without, it opens in 12 ms on a Zen 5 core
    assert calls < 26_000
    tracemalloc.start()
    file = ggblock.open(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 262_144 * 8 + (4 << 20)  # the offsets and one window's temporaries
    tokens = file.metadata["tokenizer.ggml.tokens"]
    assert len(tokens) == 262_144 and tokens[262_143] == "token262143" and file.metadata["after"] == 9
    assert tokens.tolist() == [f"token{i}" * (1 + i % 3) for i in range(262_144)]
    file.close()


def test_inner_arrays_are_limited_in_number(tmp_path: Path):
    n = limits.MAX_INNER_ARRAYS
    inner = struct.pack("<IQ", 0, 0)
    half = struct.pack("<IQ", 9, n // 2 + 1) + inner * (n // 2 + 1)
    with pytest.raises(errors.CountTooLarge, match="arrays within arrays"):
        opened(tmp_path, craft.container([craft.key("a", 9, half), craft.key("b", 9, half)]))
    with pytest.raises(errors.CountTooLarge, match="more arrays"):
        opened(tmp_path, craft.container([craft.key("a", 9, struct.pack("<IQ", 9, n + 1) + inner * (n + 1))]))


def test_a_file_of_empty_keys_cannot_become_millions_of_objects(tmp_path: Path):
    n = limits.MAX_KEYS + 1
    raw = b"GGUF" + struct.pack("<IQQ", 3, 0, n) + bytes(13 * n)
    with pytest.raises(errors.CountTooLarge, match="allowed"):
        opened(tmp_path, raw)


def test_error_text_shows_no_control_characters(tmp_path: Path):
    with pytest.raises(errors.DuplicateKey) as caught:
        opened(tmp_path, craft.container([craft.key("a\n\x1b[31m", 0, b"\0")] * 2))
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value) and "\\n" in str(caught.value)


def test_opening_imports_no_numba():
    code = (
        "import sys, ggblock; ggblock.open; ggblock.format.GgufWriter;"
        "sys.exit(bool({'numba', 'llvmlite', 'torch', 'tokenizers'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(ggblock.__file__).parents[1])
