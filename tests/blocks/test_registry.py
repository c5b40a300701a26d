"""The table of types: complete, consistent, withdrawn ids refused by name."""
from __future__ import annotations

import dataclasses

import gguf
import pytest

from ggblock import blocks, errors


def test_every_type_of_the_gguf_package_is_known_with_its_sizes() -> None:
    for member in gguf.GGMLQuantizationType:
        block = blocks.by_id(int(member))
        assert block.name == member.name.lower()
        if block.name != "q8_1":  # the package says 40 bytes; ggml itself has had 36 since its scales became halves
            assert (block.block_size, block.block_bytes) == gguf.GGML_QUANT_SIZES[member]


def test_names_and_ids_lead_to_the_same_type() -> None:
    for name, block in blocks.REGISTRY.items():
        assert blocks.by_name(name) is blocks.by_name(block.label) is blocks.by_id(block.ggml_id) is block


@pytest.mark.parametrize(
    ("ggml_id", "name"),
    [(4, "q4_2"), (5, "q4_3"), (31, "q4_0_4_4"), (32, "q4_0_4_8"), (33, "q4_0_8_8"), (36, "iq4_nl_4_4"),
     (37, "iq4_nl_4_8"), (38, "iq4_nl_8_8")],
)
def test_withdrawn_types_are_named(ggml_id: int, name: str) -> None:
    for find, key in ((blocks.by_id, ggml_id), (blocks.by_name, name)):
        with pytest.raises(errors.RemovedType, match=name.upper()):
            find(key)


@pytest.mark.parametrize("ggml_id", [-1, 43, 1000, 2**32 - 1])
def test_unknown_id(ggml_id: int) -> None:
    with pytest.raises(errors.UnknownType, match=str(ggml_id)) as caught:
        blocks.by_id(ggml_id)
    assert not isinstance(caught.value, errors.RemovedType)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(errors.UnknownType) as caught:
        blocks.by_name("q4_x")
    assert "q4_x" in str(caught.value) and "q4_k" in str(caught.value)


def test_the_registry_is_read_only() -> None:
    with pytest.raises(TypeError):
        blocks.REGISTRY["q4_k"] = blocks.by_name("q4_0")  # type: ignore[index]


def test_bits_per_weight_and_rows() -> None:
    q4_k = blocks.by_name("q4_k")
    assert (q4_k.bits_per_weight, q4_k.n_sub_blocks, q4_k.row_bytes(512), q4_k.row_bytes(0)) == (4.5, 8, 288, 0)
    for n_cols in (-256, 1, 255, 640):
        with pytest.raises(ValueError, match="Q4_K"):
            q4_k.row_bytes(n_cols)


def test_a_layout_that_does_not_add_up_is_refused() -> None:
    q4_0 = blocks.by_name("q4_0")
    d, qs = q4_0.layout
    for broken in (
        (d,),  # too short
        (d, dataclasses.replace(qs, offset=3)),  # a gap
        (d, dataclasses.replace(qs, count=31)),  # bits do not fill the bytes
        (d, dataclasses.replace(qs, plane=5)),  # planes do not fill the bytes
        (d, dataclasses.replace(qs, plane=0)),  # codes without an arrangement
        (d, dataclasses.replace(qs, kind="nibbles")),
        (dataclasses.replace(d, bits=8, n_bytes=1), qs),
        (d, dataclasses.replace(qs, name="d")),
    ):
        with pytest.raises(ValueError, match="q4_0"):
            dataclasses.replace(q4_0, layout=broken)


def test_every_code_has_its_own_bits() -> None:
    for block in blocks.REGISTRY.values():
        for field in block.layout:
            if field.kind != "uint":
                continue
            places = {field.place(i) for i in range(field.count)}
            assert len(places) == field.count
            assert all(field.offset <= at < field.end and shift % field.bits == 0 for at, shift in places)


def test_decoders_refuse_other_arrays() -> None:
    import numpy as np

    decode = blocks.by_name("q4_0").decode
    for wrong in (np.zeros((2, 17), np.uint8), np.zeros(18, np.uint8), np.zeros((2, 18), np.int8)):
        with pytest.raises(ValueError, match="18"):
            decode(wrong)
