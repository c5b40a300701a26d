"""Recipes: the same type for every tensor as llama.cpp's quantizer, overrides, files of a person's own, faults."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ggblock import blocks, errors
from ggblock.convert.recipes import Model, choose, class_of, fitting, is_plain, recipe, recipe_names

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "recipes.json").read_text())
CASES = [(model, name) for model, facts in GOLDEN.items() for name in facts["types"]]


def test_the_golden_file_covers_every_recipe_that_llama_cpp_shares() -> None:
    assert {name for _, name in CASES} == set(recipe_names()) - {"q1_0", "q2_0"}
    assert len(CASES) == 21 * 5


@pytest.mark.parametrize(("model", "name"), CASES)
def test_every_tensor_gets_the_type_that_llama_cpp_gives_it(model: str, name: str) -> None:
    facts = GOLDEN[model]
    expected = dict(zip(facts["shapes"], (facts["names"][int(i)] for i in facts["types"][name].split()), strict=True))
    found = choose(recipe(name), facts["shapes"], Model(**facts["model"]), importance=False)
    assert {tensor: choice.type.name for tensor, choice in found.items()} == {
        tensor: kind for tensor, kind in expected.items() if not is_plain(tensor, facts["shapes"][tensor])
    }


SHAPES = {
    "token_embd.weight": (512, 256), "output_norm.weight": (256,),
    **{f"blk.{i}.{name}.weight": (256, 256) for i in range(16) for name in ("attn_v", "attn_k", "ffn_down", "ffn_up")},
}
MODEL = Model(16, 8, 8)


def test_overrides_come_first_and_pure_leaves_no_rule() -> None:
    chosen = choose(recipe("q4_k_m", overrides=["attn_v=q8_0", r"blk\.1\.=q2_k"]), SHAPES, MODEL, False)
    assert {c.type.name for n, c in chosen.items() if "attn_v" in n} == {"q8_0"}
    assert chosen["blk.1.ffn_up.weight"].type.name == "q2_k"
    assert chosen["blk.2.ffn_up.weight"].type.name == "q4_k"
    pure = choose(recipe("q4_k_m", pure=True), SHAPES, MODEL, False)
    assert {c.type.name for c in pure.values()} == {"q4_k"}


def test_importance_and_experts_change_some_choices() -> None:
    with_it = choose(recipe("q4_0"), SHAPES, MODEL, True)
    assert [with_it[f"blk.{i}.ffn_down.weight"].type.name for i in (0, 1, 2)] == ["q4_1", "q4_1", "q4_0"]
    mixture = choose(recipe("q4_k_m"), SHAPES, Model(16, 8, 8, 8), False)
    assert {mixture[f"blk.{i}.attn_{x}.weight"].type.name for i in range(16) for x in "vk"} == {"q8_0"}
    large = {name.replace("blk.", "blk."): shape for name, shape in SHAPES.items()}
    seventy = choose(recipe("q3_k_s"), large, Model(80, 64, 8), False)
    assert seventy["blk.0.attn_v.weight"].type.name == "q5_k"


def test_a_recipe_file_adds_rules_before_those_of_its_base(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('base = "q4_k_m"\nrules = [{ tensors = ["ffn_up"], layers = "first 2", type = "q8_0" }]\n')
    chosen = choose(recipe(None, file=str(path)), SHAPES, MODEL, False)
    assert [chosen[f"blk.{i}.ffn_up.weight"].type.name for i in (0, 1, 2)] == ["q8_0", "q8_0", "q4_k"]
    assert chosen["blk.0.ffn_down.weight"].type.name == "q6_k"
    path.write_text('type = "q5_0"\nfile_type = 8\n')
    assert choose(recipe(None, file=str(path)), SHAPES, MODEL, False)["blk.9.attn_k.weight"].type.name == "q5_0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base = "q9_k"', "unknown type or recipe"), ("rules = [", "no valid TOML"),
        ('type = "q4_0"\ncolour = 1', "a recipe has a type"), ('type = "iq1_s"', "cannot|can be read"),
        ('base = "q4_0"\nrules = [{ tensors = ["nose"], type = "q4_0" }]', "unknown class"),
        ('base = "q4_0"\nrules = [{ tensors = ["attn_v"], layers = "odd", type = "q4_0" }]', "unknown layers"),
        ('base = "q4_0"\nrules = [{ tensors = ["attn_v"] }]', "a rule is a table"),
        ('base = "q4_0"\nrules = [{ tensors = ["attn_v"], type = "q7" }]', "unknown block type"),
    ],
)  # fmt: skip
def test_faults_of_recipe_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(errors.SettingError, match=message):
        recipe(None, file=str(path))


@pytest.mark.parametrize("override", ["attn_v", "=q4_0", "(=q4_0", "attn_v=q9", "attn_v=iq2_xs"])
def test_faults_of_overrides(override: str) -> None:
    with pytest.raises(errors.SettingError):
        recipe("q4_0", overrides=[override])


def test_an_override_that_fits_nothing_is_a_fault() -> None:
    with pytest.raises(errors.SettingError, match="fits no tensor"):
        choose(recipe("q4_0", overrides=["nose=q8_0"]), SHAPES, MODEL, False)


def test_classes_and_fallbacks() -> None:
    assert [class_of(n) for n in ("output.weight", "blk.0.attn_output.weight", "blk.3.attn_qkv.weight", "x")] == [
        "output", "attn_output", "attn_qkv", ""
    ]  # fmt: skip
    assert fitting(blocks.by_name("q4_k"), 640).name == "q5_0"
    assert fitting(blocks.by_name("q4_k"), 512).name == "q4_k"
    assert fitting(blocks.by_name("q4_k"), 40).name == "f16"
    assert fitting(blocks.by_name("q8_0"), 40).name == "f16"


def test_the_specification_tells_the_same_fallbacks() -> None:
    text = (Path(__file__).parents[2] / "spec" / "recipes.md").read_text("utf-8")
    section = " ".join(text.split("## Rows that do not fit")[1].split("##")[0].split())
    for many, one in (("Q2_K, Q3_K, TQ1_0, TQ2_0 and Q2_0", "Q4_0"), ("Q4_K", "Q5_0"), ("IQ4_XS", "IQ4_NL")):
        assert many in section and one in section
        for name in many.replace(" and ", ", ").split(", "):
            assert fitting(blocks.by_name(name), 32 * 9).name == one.lower()
    for name, other in (("Q5_K", "Q5_1"), ("Q6_K", "Q8_0")):
        assert f"{name} {other}" in section and fitting(blocks.by_name(name), 32 * 9).name == other.lower()
