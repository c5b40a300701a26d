"""The folder of compiled kernels does not grow for ever."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ggblock.engine import tidy


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GGBLOCK_CACHE", str(tmp_path))
    (tmp_path / "kernels").mkdir()
    return tmp_path / "kernels"


def put(folder: Path, name: str, days: float, n_bytes: int = 100) -> Path:
    """A file that was last used so many days ago."""
    (folder / name).write_bytes(bytes(n_bytes))
    os.utime(folder / name, (time.time() - days * tidy.DAY_S,) * 2)
    return folder / name


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_not_used_for_long_goes(folder: Path) -> None:
    for name, days in (("a.o", 0), ("b.o", 29.9), ("c.o", 30.1), (".new-x", 31), (".new-y", 0), ("notes", 400)):
        put(folder, name, days)
    tidy.tidy()
    assert names(folder) == [".new-y", "a.o", "b.o", "notes"]


def test_beyond_its_bytes_the_longest_unused_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tidy, "KEEP_BYTES", 250)
    for name, days in (("a.o", 3), ("b.o", 1), ("c.o", 2), ("d.o", 0)):
        put(folder, name, days)
    tidy.tidy()
    assert names(folder) == ["b.o", "d.o"]


def test_a_date_changes_once_a_day(folder: Path) -> None:
    today, before = put(folder, "today.o", 0.9), put(folder, "before.o", 1.1)
    dates = [path.stat().st_mtime for path in (today, before)]
    for key in ("today", "before", "missing"):
        tidy.used(key)
    assert today.stat().st_mtime == dates[0] and before.stat().st_mtime > dates[1] + tidy.DAY_S
    assert names(folder) == ["before.o", "today.o"]


def test_no_folder_is_no_fault(folder: Path) -> None:
    folder.rmdir()
    tidy.tidy()
    folder.write_text("in the way")
    tidy.tidy()
    assert folder.read_text() == "in the way"
