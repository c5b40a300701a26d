"""What `fuzz.py` does with a file: each target takes a path, and raises when the package misbehaves.

The tests run them on the seeds, so that they hold without a fuzzer.
"""
from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from click.testing import CliRunner

import ggblock
from ggblock import errors
from ggblock.cli.main import main
from ggblock.convert import Options, execute, make_plan, open_source
from ggblock.format import ArrayValue, GgufFile, Typed
from ggblock.inspect import blockview, diff, overview, report
from ggblock.inspect import edit as edits
from ggblock.inspect.edit import Changes
from ggblock.inspect.verify import verdict_document, verify
from ggblock.tokenizer.bpe import BYTE_SYMBOLS
from tests.format import craft
from tools import gen_golden_files, spec_pages, spec_reader

FILES = spec_pages.SPEC / "files"


def _opened(path: Path) -> GgufFile | None:
    """The file, or None where it is refused with an error that says enough on one line."""
    try:
        return ggblock.open(path)
    except errors.GgblockError as fault:
        if "\n" in str(fault) or fault.file is None:
            raise AssertionError(f"not one line with a file: {fault!r}") from fault
        return None


def container(path: Path) -> None:
    """Open it and read all of it."""
    file = _opened(path)
    if file is None:
        return
    with file:
        for value in file.metadata.values():
            if isinstance(value, ArrayValue):
                assert len(value.tolist()) == len(value)
        for tensor in file.tensors.values():
            assert tensor.offset_bytes + tensor.n_bytes <= os.path.getsize(path)
            assert tensor.raw.shape == (tensor.n_rows, tensor.row_bytes)
            assert tensor.dequantize().shape == tensor.shape
            rows = np.array([tensor.n_rows - 1, 0])
            assert np.array_equal(tensor.gather(rows), tensor.raw[rows])


def readers(path: Path) -> None:
    """The package and the reader by the specification alone agree."""
    file = _opened(path)
    try:
        other = spec_reader.read(path)
    except spec_reader.Refused as refused:
        assert file is None, f"only the other reader refuses it: {refused}"
        return
    assert file is not None, "only the package refuses it"
    with file:
        assert list(file.metadata) == list(other.values) and list(file.tensors) == list(other.tensors)
        for name, tensor in file.tensors.items():
            mine = other.tensors[name]
            assert (tensor.type.name, tensor.ne, tensor.in_panels) == (mine.type, mine.ne, mine.in_panels)
            assert tensor.raw.tobytes() == mine.rows.tobytes()


def inspect(path: Path) -> None:
    """Everything that looks inside a file."""
    file = _opened(path)
    verdict_document(verify(path))
    if file is None:
        return
    with file:
        overview.overview_document(overview.overview(file))
        assert diff.diff(file, file).is_none
        for tensor in list(file.tensors.values())[:2]:
            overview.tensor_document(tensor)
            report.report_document(report.tensor_report(tensor))
            blockview.block_document(blockview.block_view(tensor, 0))


def convert(path: Path) -> None:
    """To GGB and back: the same rows, or a named error. Ragged rows have no form in GGUF."""
    file = _opened(path)
    if file is None:
        return
    with file:
        if any(t.n_cols % t.type.block_size for t in file.tensors.values()):
            return
        rows = {name: (t.type.name, t.ne or (1,), t.raw.tobytes()) for name, t in file.tensors.items()}
    before = path
    for name in ("there.ggb", "back.gguf"):
        target = path.with_name(name)
        try:
            with open_source(before) as source:
                execute(make_plan(source, str(target), Options(allow_nonfinite=True)))
        except errors.GgblockError as fault:
            assert "\n" not in str(fault)
            return
        with ggblock.open(target) as made:
            assert rows == {name: (t.type.name, t.ne, t.raw.tobytes()) for name, t in made.tensors.items()}
        before = target


def edit(path: Path) -> None:
    """A key changed and a tensor renamed, with checksums: the same rows, and a file that is whole; or a named error."""
    file = _opened(path)
    if file is None:
        return
    with file:
        names, rows = list(file.tensors), [t.raw.tobytes() for t in file.tensors.values()]
    target = path.with_name("edited.gguf")
    changes = Changes({"spec.new": Typed("str", "x")}, (), {names[0]: "renamed"} if names else None, seal=True)
    try:
        edits.edit(path, target, changes)
    except errors.GgblockError as fault:
        assert "\n" not in str(fault)
        return
    with ggblock.open(target) as made:
        assert [t.raw.tobytes() for t in made.tensors.values()] == rows and made.metadata["spec.new"] == "x"
    assert not [fault for fault in verify(target, values=False).faults if fault.code == "checksum"]


