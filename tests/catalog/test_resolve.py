"""What MODEL may mean: a file, a catalog name, and everything that is refused in words."""
from __future__ import annotations

from pathlib import Path

import pytest

from ggblock import catalog
from ggblock.errors import NotGguf, SourceUnsupported, UnknownModel

from .conftest import part_bytes


def test_an_existing_file_is_itself(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"x")
    assert catalog.resolve(tmp_path / "m.gguf") == tmp_path / "m.gguf"
    assert catalog.resolve(str(tmp_path / "m.gguf")) == tmp_path / "m.gguf"


def test_a_catalog_name_is_fetched(one: catalog.CatalogEntry) -> None:
    assert catalog.resolve("tiny").read_bytes() == part_bytes(0)


def test_a_folder_with_a_catalog_name_is_in_nobodys_way(
    one: catalog.CatalogEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert catalog.resolve("tiny").read_bytes() == part_bytes(0)
    (tmp_path / "tiny").rmdir()
    (tmp_path / "tiny").write_bytes(b"a file")
    assert catalog.resolve("tiny") == Path("tiny")


def test_a_directory_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(NotGguf, match="is a directory; a model is one file$"):
        catalog.resolve(tmp_path)
    for name in ("b.gguf", "a.gguf", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(NotGguf, match="it holds a.gguf, b.gguf$"):
        catalog.resolve(tmp_path)


@pytest.mark.parametrize("model", ["", "no-such-file.gguf", "~", "a\0b", "x" * 300, "gemma-3-270m/"])
def test_neither_a_file_nor_a_name(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownModel, match="the catalog has smollm2-135m-instruct, gemma-3-270m") as caught:
        catalog.resolve(model)
    assert "\n" not in str(caught.value) and "\0" not in str(caught.value)


def test_a_broken_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link.gguf").symlink_to(tmp_path / "gone.gguf")
    with pytest.raises(UnknownModel):
        catalog.resolve(tmp_path / "link.gguf")


def test_an_address_of_a_kind_to_come_is_refused_in_words() -> None:
    with pytest.raises(SourceUnsupported, match="download the file and give its path"):
        catalog.resolve("hf:someone/something/m.gguf")
