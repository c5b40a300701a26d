"""Recipes by their tables alone: spec/recipes.toml and the package's data, against llama.cpp's choices and ours."""
from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggblock.convert import recipes
from tools import spec_blocks, spec_pages, spec_panels

PROCEDURE = spec_pages.read_toml("recipes")
DATA = spec_blocks.tomllib.loads((spec_pages.SPEC.parent / PROCEDURE["data"]).read_text("utf-8"))
SIZES = {"block_size": {name: spec["block_size"] for name, spec in spec_blocks.load().items()}}
SIZES["step"] = SIZES["block_size"] | {
    name: entry["tail"]["step"] for name, entry in spec_panels.load()["types"].items() if "tail" in entry
}
GOLDEN = json.loads((Path(__file__).parents[1] / "convert" / "golden" / "recipes.json").read_text())


@cache
def value(expression: str, **names: int) -> int:
    scope = spec_blocks.Scope({name: np.int64(number) for name, number in names.items()}, {}, {})
    return int(scope.value(ast.parse(expression, mode="eval").body))


def is_plain(name: str, shape: list[int]) -> bool:
    n_dims = len(shape) - next((i for i, n in enumerate(shape) if n != 1), len(shape) - 1)
    return n_dims < 2 or not name.endswith("weight") or any(piece in name for piece in DATA["plain"]["names"])


def class_of(name: str) -> str:
    for kind, pieces in DATA["classes"].items():
        for piece in pieces:
            if name == piece[1:] if piece.startswith("=") else piece in name:
                return str(kind)
    return ""


def choose(
    recipe: str, shapes: dict[str, list[int]], model: dict[str, int], importance: bool, profile: str = "gguf"
) -> dict[str, str]:
    """The procedure of recipes.md, step by step, without overrides."""
    sizes = SIZES[PROCEDURE["fits"][profile]]
    entry = DATA["recipe"][recipe]
    base, matrices = entry["type"], [name for name in shapes if not is_plain(name, shapes[name])]
    order = sorted(matrices, key=lambda name: (int((re.match(r"blk\.(\d+)\.", name) or [0, 1 << 30])[1]), name))
    values, places, counts = PROCEDURE["values"]["tensors"], {}, {"values": 0}
    for name in order:
        kind = "values" if class_of(name) in values else class_of(name)
        places[name] = counts.get(kind, 0)
        counts[kind] = places[name] + 1
    out = {}
    for name in matrices:
        kind, n_cols = class_of(name), shapes[name][-1]
        is_head = kind == "output" or (kind == "token_embd" and "output.weight" not in shapes)
        if base in ("f32", "f16", "bf16"):
            chosen = base
        elif is_head and n_cols % sizes[base]:
            chosen = DATA["head"]["when_it_does_not_fit"]
        elif is_head:
            chosen = base if base in DATA["head"]["unless"] else DATA["head"]["type"]
        else:
            n = max(1, counts["values"]) if kind in values else model["n_layers"]
            chosen = base
            for rule in entry.get("rules", []):
                fits = kind in rule["tensors"]
                if "layers" in rule:
                    fits = fits and value(PROCEDURE["layers"][rule["layers"]], i=places[name], n=n) == 1
                if "kv_group" in rule:
                    fits = fits and model["n_heads"] // model["n_kv_heads"] >= rule["kv_group"]
                if "experts" in rule:
                    fits = fits and (model["n_experts"] == 8) == (rule["experts"] == 8)
                if fits and rule.get("importance", importance) == importance:
                    chosen = rule["type"]
                    break
            for rule in PROCEDURE["above"]:
                if kind in rule["tensors"] and chosen in rule.get("instead_of", [chosen]):
                    chosen = rule["type"] if value(rule["when"], **model) else chosen
        for other in (DATA["fallback"].get(chosen, "f16"), "f16"):
            if n_cols % sizes[chosen]:
                chosen = other
        out[name] = chosen
    return out


@pytest.mark.parametrize("name", GOLDEN)
def test_the_tables_choose_what_llama_cpp_chooses(name: str) -> None:
    facts = GOLDEN[name]
    for recipe, kinds in facts["types"].items():
        expected = dict(zip(facts["shapes"], (facts["names"][int(i)] for i in kinds.split()), strict=True))
        found = choose(recipe, facts["shapes"], {"n_experts": 0, **facts["model"]}, False)
        assert found and found == {tensor: expected[tensor] for tensor in found}, recipe


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_package_chooses_what_the_tables_choose(data: st.DataObject) -> None:
    n_layers = data.draw(st.sampled_from([1, 2, 7, 16, 33, 80]))
    n_kv = data.draw(st.sampled_from([1, 2, 8]))
    facts = {"n_layers": n_layers, "n_heads": n_kv * data.draw(st.sampled_from([1, 4, 8])), "n_kv_heads": n_kv,
             "n_experts": data.draw(st.sampled_from([0, 4, 8]))}  # fmt: skip
    columns = st.sampled_from([256, 640, 96, 40, 512, 144])
    names = ["token_embd.weight", "output_norm.weight", *(["output.weight"] if data.draw(st.booleans()) else [])]
    for part in ("attn_v", "attn_qkv", "attn_k", "attn_output", "ffn_down", "ffn_up", "ffn_gate_inp"):
        names += [f"blk.{i}.{part}.weight" for i in range(n_layers)] if data.draw(st.booleans()) else []
    shapes: dict[str, Any] = {name: [64, data.draw(columns)] for name in names}
    shapes |= {"blk.0.attn_v.bias": [64], "output_norm.weight": [64], "blk.0.ffn_up.lone.weight": [1, 1, 256]}
    name, importance = data.draw(st.sampled_from(sorted(DATA["recipe"]))), data.draw(st.booleans())
    for profile in ("gguf", "ggb"):
        ours = recipes.choose(recipes.recipe(name), shapes, recipes.Model(**facts), importance, profile == "ggb")
        theirs = choose(name, shapes, facts, importance, profile)
        assert {tensor: choice.type.name for tensor, choice in ours.items()} == theirs


def test_rules_say_nothing_that_the_specification_does_not_know() -> None:
    known = {"tensors", "layers", "kv_group", "experts", "importance", "type"}
    for name, entry in DATA["recipe"].items():
        assert set(entry) <= {"type", "file_type", "rules"}, name
        for rule in entry.get("rules", []):
            assert set(rule) <= known and rule.get("layers", "more") in PROCEDURE["layers"]
            assert set(rule["tensors"]) <= set(DATA["classes"])
    assert len({entry["file_type"] for entry in DATA["recipe"].values()}) == len(DATA["recipe"])
