"""Fetching a model: what arrives, what is kept, and what is refused."""
from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from ggblock import catalog
from ggblock.catalog import wheels
from ggblock.catalog.models import table
from ggblock.errors import CacheUnusable, CatalogError, ChecksumMismatch, Offline, SourceUnsupported, UnknownModel

from .conftest import PART_BYTES, LocalIndex, part_bytes, wheel


def leftovers() -> set[str]:
    """What lies in the cache beside models, their locks and their records."""
    return {path.name for path in catalog.models_folder().iterdir() if path.name.endswith((".tmp", ".partial", ".log"))}


def test_a_model_is_fetched_once(one: catalog.CatalogEntry, index: LocalIndex) -> None:
    said: list[str] = []
    steps: list[tuple[int, int]] = []
    path = catalog.fetch("tiny", progress=lambda done, total: steps.append((done, total)), notify=said.append)
    assert path.read_bytes() == part_bytes(0)
    assert path.parent == Path(os.environ["GGBLOCK_CACHE"]) / "models"
    assert any("https://example.org/terms" in line for line in said) and "the notice of the tests" in said
    total = one.sources[0].parts[0].wheel_bytes  # type: ignore[union-attr]
    assert steps[-1] == (total, total) and steps == sorted(steps)
    assert leftovers() == set()
    assert catalog.fetch("tiny", notify=said.append) == path
    assert index.requests == ["ggbtestpart0"] and len(said) == 2


def test_progress_is_told_while_the_bytes_come(one: catalog.CatalogEntry, index: LocalIndex) -> None:
    half = threading.Event()

    def progress(done_bytes: int, total_bytes: int) -> None:
        if 0.3 * total_bytes < done_bytes < 0.7 * total_bytes:  # the index waits in the middle until this was told
            half.set()
            index.stall.clear()

    index.stall.set()
    give_up = threading.Timer(20, index.stall.clear)
    give_up.start()
    catalog.fetch("tiny", progress=progress)
    give_up.cancel()
    assert half.is_set()


def test_parts_are_joined_in_the_order_of_the_catalog(three: catalog.CatalogEntry) -> None:
    assert catalog.fetch("triple").read_bytes() == part_bytes(2) + part_bytes(0) + part_bytes(1)


def test_an_interrupted_fetch_goes_on_with_the_parts_that_are_whole(
    three: catalog.CatalogEntry, index: LocalIndex
) -> None:
    missing = index.wheels.pop("ggbtestpart1")
    with pytest.raises(CatalogError, match="ggbtestpart1"):
        catalog.fetch("triple")
    assert not (catalog.models_folder() / "triple.gguf").exists()
    assert leftovers() == {".triple.gguf.partial"}
    index.wheels["ggbtestpart1"] = missing
    index.requests.clear()
    assert hashlib.sha256(catalog.fetch("triple").read_bytes()).hexdigest() == three.sha256
    assert index.requests == ["ggbtestpart1"]
    assert leftovers() == set()


def test_a_kept_part_that_was_changed_is_fetched_again(three: catalog.CatalogEntry, index: LocalIndex) -> None:
    missing = index.wheels.pop("ggbtestpart1")
    with pytest.raises(CatalogError):
        catalog.fetch("triple")
    partial = catalog.models_folder() / ".triple.gguf.partial"
    content = bytearray(partial.read_bytes())
    content[PART_BYTES + 5] ^= 1  # in the second part; the first stays right
    partial.write_bytes(content)
    index.wheels["ggbtestpart1"] = missing
    index.requests.clear()
    assert hashlib.sha256(catalog.fetch("triple").read_bytes()).hexdigest() == three.sha256
    assert index.requests == ["ggbtestpart0", "ggbtestpart1"]


@pytest.mark.parametrize(
    "content",
    [part_bytes(0)[:-1] + b"?", part_bytes(0)[:-1], part_bytes(0) + b"x", b""],
    ids=["changed", "short", "long", "empty"],
)
def test_other_bytes_than_the_catalog_promises_are_refused(
    one: catalog.CatalogEntry, index: LocalIndex, content: bytes
) -> None:
    index.wheels["ggbtestpart0"] = wheel("ggbtestpart0", "ggbtestpart0/data.bin", content)
    with pytest.raises(ChecksumMismatch, match="ggbtestpart0==1.0") as caught:
        catalog.fetch("tiny")
    assert caught.value.expected is not None and caught.value.actual is not None
    assert not (catalog.models_folder() / "tiny.gguf").exists() and leftovers() == set()


