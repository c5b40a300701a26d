"""The targets of tools/fuzz, on the seeds alone: what the fuzzer starts from is sound or named, everywhere."""
from __future__ import annotations

from pathlib import Path

import pytest

from tools.fuzz import targets

SEEDS = list(targets.seeds())


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
def test_every_seed(name: str, tmp_path: Path) -> None:
    assert len(SEEDS) > 70
    for raw in SEEDS if name not in ("convert", "commands") else SEEDS[-11:]:
        path = tmp_path / "m.gguf"
        path.write_bytes(raw)
        targets.TARGETS[name](path)


def test_words_for_the_fuzzer() -> None:
    words = list(targets.words())
    assert len(set(words)) == len(words) and all(words)
