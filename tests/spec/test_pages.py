"""The pages of spec/ and its tables: made from each other, equal to the code, and linked."""
from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

from ggblock import blocks
from ggblock.blocks import registry
from ggblock.format import byteorder, checksums, ggb, splits
from tools import spec_blocks, spec_pages

SPEC = spec_pages.SPEC
CONTAINER, PANELS = spec_pages.read_toml("container"), spec_pages.read_toml("panels")


@pytest.mark.parametrize("page", sorted({page for page, _, _ in spec_pages.TABLES}))
def test_tables_in_pages_are_up_to_date(page: str) -> None:
    assert (SPEC / page).read_text("utf-8") == spec_pages.rendered(page)


def test_the_profile_is_the_code_s() -> None:
    """The units and tails: tests/format/test_panels.py."""
    profile = PANELS["profile"]
    assert (profile["version_key"], profile["kept_alignment_key"]) == (ggb.VERSION, ggb.OLD_ALIGNMENT)
    assert (profile["version"], profile["alignment"]) == (ggb.WRITE_VERSION, ggb.ALIGNMENT)
    assert profile["required"] == {checksums.TENSORS: "str[]", checksums.HEADER: "str"}


def test_the_page_of_panels_says_the_profile_s_numbers() -> None:
    text, profile = (SPEC / "panels.md").read_text("utf-8"), PANELS["profile"]
    for said in (
        f"`0x{PANELS['first_id']:08x} + id`", f"`{profile['alignment_key']}` is {profile['alignment']} (u32)",
        f"`{profile['version_key']}` is {profile['version']} (u32)", f"`{profile['kept_alignment_key']}`",
        f"panels of {PANELS['rows']} rows", f"{PANELS['types'][0]['columns']} columns count as one block",
    ):  # fmt: skip
        assert said.lower() in " ".join(text.lower().split()), said


def test_other_tables_of_the_container_are_the_code_s() -> None:
    assert {entry["id"]: entry["name"] for entry in CONTAINER["removed_type"]} == {
        number: name for number, (name, _) in registry.REMOVED.items()
    }
    assert set(CONTAINER["byte_order"]["numbers"]) == byteorder._NUMBERS
    assert [CONTAINER["split"][key] for key in ("number", "count", "tensors")] == [
        splits.NUMBER, splits.COUNT, splits.TENSORS
    ]  # fmt: skip
    assert CONTAINER["checksums"] == {"tensors": checksums.TENSORS, "header": checksums.HEADER}
    text = (SPEC / "blocks" / "README.md").read_text("utf-8").lower()
    for entry in CONTAINER["removed_type"]:
        assert f"{entry['id']} {entry['name']}" in " ".join(text.split())


def test_the_keys_are_those_that_the_package_names() -> None:
    """Every text in the code that looks like a key of ours and is no module."""
    named, root = set(), Path(blocks.__file__).parents[1]
    modules = {path.stem for path in root.iterdir()}
    for path in root.rglob("*.py"):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text if '"ggblock.' in text else "")):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if re.fullmatch(r"ggblock(\.[a-z_0-9]+)+", node.value) and node.value.split(".")[1] not in modules:
                    named.add(node.value)
    named |= {ggb.VERSION, ggb.OLD_ALIGNMENT}  # put together in the code
    assert named == {key["name"] for key in CONTAINER["key"]}


#: Tables that a person wrote, by the first cell of their head, and what holds them against the rest.
WRITTEN = {
    ("README.md", ""): "links", ("blocks/README.md", ""): "links", ("blocks/README.md", "kind"): "test_kinds_of_fields",
    ("blocks/README.md", "notation"): "the readers", ("container.md", "part"): "tests/format/test_spec.py",
    ("container.md", "key"): "test_the_keys_are_those_that_the_package_names",
    ("json/README.md", "command"): "tests/inspect/schemas.py", ("panels.md", "type"): "tests/format/test_panels.py",
    ("reader.md", ""): "links", ("versioning.md", "number"): "prose", ("versioning.md", "unknown"): "prose",
}


def test_every_table_is_made_from_a_table_or_known() -> None:
    found = set()
    for page in PAGES:
        text = (SPEC / page).read_text("utf-8")
        if text.startswith("<!-- Made from"):
            continue  # by tools/spec_blocks.py; tests/blocks/test_spec.py makes it again
        text = re.sub(r"<!-- (\w+): made by .*?<!-- end of \1 -->", "", text, flags=re.DOTALL)
        lines = text.splitlines()
        for head, rule in pairwise(lines):
            if re.fullmatch(r"\|(-+\|)+", rule):
                found.add((page, head.strip("|").split("|")[0].strip()))
    assert found == set(WRITTEN)


def test_kinds_of_fields() -> None:
    """The kinds that the blocks' fields have are those that blocks/README.md explains."""
    text = (SPEC / "blocks" / "README.md").read_text("utf-8").split("## Fields")[1].split("## Decoding")[0]
    explained = {kind for line in text.splitlines() if line.startswith("| `") for kind in
                 re.findall(r"`(\w+)`", line.split("|")[1])}  # fmt: skip
    used = {field["kind"] for spec in spec_blocks.load().values() for field in spec["fields"]}
    assert used <= explained and explained - used <= {"u16", "u32"}


PAGES = sorted(path.relative_to(SPEC).as_posix() for path in SPEC.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (SPEC / page).read_text("utf-8")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert all((SPEC / page).parent.joinpath(link).exists() for link in links), links
    for name in re.findall(r"`((?:tests|tools|spec|ggblock)/[\w./-]+\.(?:py|toml|md|json))`", text):
        assert (SPEC.parent / name).exists(), name


def test_repository_root_is_where_the_tests_think() -> None:
    assert (SPEC.parent / "pyproject.toml").exists() and Path(__file__).parents[2] == SPEC.parent
