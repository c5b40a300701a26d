"""Edits change what they are told to, and no byte of a tensor."""
from __future__ import annotations

import os
import threading
from pathlib import Path

import gguf
import numpy as np
import pytest

import ggblock
from ggblock import errors
from ggblock.format import Typed, checksums
from ggblock.inspect import edit as editing
from ggblock.inspect.edit import PADDING, Changes, edit, parse_setting
from ggblock.inspect.verify import verify
from tests.format import craft
from tests.inspect import crafted


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return crafted.write(tmp_path / "m.gguf")


def contents(path: Path) -> tuple[dict[str, object], dict[str, bytes]]:
    with ggblock.open(path) as file:
        metadata = {key: list(v) if hasattr(v, "tolist") else v for key, v in file.metadata.items()}
        return metadata, {t.name: t.raw.tobytes() for t in file.tensors.values()}


def test_set_remove_and_rename(path: Path, tmp_path: Path) -> None:
    before, tensors = contents(path)
    changes = Changes(
        {"general.name": Typed("str", "x" * 5000), "new.key": Typed("f32[]", [1.0, 2.0])}, ["general.file_type"],
        {"output_norm.weight": "norm.weight", "blk.0.attn_q.weight": "blk.1.attn_q.weight",
         "blk.1.attn_q.weight": "blk.0.attn_q.weight"},
    )  # fmt: skip
    done = edit(path, tmp_path / "out.gguf", changes)
    after, renamed = contents(tmp_path / "out.gguf")
    assert after == {**{k: v for k, v in before.items() if k != "general.file_type"}, "general.name": "x" * 5000,
                     "new.key": [1.0, 2.0]}  # fmt: skip
    swap = changes.rename or {}
    assert renamed == {swap.get(name, name): data for name, data in tensors.items()}
    assert done.tensor_bytes == sum(map(len, tensors.values())) and done.n_bytes == os.path.getsize(done.path)
    assert contents(path) == (before, tensors)
    assert len(gguf.GGUFReader(tmp_path / "out.gguf").tensors) == 8


def test_the_kinds_of_untouched_keys_stay(path: Path, tmp_path: Path) -> None:
    edit(path, tmp_path / "out.gguf", Changes({"a": Typed("u8", 1)}))
    with ggblock.open(path) as first, ggblock.open(tmp_path / "out.gguf") as second:
        assert {k: first.metadata.kind(k) for k in first.metadata} | {"a": "u8"} == \
            {k: second.metadata.kind(k) for k in second.metadata}


def test_in_place_keeps_every_tensor_where_it_is(path: Path) -> None:
    with ggblock.open(path) as file:
        places = {t.name: t.offset_bytes for t in file.tensors.values()}
    _, tensors = contents(path)
    edit(path, None, Changes({}, ["tokenizer.ggml.tokens", "tokenizer.ggml.token_type"]))
    metadata, after = contents(path)
    assert after == tensors and PADDING in metadata and "tokenizer.ggml.tokens" not in metadata
    with ggblock.open(path) as file:
        assert {t.name: t.offset_bytes for t in file.tensors.values()} == places
    # The room that came free is used by the next change, and given back when another file is written.
    edit(path, None, Changes({"general.description": Typed("str", "d" * 300)}))
    assert contents(path)[0]["general.description"] == "d" * 300
    edit(path, path.with_name("free.gguf"), Changes({"general.name": Typed("str", "n")}))
    assert contents(path.with_name("free.gguf"))[1] == tensors


