"""Record which type llama.cpp's quantizer gives each tensor, for tests/convert/test_recipes.py.

    python tools/gen_golden_recipes.py FOLDER...      # each with NAME.gguf a recipe, made by llama_model_quantize

Writes tests/convert/golden/recipes.json: for each folder the tensors' shapes and the facts that recipes ask for,
and for each recipe the types in the order of those tensors.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

from gguf import GGUFReader

OUT = Path(__file__).parents[1] / "tests" / "convert" / "golden" / "recipes.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    models = {}
    for folder in parser.parse_args().folders:
        types: dict[str, list[str]] = {}
        shapes: dict[str, list[int]] = {}
        facts: dict[str, int] = {}
        for path in sorted(folder.glob("*.gguf")):
            reader = GGUFReader(path)
            found = {t.name: t for t in reader.tensors}
            if not shapes:
                shapes = {name: [int(n) for n in reversed(t.shape)] for name, t in sorted(found.items())}
                arch = reader.fields["general.architecture"].contents()
                facts = {
                    key: int(reader.fields[f"{arch}.{field}"].contents())
                    for key, field in (("n_layers", "block_count"), ("n_heads", "attention.head_count"),
                                       ("n_kv_heads", "attention.head_count_kv"))
                }
            types[path.stem] = [found[name].tensor_type.name.lower() for name in shapes]
        names = sorted({kind for each in types.values() for kind in each})
        models[folder.name] = {
            "model": facts, "shapes": shapes, "names": names,
            "types": {recipe: " ".join(str(names.index(kind)) for kind in each) for recipe, each in types.items()},
        }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(models, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
