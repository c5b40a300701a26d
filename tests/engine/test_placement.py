"""What ``offload`` may say, and where a model's matrices go then."""

from __future__ import annotations

import pytest

from ggblock.engine.placement import Offload, choose, layer_of, parse
from ggblock.errors import SettingError

SIZES = {f"blk.{i}.{part}.weight": 10 for i in range(12) for part in ("attn_q", "attn_k", "attn_v", "ffn_up")}
SIZES["output.weight"] = 100


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, Offload("none")), ("", Offload("none")), ("none", Offload("none")), (0, Offload("none")),
        ("0", Offload("none")), (12, Offload("layers", 12)), (" 12 ", Offload("layers", 12)), ("all", Offload("all")),
        ("auto", Offload("auto")), (r"blk\.1\.", Offload("tensors", pattern=r"blk\.1\.")),
        (Offload("all"), Offload("all")),
    ],
)  # fmt: skip
def test_parse(value: object, expected: Offload) -> None:
    assert parse(value) == expected


@pytest.mark.parametrize("value", [-1, "-3", "blk.(", "*", True, 1.5, ["all"]])
def test_what_is_not_understood(value: object) -> None:
    with pytest.raises(SettingError, match="offload"):
        parse(value)


def layers(offload: object, **more: object) -> tuple[list[int], bool]:
    """Layers that are whole on the device, and whether the output is."""
    place = choose(parse(offload), SIZES, 12, **more)  # type: ignore[arg-type]
    whole = [i for i in range(12) if all(place.has(name) for name in SIZES if layer_of(name) == i)]
    assert place.n_caches == len(whole) and all(place.attention(i) for i in whole)
    return whole, place.has("output.weight")


def test_numbers_count_from_the_end() -> None:
    assert layers(1) == ([11], False)
    assert layers(3) == ([9, 10, 11], False)
    assert layers(12) == (list(range(12)), False)
    assert layers(13) == layers("all") == layers(99) == (list(range(12)), True)


def test_auto_takes_what_fits_with_its_cache() -> None:
    for free, expected in (
        (99, ([], False)), (144, ([], True)), (145, ([11], True)), (190, ([10, 11], True)),
        (100 + 12 * 45, (list(range(12)), True)),
    ):  # fmt: skip
        assert layers("auto", cache_bytes=5, free_bytes=lambda free=free: free) == expected, free


def test_patterns_place_matrices_one_by_one() -> None:
    place = choose(parse(r"blk\.(1[0-9])\.ffn"), SIZES, 12)
    assert place.names == {"blk.10.ffn_up.weight", "blk.11.ffn_up.weight"} and place.n_caches == 0
    half = choose(parse(r"\.3\.attn_(q|k)"), SIZES, 12)
    assert len(half.names) == 2 and not half.attention(3), "the cache follows all three"
    with pytest.raises(SettingError, match="matches none"):
        choose(parse("blk.77"), SIZES, 12)
