"""Checkpoints as transformers and torch write them, converted and run: the logits are those of transformers.

Normalised mean squared error of float32 logits in reference mode; two implementations of the same arithmetic differ by
some 1e-13, one wrong row or factor by more than 1e-3.
"""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import ggblock
from ggblock.convert import convert
from ggblock.models import ARCHITECTURES, build

from . import checkpoints as ck

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["gemma3", "llama3", "mistral", "smollm3", "torch"])
@pytest.mark.parametrize("kind", ["f32", "bf16"])
def test_logits_equal_those_of_transformers(tmp_path: Path, name: str, kind: str) -> None:
    folder = tmp_path / name
    shutil.copytree(GOLDEN / name, folder)
    (folder / "tokenizer.json").write_text(json.dumps(ck.tokenizer_json()))
    convert(folder, tmp_path / "m.gguf", kind)
    golden = np.load(folder / "logits.npz")
    with ggblock.open(tmp_path / "m.gguf") as file:
        assert file.metadata["general.architecture"] == (name if name in ARCHITECTURES else "llama")
        model = build(file, threads=1, reference=True, kv_type="f32")
        logits = model.forward(golden["ids"], 0, all_logits=True)
        model.close()
    error = np.square(logits - golden["logits"]).sum() / np.square(golden["logits"]).sum()
    assert error < 1e-10 and np.std(golden["logits"]) > 0.1