def test_in_place_where_it_does_not_fit_changes_nothing(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(errors.SettingError, match="does not fit"):
        edit(path, None, Changes({"general.description": Typed("str", "d" * 100_000)}))
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_reader_sees_the_old_file_or_the_new_one(path: Path) -> None:
    """Readers that open the file again and again while it is edited never meet a half-written one."""
    names, stop, faults = set(), threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                names.add(contents(path)[0]["general.name"])
            except errors.GgblockError as fault:
                faults.append(fault)

    thread = threading.Thread(target=read)
    thread.start()
    for i in range(12):
        edit(path, None, Changes({"general.name": Typed("str", f"{i:04d}")}))
    stop.set()
    thread.join()
    assert faults == [] and names <= {"tiny", *(f"{i:04d}" for i in range(12))} and names


def test_a_failure_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(editing, "_copy", fail)
    with pytest.raises(errors.DiskFull):
        edit(path, path.with_name("out.gguf"), Changes({"general.name": Typed("str", "y" * 99)}))
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    ("module", "name"), [(editing, "_copy"), (os, "fsync"), (editing.shutil, "copymode"), (os, "replace")]
)
def test_an_interruption_leaves_nothing_behind(
    module: object, name: str, in_place: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C at any step: no new file, no temporary one, and the old one as it was."""
    before, old = path.read_bytes(), path.with_name("old.gguf")
    old.write_bytes(b"an older file")

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, name, interrupt)
    with pytest.raises(KeyboardInterrupt):
        edit(path, None if in_place else old, Changes({"general.name": Typed("str", "abcd")}))
    monkeypatch.undo()
    assert path.read_bytes() == before and old.read_bytes() == b"an older file"
    assert sorted(path.parent.iterdir()) == [path, old]


def test_places_that_cannot_be_written_are_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = Changes({"general.name": Typed("str", "abcd")})
    with pytest.raises(errors.CannotWrite, match="No such file"):
        edit(path, path.parent / "none" / "x.gguf", changes)
    with pytest.raises(errors.CannotWrite, match="is a directory"):
        edit(path, path.parent, changes)
    before = path.read_bytes()
    opened = open

    def refuse(name: object, mode: str = "r", *rest: object, **more: object) -> object:
        if "x" in mode:  # what a folder without write permission answers; the tests may run as root
            raise PermissionError(13, "Permission denied")
        return opened(name, mode, *rest, **more)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(errors.CannotWrite, match="Permission denied"):
        edit(path, None, changes)
    monkeypatch.undo()
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_permissions_and_links_stay(path: Path) -> None:
    path.chmod(0o640)
    link = path.with_name("link.gguf")
    link.symlink_to(path)
    edit(link, None, Changes({"general.name": Typed("str", "abcd")}))
    assert link.is_symlink() and contents(path)[0]["general.name"] == "abcd"
    assert path.stat().st_mode & 0o777 == 0o640


def test_data_passes_without_copy_file_range_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    monkeypatch.setattr(editing, "_STEP", 1000)
    edit(path, path.with_name("out.gguf"), Changes({"general.name": Typed("str", "y" * 99)}))
    assert contents(path.with_name("out.gguf"))[1] == contents(path)[1]


@pytest.mark.parametrize("n", [4, 5, 99, 40_000])
@pytest.mark.parametrize("seal", [False, True])
def test_where_blocks_can_be_shared_only_the_header_is_written(
    n: int, seal: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path that Btrfs and XFS take, with a stand-in for the system call: it shares whole blocks at whole blocks."""
    shared = []

    def share(source: int, target: int, offset: int, to: int, n_bytes: int = 0) -> bool:
        if offset % 4096 or to % 4096:
            return False
        shared.append((offset, to))
        os.pwrite(target, os.pread(source, n_bytes or os.fstat(source).st_size, offset), to)
        return True

    monkeypatch.setattr(editing, "_share", share)
    _, tensors = contents(path)
    out = path.with_name("out.gguf")
    done = edit(path, out, Changes({"general.name": Typed("str", "n" * n)}, seal=seal))
    assert done.how == "reflink" and contents(out)[1] == tensors and os.path.getsize(out) == done.n_bytes
    assert contents(out)[0]["general.name"] == "n" * n and verify(out).faults == ()
    assert shared[0] == (0, 0) and shared[1][0] == shared[1][1] - done.header_bytes + path_base(path)
    shorter = edit(out, path.with_name("short.gguf"), Changes({"general.name": Typed("str", "s")}))
    assert shorter.how == "reflink" and contents(path.with_name("short.gguf"))[1] == tensors
    assert shorter.n_bytes < path.stat().st_size + 4096 + n


def path_base(path: Path) -> int:
    """Where the data section of a file begins."""
    with ggblock.open(path) as file:
        return min(tensor.offset_bytes for tensor in file.tensors.values())


def test_blocks_are_shared_at_an_alignment_beyond_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a filler in the header: what replaces it is still a multiple of the alignment."""

    def share(source: int, target: int, offset: int, to: int, n_bytes: int = 0) -> bool:
        os.pwrite(target, os.pread(source, n_bytes or os.fstat(source).st_size, offset), to)
        return not (offset % 4096 or to % 4096)

    monkeypatch.setattr(editing, "_share", share)
    long = {**crafted.METADATA, "general.description": "d" * 9000}
    path = crafted.write(tmp_path / "m.gguf", long, alignment=8192)
    _, tensors = contents(path)
    edit(path, None, Changes({}, ["general.description"]))
    assert PADDING in contents(path)[0] and path_base(path) == 16384
    for n in (1, 5000, 10_000):
        done = edit(path, tmp_path / "out.gguf", Changes({"general.name": Typed("str", "n" * n)}))
        assert done.header_bytes % 8192 == 0 and done.how == "reflink" and os.path.getsize(done.path) == done.n_bytes
        assert contents(tmp_path / "out.gguf")[1] == tensors and verify(done.path).faults == ()


def test_in_place_shares_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def share(source: int, target: int, offset: int, to: int, n_bytes: int = 0) -> bool:
        os.pwrite(target, os.pread(source, n_bytes or os.fstat(source).st_size, offset), to)
        return offset == to

    monkeypatch.setattr(editing, "_share", share)
    _, tensors = contents(path)
    done = edit(path, None, Changes({"general.name": Typed("str", "ab")}))
    assert done.how == "reflink" and contents(path)[0]["general.name"] == "ab" and contents(path)[1] == tensors


def test_checksums_are_added_kept_and_removed(path: Path, tmp_path: Path) -> None:
    sealed, renamed, plain = tmp_path / "sealed.gguf", tmp_path / "renamed.gguf", tmp_path / "plain.gguf"
    edit(path, sealed, Changes({}, seal=True))
    assert verify(sealed).is_whole and verify(sealed).has_checksums
    written = crafted.write(tmp_path / "w.gguf", checksums=True)
    assert contents(sealed)[0][checksums.TENSORS] == contents(written)[0][checksums.TENSORS]
    edit(sealed, renamed, Changes({"general.name": Typed("str", "z")}, rename={"output_norm.weight": "n.weight"}))
    assert verify(renamed).is_whole and verify(renamed).has_checksums
    edit(renamed, None, Changes({}, ["tokenizer.ggml.tokens"]))
    assert verify(renamed).is_whole
    edit(renamed, plain, Changes({}, [checksums.HEADER]))
    assert not verify(plain).has_checksums and verify(plain).is_whole


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (Changes({}, ["nope"]), errors.MissingKey),
        (Changes({}, rename={"nope": "x"}), errors.MissingTensor),
        (Changes({}, rename={"output_norm.weight": "token_embd.weight"}), errors.DuplicateTensor),
        (Changes({}, rename={"output_norm.weight": "x" * 64}), errors.BadTensorName),
        (Changes({"a": Typed("u8", 256)}), errors.WrongKeyKind),
        (Changes({"general.alignment": Typed("u32", 4096)}), errors.BadAlignment),
        (Changes({"general.alignment": Typed("u32", 33)}), errors.BadAlignment),
        (Changes({checksums.HEADER: Typed("str", "0")}), errors.SettingError),
        (Changes({"general.name": Typed("str", "")}, ["general.name"]), errors.SettingError),
    ],
)
def test_changes_that_cannot_be_made(changes: Changes, error: type[Exception], path: Path) -> None:
    with pytest.raises(error):
        edit(path, path.with_name("out.gguf"), changes)
    assert list(path.parent.iterdir()) == [path]


def test_the_input_is_never_the_output_by_another_name(path: Path) -> None:
    link = path.with_name("link.gguf")
    link.symlink_to(path)
    hard = path.with_name("hard.gguf")
    os.link(path, hard)
    for out in (path, link, hard, path.parent / ".." / path.parent.name / path.name):
        with pytest.raises(errors.WouldOverwriteInput):
            edit(path, out, Changes({"a": Typed("u8", 1)}))


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    big = craft.assemble(["text GGUF", "u32 3", "u64 0", "u64 0"], big=True)
    (tmp_path / "big.gguf").write_bytes(big)
    with pytest.raises(errors.UnsupportedVersion, match="big-endian"):
        edit(tmp_path / "big.gguf", tmp_path / "out.gguf", Changes({"a": Typed("u8", 1)}))


@pytest.mark.parametrize(
    ("text", "key", "typed"),
    [
        ("a=hello", "a", Typed("str", "hello")), ("a=true", "a", Typed("bool", True)), ("a=7", "a", Typed("u32", 7)),
        ("a=-7", "a", Typed("i32", -7)), ("a=0.5", "a", Typed("f32", 0.5)), ("a:u16=7", "a", Typed("u16", 7)),
        ("a:str=7", "a", Typed("str", "7")), ("a=[1, 2]", "a", Typed("i32[]", [1, 2])),
        ("a=b=c", "a", Typed("str", "b=c")),
        ("known=12", "known", Typed("f32", 12)), ("x:y=1", "x:y", Typed("u32", 1)), ("a={}", "a", Typed("str", "{}")),
        ("a:str[]=[\"x\"]", "a", Typed("str[]", ["x"])), ("a=", "a", Typed("str", "")),
    ],
)
def test_settings(text: str, key: str, typed: Typed) -> None:
    assert parse_setting(text, {"known": Typed("f32", 1.0)}) == (key, typed)


def test_settings_from_a_file_and_bad_ones(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages }}\n")
    assert parse_setting(f"t=@{tmp_path}/t.jinja", {}) == ("t", Typed("str", "{{ messages }}\n"))
    for text, error in (("nothing", errors.SettingError), ("=x", errors.SettingError), ("a:u32=x", errors.WrongKeyKind),
                        ("a=@/none", errors.CannotRead)):  # fmt: skip
        with pytest.raises(error):
            parse_setting(text, {})


def test_a_real_file(smollm2_path: Path, tmp_path: Path) -> None:
    edit(smollm2_path, tmp_path / "m.gguf", Changes({"general.name": Typed("str", "renamed")}))
    with ggblock.open(smollm2_path) as first, ggblock.open(tmp_path / "m.gguf") as second:
        for a, b in zip(first.tensors.values(), second.tensors.values(), strict=True):
            assert a.name == b.name and np.array_equal(a.raw, b.raw)
