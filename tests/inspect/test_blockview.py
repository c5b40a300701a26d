"""A block taken apart: everything on the page can be computed again from the printed bytes, for every block type."""
from __future__ import annotations

import json
import re
import warnings

import gguf
import libgguf
import numpy as np
import pytest

from ggblock import blocks
from ggblock.inspect import blocktext, formulas, notation
from ggblock.inspect.blockview import BlockView, block_document, ranges_text
from ggblock.inspect.order import Placement
from tests.blocks.common import assert_same_floats, edge_blocks, random_blocks
from tests.blocks.test_oracles import BY_GGUF, BY_LIBGGUF
from tests.inspect import paper
from tools import spec_blocks

NAMES = list(blocks.REGISTRY)


def view_of(name: str, data: np.ndarray) -> BlockView:
    block = blocks.by_name(name)
    return BlockView("w", block, Placement("m.gguf", 0, 0, 1, data, range(1000, 1000 + len(data)), block.block_size))


def samples(name: str) -> list[np.ndarray]:
    block = blocks.by_name(name)
    out = [*random_blocks(name, 2, seed=7), *edge_blocks(name)[[0, 9]]]
    if block.encode is not None:  # what a real file holds: finite scales
        weights = np.random.default_rng(1).standard_normal((1, block.block_size)).astype(np.float32)
        out.append(block.encode(weights)[0])
    return out


@pytest.mark.parametrize("name", NAMES)
def test_the_steps_are_the_specification(name: str) -> None:
    assert list(formulas.STEPS[name]) == spec_blocks.load()[name]["decode"]


def test_the_tables_are_the_specified_ones() -> None:
    spec = spec_blocks.load()
    for name in formulas.TABLES:
        expected = next(entry["tables"][name] for entry in spec.values() if name in entry["tables"])
        np.testing.assert_array_equal(formulas.table(name), np.asarray(expected).ravel())