def test_parts_that_join_to_another_file_are_refused(
    three: catalog.CatalogEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalog.CATALOG, "triple", dataclasses.replace(three, sha256="0" * 64))
    with pytest.raises(ChecksumMismatch, match="joined parts"):
        catalog.fetch("triple")
    assert not (catalog.models_folder() / "triple.gguf").exists() and leftovers() == set()


def test_a_damaged_member_is_refused(one: catalog.CatalogEntry, index: LocalIndex) -> None:
    damaged = bytearray(index.wheels["ggbtestpart0"])
    damaged[len(damaged) // 2] ^= 0xFF
    index.wheels["ggbtestpart0"] = bytes(damaged)
    with pytest.raises(CatalogError, match="ggbtestpart0==1.0"):
        catalog.fetch("tiny")
    assert leftovers() == set()


def test_a_wheel_with_another_hash_than_the_index_announces_is_refused(
    one: catalog.CatalogEntry, index: LocalIndex
) -> None:
    index.hashes["ggbtestpart0"] = "0" * 64
    with pytest.raises(ChecksumMismatch, match="ggbtestpart0==1.0: what came is not the wheel"):
        catalog.fetch("tiny")
    assert leftovers() == set()


def test_a_wheel_without_the_member_is_refused(one: catalog.CatalogEntry, index: LocalIndex) -> None:
    index.wheels["ggbtestpart0"] = wheel("ggbtestpart0", "ggbtestpart0/other.bin", part_bytes(0))
    with pytest.raises(CatalogError, match=r"the wheel lacks ggbtestpart0/data\.bin"):
        catalog.fetch("tiny")


def test_a_wheel_that_the_index_lacks_is_named(one: catalog.CatalogEntry, index: LocalIndex) -> None:
    index.wheels.clear()
    with pytest.raises(CatalogError, match="ggbtestpart0==1.0") as caught:
        catalog.fetch("tiny")
    assert not isinstance(caught.value, Offline)


def test_offline_is_said(one: catalog.CatalogEntry, index: LocalIndex) -> None:
    index.close()
    with pytest.raises(Offline, match="package index cannot be reached"):
        catalog.fetch("tiny")
    assert leftovers() == set()


def test_a_connection_that_breaks_leaves_nothing_and_the_next_try_works(
    one: catalog.CatalogEntry, index: LocalIndex
) -> None:
    index.cut_at = 100_000
    with pytest.raises(CatalogError):
        catalog.fetch("tiny")
    assert leftovers() == set() and not (catalog.models_folder() / "tiny.gguf").exists()
    index.cut_at = None
    assert catalog.fetch("tiny").read_bytes() == part_bytes(0)


def test_a_file_in_the_cache_that_was_changed_is_noticed(one: catalog.CatalogEntry, index: LocalIndex) -> None:
    path = catalog.fetch("tiny")
    path.write_bytes(b"x" * one.n_bytes)
    said: list[str] = []
    assert catalog.fetch("tiny", notify=said.append).read_bytes() == part_bytes(0)
    assert "damaged" in said[0] and len(index.requests) == 2
    path.write_bytes(b"short")
    assert catalog.fetch("tiny").read_bytes() == part_bytes(0)
    os.utime(path)  # touched but whole: hashed anew, not fetched
    assert catalog.fetch("tiny") == path and len(index.requests) == 3


def test_the_next_source_is_tried(one: catalog.CatalogEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = catalog.HubSource("hf:someone/something/tiny.gguf")
    monkeypatch.setitem(catalog.CATALOG, "tiny", dataclasses.replace(one, sources=(hub, *one.sources)))
    assert catalog.fetch("tiny").read_bytes() == part_bytes(0)


def test_a_source_of_a_kind_to_come_is_refused_in_words(
    one: catalog.CatalogEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = catalog.HubSource("hf:someone/something/tiny.gguf")
    monkeypatch.setitem(catalog.CATALOG, "tiny", dataclasses.replace(one, sources=(hub,)))
    with pytest.raises(SourceUnsupported, match="hf:someone/something/tiny.gguf: this version fetches only"):
        catalog.fetch("tiny")


def test_an_unknown_name_lists_the_catalog_and_the_closest() -> None:
    with pytest.raises(UnknownModel, match=r"did you mean gemma-3-270m\?.*smollm2-135m-instruct, gemma-3-270m"):
        catalog.fetch("gemma3-270m")


def test_a_cache_that_is_a_file_is_refused(
    one: catalog.CatalogEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GGBLOCK_CACHE", str(tmp_path / "file"))
    with pytest.raises(CacheUnusable, match="GGBLOCK_CACHE may name another folder"):
        catalog.fetch("tiny")


def test_a_full_disk_is_said_before_anything_is_fetched(
    one: catalog.CatalogEntry, index: LocalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(CacheUnusable, match="no space left.*found 1000"):
        catalog.fetch("tiny")
    assert index.requests == [] and leftovers() == set()


@pytest.fixture
def unwritable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No folder of the cache may be written to; for root, by being somebody else for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield
    if root:
        os.seteuid(0)


def open_to_all(folder: Path) -> None:
    """Let everybody read ``folder`` and reach it, and nobody but root write to it."""
    for place in [folder, *folder.parents]:
        if place.owner() == folder.owner() and not place.stat().st_mode & 0o005 == 0o005:
            place.chmod(0o755)
    folder.chmod(0o555)


def test_a_read_only_cache_works_when_the_model_is_there(
    one: catalog.CatalogEntry, request: pytest.FixtureRequest
) -> None:
    path = catalog.fetch("tiny")
    (path.parent / ".tiny.gguf.checked").unlink()
    open_to_all(path.parent)
    request.getfixturevalue("unwritable")
    assert catalog.fetch("tiny") == path
    assert not (path.parent / ".tiny.gguf.checked").exists()


def test_a_read_only_cache_is_said_when_it_is_not(
    one: catalog.CatalogEntry, index: LocalIndex, request: pytest.FixtureRequest
) -> None:
    catalog.models_folder().mkdir(parents=True)
    open_to_all(catalog.models_folder())
    request.getfixturevalue("unwritable")
    with pytest.raises(CacheUnusable, match="Permission denied.*GGBLOCK_CACHE may name another folder"):
        catalog.fetch("tiny")
    assert index.requests == []


def client_bundled(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(wheels.shutil, "which", lambda name: None)
    hide_pip(monkeypatch)
    return "the pip of ensurepip"


def client_uv(monkeypatch: pytest.MonkeyPatch) -> str:
    import uv

    monkeypatch.setenv("UV", uv.find_uv_bin())
    hide_pip(monkeypatch)
    return "uv"


def hide_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = wheels.importlib.util.find_spec
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None if name == "pip" else find_spec(name))


@pytest.mark.parametrize("use", [client_bundled, client_uv])
def test_an_environment_without_pip(
    use: object, one: catalog.CatalogEntry, index: LocalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(use)
    assert use(monkeypatch) == wheels.find_client().name
    assert catalog.fetch("tiny").read_bytes() == part_bytes(0)
    assert leftovers() == set()
    (catalog.models_folder() / "tiny.gguf").unlink()
    index.wheels.clear()
    with pytest.raises(CatalogError, match="ggbtestpart0") as caught:
        catalog.fetch("tiny")
    assert not isinstance(caught.value, Offline)
    index.close()
    with pytest.raises(Offline):
        catalog.fetch("tiny")


def test_no_client_at_all_is_said(one: catalog.CatalogEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    client_bundled(monkeypatch)
    monkeypatch.setattr(wheels, "bundled_pip", lambda: None)
    with pytest.raises(CatalogError, match="neither pip nor uv was found"):
        catalog.fetch("tiny")


def test_a_name_twice_in_the_catalog_is_refused() -> None:
    entry = catalog.CATALOG["gemma-3-270m"]
    with pytest.raises(ValueError, match="share a name"):
        table([entry, entry])


@pytest.mark.parametrize("name", list(catalog.CATALOG))
def test_the_parts_of_an_entry_add_up(name: str) -> None:
    entry = catalog.CATALOG[name]
    for source in entry.sources:
        if isinstance(source, catalog.PypiSource):
            assert sum(part.n_bytes for part in source.parts) == entry.n_bytes
            if len(source.parts) == 1:
                assert source.parts[0].sha256 == entry.sha256


def test_the_real_models_are_what_the_catalog_says(smollm2_path: Path, gemma3_path: Path) -> None:
    for name, path in {"smollm2-135m-instruct": smollm2_path, "gemma-3-270m": gemma3_path}.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == catalog.CATALOG[name].sha256