def commands(path: Path) -> None:
    """The commands that look at a file: an exit code and a line, never a traceback."""
    name = str(path)
    for arguments in (
        ["dump", name], ["dump", name, "--json"], ["verify", name], ["diff", name, name, "--json"],
        ["dump", name, "--tensor", "w", "--block", "0"], ["dump", name, "--tensor", "w", "--json"],
    ):  # fmt: skip
        done = CliRunner().invoke(main, arguments)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise AssertionError(arguments) from done.exception
        assert done.exit_code in (0, 1) and len(done.stderr.splitlines()) <= 1, (arguments, done.stderr)
        if "--json" in arguments and done.exit_code == 0:
            json.loads(done.stdout)


def vocabulary(path: Path) -> None:
    """A tokenizer of it: pieces that give the text back, or a named error."""
    try:
        tokenizer = ggblock.load_tokenizer(path)
        tokenizer.detokenize(tokenizer.tokenize("The sky is blue, 3 times."))
    except errors.GgblockError as fault:
        assert "\n" not in str(fault)


TARGETS: dict[str, Callable[[Path], None]] = {
    "container": container, "readers": readers, "inspect": inspect, "convert": convert, "edit": edit,
    "commands": commands, "vocabulary": vocabulary,
}  # fmt: skip


def seeds() -> Iterator[bytes]:
    """The spec's vectors and files."""
    for stem in ("container", "panels"):
        found = spec_pages.read_toml(stem)
        for vector in found.get("valid", []) + found["fault"]:
            yield craft.assemble(vector["parts"], vector.get("big", False))
    for path in sorted(FILES.iterdir()):
        if path.suffix in (".ggb", ".gguf") and path.stat().st_size <= 8192 and not path.name.startswith("split"):
            yield path.read_bytes()
    for name, n_cols in (("q4_k", 352), ("q3_k", 48), ("tq1_0", 32)):
        tensor = gen_golden_files.Tensor("w", name, (n_cols, 2), True)
        yield gen_golden_files.container(gen_golden_files.marks(), [tensor], 64)
    yield from vocabularies()


def vocabularies() -> Iterator[bytes]:
    """Small files with a vocabulary of each model."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["\u2581", "t", "he", "\u2581the", "sky"]
    letters = [*BYTE_SYMBOLS, "th", "the", "\u0120the", "<|end|>"]
    types = [2, 3, 3, *[6] * 256, 1, 1, 1, 1, 1]
    own = {
        "llama": [("scores", "f32[]", [-float(i) for i in range(len(pieces))])],
        "gpt2": [("merges", "str[]", ["t h", "th e", "\u0120 the"]), ("pre", "str", "gpt-2")],
        "bert": [("unknown_token_id", "u32", 0)],
    }
    for model, keys in own.items():
        tokens = letters if model == "gpt2" else pieces
        kinds = [1] * (len(tokens) - 1) + [3] if model == "gpt2" else types
        named = [("model", "str", model), ("tokens", "str[]", tokens), ("token_type", "i32[]", kinds), *keys,
                 ("bos_token_id", "u32", 1), ("eos_token_id", "u32", 2), ("add_bos_token", "bool", True)]  # fmt: skip
        prefixed = [(f"tokenizer.ggml.{key}", kind, value) for key, kind, value in named]
        yield gen_golden_files.container([("general.architecture", "str", "llama"), *prefixed], [], 32)


def words() -> Iterator[bytes]:
    """What a fuzzer would not guess."""
    for key in spec_pages.read_toml("container")["key"]:
        yield key["name"].encode()
    for number in (spec_reader.PANELS["first_id"] + spec["id"] for spec in spec_reader.TYPES.values()):
        yield struct.pack("<I", number)
    for number in (1 << 32, (1 << 63) - 1, (1 << 64) - 64, 640, 256, 64):
        yield struct.pack("<Q", number)
    yield b"general.alignment"
    yield b"split.count"