def assert_oracles_agree(name: str, data: np.ndarray, weights: np.ndarray) -> None:
    if name in BY_GGUF or name in ("f32", "f64", "i8", "i16", "i32", "i64"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            if name in BY_GGUF:
                expected = gguf.dequantize(data[None], gguf.GGMLQuantizationType[name.upper()])
            else:  # numbers that the package hands out as they are
                expected = data.view(f"<{name[0]}{len(data)}").astype(np.float32)
        assert_same_floats(weights, expected)
    if name in BY_LIBGGUF:
        block = blocks.by_name(name)
        expected = libgguf.dequantize_rows(data.reshape(1, -1), block.ggml_id, n_per_row=block.block_size)
        assert_same_floats(weights, np.asarray(expected))


@pytest.mark.parametrize("name", NAMES)
def test_the_printed_text_gives_the_printed_weights_and_those_of_gguf(name: str) -> None:
    for data in samples(name):
        text = "\n".join(blocktext.lines(view_of(name, data)))
        page = paper.read_text(text)
        assert page.data == data.tobytes()
        paper.check_places(page)
        weights = paper.check_claims(page)
        assert_same_floats(weights, blocks.by_name(name).decode(data[None]))
        assert_oracles_agree(name, data, weights)


@pytest.mark.parametrize("name", NAMES)
def test_every_sign_of_the_steps_is_explained(name: str) -> None:
    text = "\n".join(blocktext.lines(view_of(name, samples(name)[0])))
    steps = " ".join(formulas.STEPS[name])
    explained = text.partition("\nnotation (")[2].partition("\n\n")[0]
    for sign in ("//", "%", "&", "|", "<<", ">>", " if ", "pow2(", "popcount(", "f16_bits(", "f32("):
        assert (sign in steps) == (sign in explained), sign
    left = re.sub(r"//|<<|>>|==|[-+*%&|<()\[\]]|\b(if|else)\b|\w+\(?|\.|\s|=", "", steps)
    assert left == "", "a sign that this test does not know"


@pytest.mark.parametrize("name", NAMES)
def test_the_json_gives_the_same(name: str) -> None:
    for data in samples(name)[:2]:
        document = json.loads(json.dumps(block_document(view_of(name, data)), allow_nan=False))
        weights = paper.check_claims(paper.read_json(document))
        assert_same_floats(np.array([np.float32(v) for v in document["weights"]]), weights)


def test_the_paper_notices_a_wrong_digit() -> None:
    text = "\n".join(blocktext.lines(view_of("q4_k", samples("q4_k")[-1])))
    page = paper.read_text(text)
    page.claims["min"][40] = str(np.nextafter(np.float32(page.claims["min"][40]), np.float32(9)))
    with pytest.raises(AssertionError, match="min of weight 40"):
        paper.check_claims(page)


@pytest.mark.parametrize("name", NAMES)
def test_the_stated_bits_are_exactly_those_that_matter(name: str) -> None:
    """A bit that is said to feed a weight can change it; one that is not said to never does."""
    block, rng = blocks.by_name(name), np.random.default_rng(3)
    data = samples(name)[-1]
    view = view_of(name, data)
    weights = block.decode(data[None])[0].view(np.uint32)
    fed = [trace["weight"].feeds for trace in view.traces]
    for _ in range(40):
        byte, bit = int(rng.integers(block.block_bytes)), int(rng.integers(8))
        flipped = data.copy()
        flipped[byte] ^= 1 << bit
        changed = np.flatnonzero(block.decode(flipped[None])[0].view(np.uint32) != weights)
        assert all((byte, bit) in fed[j] for j in changed), f"byte {byte} bit {bit}"
        stated = next(each for each in view.bits[byte] if each.low <= bit <= each.high)
        assert stated.weights == tuple(j for j in range(block.block_size) if (byte, bit) in fed[j])


def test_q4_k_scales_are_told_apart_to_the_bit() -> None:
    view = view_of("q4_k", samples("q4_k")[0])
    low, high = view.bits[4]
    assert (low.low, low.high, low.step, ranges_text(low.weights)) == (0, 5, "multiple", "0-31")
    assert (high.low, high.high, high.step, ranges_text(high.weights)) == (6, 7, "multiple", "128-159")
    code, above = view.bits[16]
    assert (code.low, code.high, code.step, code.weights) == (0, 3, "code", (0,))
    assert (above.low, above.high, above.step, above.weights) == (4, 7, "code", (32,))


@pytest.mark.parametrize("name", NAMES)
def test_every_byte_is_listed_once_with_its_place_in_the_file(name: str) -> None:
    view = view_of(name, samples(name)[0])
    text = "\n".join(blocktext.lines(view))
    section = text.partition("every byte\n")[2].partition("\n\n")[0].split("\n")[1:]
    rows = [line.split()[:4] for line in section]
    data = view.placement.data
    assert rows == [[str(i), str(1000 + i), f"{b:02x}", f"{b:08b}"] for i, b in enumerate(data)]


def test_the_weight_by_hand_ends_in_the_weight() -> None:
    view = view_of("q5_k", samples("q5_k")[-1])
    for j in (0, 100, 255):
        last = list(blocktext.worked(view, j))[-1]
        assert last.startswith("  weight = (scale * code) - min = (")
        assert np.float32(last.rpartition(" = ")[2]) == view.weights[j]


def test_scattered_bytes_are_shown_where_they_lie() -> None:
    """The view asks only for a placement, so an interleaved order needs no change here."""
    block, data = blocks.by_name("q8_0"), samples("q8_0")[0]
    offsets = [16 * i for i in range(len(data))]
    view = BlockView("w", block, Placement("m.ggb", 3, 0, 1, data, offsets, 32, "panels"))
    text = "\n".join(blocktext.lines(view))
    assert "scattered" in text
    assert [line.split()[1] for line in text.partition("every byte\n")[2].splitlines()[1:4]] == ["0", "16", "32"]
    assert block_document(view)["offsets"] == offsets


def test_the_notation_refuses_what_it_does_not_define(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formulas, "STEPS", {**formulas.STEPS, "q8_0": ("weight = [1]",)})
    notation.steps.cache_clear()
    try:
        with pytest.raises(ValueError, match="not part of the notation"):
            view_of("q8_0", samples("q8_0")[0])
    finally:
        notation.steps.cache_clear()
