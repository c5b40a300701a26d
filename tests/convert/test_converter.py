"""The conversion of small checkpoints, tensor for tensor and key for key, against what llama.cpp's converter wrote.

Only keys that begin with ``ggblock.`` may be more.
"""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ggblock.convert import convert

from .converter_cases import CASES, TYPES, facts

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "converter.json").read_text())


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("case", CASES)
def test_the_file_is_the_one_that_llama_cpp_writes(tmp_path: Path, case: str, kind: str) -> None:
    CASES[case](tmp_path / case)
    convert(tmp_path / case, tmp_path / "m.gguf", kind)
    found, golden = facts(tmp_path / "m.gguf"), GOLDEN[f"{case} {kind}"]
    keys = [key for key in found["keys"] if not key[0].startswith("ggblock.")]
    changed = {key[0]: key for key in golden["keys"]}
    assert keys == [changed.get(key[0], key) for key in GOLDEN[f"{case} f32"]["keys"]]
    assert found["tensors"] == golden["tensors"]


def test_every_case_is_golden() -> None:
    assert set(GOLDEN) == {f"{case} {kind}" for case in CASES for kind in TYPES}
