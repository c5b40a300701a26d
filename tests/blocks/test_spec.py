"""The specification in spec/blocks: it says what the code does, and suffices to write a reader."""
from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggblock import blocks
from ggblock.blocks import codebooks
from tools import spec_blocks

SPEC = spec_blocks.load()
VECTORS: dict[str, dict[str, Any]] = spec_blocks.read_toml("vectors")
NAMES = list(blocks.REGISTRY)


def test_specification_and_vectors_cover_the_registry() -> None:
    assert set(SPEC) == set(VECTORS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_layout_in_the_code_is_the_specified_one(name: str) -> None:
    block, spec = blocks.by_name(name), SPEC[name]
    sizes = (block.ggml_id, block.block_size, block.block_bytes, block.sub_block_size)
    assert sizes == (spec["id"], spec["block_size"], spec["block_bytes"], spec["sub_block_size"])
    fields = [
        {"name": f.name, "offset": f.offset, "bytes": f.n_bytes, "count": f.count, "bits": f.bits, "kind": f.kind,
         "meaning": f.meaning} | ({"plane": f.plane} if f.plane else {})
        for f in block.layout
    ]
    assert fields == spec["fields"]


def vector(name: str) -> bytes:
    data = spec_blocks.vector_bytes(name, VECTORS[name]["n_blocks"] * SPEC[name]["block_bytes"])
    assert hashlib.sha256(data).hexdigest() == VECTORS[name]["data_sha256"]
    return data


@pytest.mark.parametrize("name", NAMES)
def test_the_package_decodes_the_vectors(name: str) -> None:
    data = np.frombuffer(vector(name), np.uint8).reshape(-1, blocks.by_name(name).block_bytes)
    assert spec_blocks.float_hash(blocks.by_name(name).decode(data)) == VECTORS[name]["weights_sha256"]


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_driven_by_the_specification_alone_decodes_the_vectors(name: str) -> None:
    assert spec_blocks.float_hash(spec_blocks.decode(SPEC[name], vector(name))) == VECTORS[name]["weights_sha256"]


def test_the_independent_reader_does_not_use_the_package() -> None:
    for tool in ("spec_blocks.py", "gen_golden_blocks.py"):
        source = (Path(spec_blocks.__file__).parent / tool).read_text("utf-8")
        assert "import ggblock" not in source and "from ggblock" not in source


@pytest.mark.parametrize("stem", sorted({spec["page"] for spec in SPEC.values()}))
def test_pages_are_up_to_date(stem: str) -> None:
    assert (spec_blocks.SPEC / f"{stem}.md").read_text("utf-8") == spec_blocks.render(stem)


def test_every_block_file_has_a_page_and_every_page_a_block_file() -> None:
    shared = {"__init__", "api", "base", "codebooks", "k_scales", "registry", "search", "tails"}
    code = {path.stem for path in Path(blocks.__file__).parent.glob("*.py")} - shared
    pages = {path.stem for path in spec_blocks.SPEC.glob("*.md")} - {"README"}
    tests = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert code == pages
    assert code <= tests


@pytest.mark.parametrize("name", ["iq1", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s"])
def test_codebooks_in_the_code_are_the_specified_ones(name: str) -> None:
    grid = getattr(codebooks, name.upper()).grid
    np.testing.assert_array_equal(grid.ravel(), SPEC["iq1_s"]["tables"][name])


def test_the_notation_refuses_what_it_does_not_define() -> None:
    broken = SPEC["q4_0"] | {"decode": ["weight = __import__('os').getpid()"]}
    with pytest.raises((ValueError, KeyError)):
        spec_blocks.decode(broken, vector("q4_0"))
