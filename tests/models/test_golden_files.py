"""The golden files are the ones that their generator wrote, and the naive twins agree with torch on them."""
from __future__ import annotations

import importlib

import pytest

import ggblock
from ggblock.evaluate.divergence import nmse
from tests.models import golden_files


def test_every_file_is_the_reviewed_one() -> None:
    present = {path.name for path in golden_files.FOLDER.iterdir()} - {"index.json"}
    assert present == set(golden_files.INDEX)
    changed = [n for n, sha in golden_files.INDEX.items() if golden_files.digest(golden_files.FOLDER / n) != sha]
    assert changed == []


def test_the_models_cover_what_the_architectures_can_vary() -> None:
    seen: dict[str, set[object]] = {}
    for name in golden_files.NAMES:
        with ggblock.open(golden_files.FOLDER / f"{name}.gguf") as file:
            arch = file.metadata["general.architecture"]
            assert name.startswith(str(arch))
            seen.setdefault(f"{arch} rope", set()).add(file.metadata.get(f"{arch}.rope.scaling.type"))
            seen.setdefault(f"{arch} tied", set()).add("output.weight" not in file.tensors)
            seen.setdefault(f"{arch} divisors", set()).add("rope_freqs.weight" in file.tensors)
            seen.setdefault("types", set()).update(t.type.name for t in file.tensors.values())
    assert seen["llama rope"] == {None, "linear", "yarn"}
    assert seen["llama divisors"] == {False, True}
    assert seen["llama tied"] == {False, True}
    assert seen["gemma3 rope"] == {None, "linear"}
    catalog = {"q4_1", "q8_0", "q5_0", "q4_k", "q6_k", "f32", "f16"}
    assert catalog < seen["types"]
    assert len(seen["types"]) >= 24


@pytest.mark.parametrize("name", golden_files.NAMES)
def test_naive_twin_agrees_with_torch(name: str) -> None:
    golden = golden_files.load(name)
    twin = importlib.import_module(f"tests.naive.{name.split('_')[0]}")
    with ggblock.open(golden.path) as file:
        found = twin.logits(file, golden.ids)
    # Both are float32 sums of at most 256 terms over few layers: rounding alone, about (1e-7)^2 times the depth.
    assert nmse(found[golden.positions], golden.logits) < 1e-11
