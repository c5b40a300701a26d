"""Other machines: those that this CPU can run are run, those that it cannot are compiled and read."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from ggblock.kernels import block_products, families, fields
from ggblock.kernels.families import FAMILIES, mode_of_many
from ggblock.simd import host, machines

from .conftest import must_pass_on, other_machines
from .foreign import tile_assembly, whole_kernels

CODED = tuple(name for name in families.FAMILIES if isinstance(families.family(name), families.Family))
FLOATS = tuple(name for name in families.FAMILIES if name not in CODED)
FAST = ("2", "1+")
ZEN = host.Host("znver4", "", "avx512vbmi")
DOT = {"neon": r"\bsdot\b", "avxvnni": r"\bvpdpbusd\b"}
WORDS = r"\bvp(dpwssd|maddwd)\b"  # LLVM takes the one apart into the other and an addition where that waits less


def test_host_and_machines_agree() -> None:
    """``simd.host`` names machines and what the engine must know of them without the code that makes instructions."""
    assert set(host.MACHINES) == set(machines.MACHINES) == set(host.TILE_TOKENS)
    assert set(host.WORD_MACHINES) == {name for name, m in machines.MACHINES.items() if m.dot_words is not None}
    looks_up = {name for name, m in machines.MACHINES.items() if m.lookup64 or m.lookup_rows}
    assert set(host.TABLE_MACHINES) == looks_up
    assert set(host.PLACE_MACHINES) == {name for name in looks_up if not machines.MACHINES[name].lookup64}
    assert set(host.WIDE_MACHINES) == {name for name, m in machines.MACHINES.items() if m.dot_wide}
    assert all(machines.MACHINES[name].lanes == 16 for name in host.PAIR_MACHINES)
    assert set(host.NARROW_MACHINES) == {name for name, m in machines.MACHINES.items() if m.narrow}
    assert all(name == m.name for name, m in machines.MACHINES.items())


@pytest.mark.parametrize("machine", other_machines())
def test_machine_that_this_cpu_can_run(machine: str, tmp_path: Path) -> None:
    must_pass_on(machine, tmp_path / "base")


@pytest.mark.parametrize("machine", DOT)
@pytest.mark.parametrize("family", ["q2_k+48", "q3_k+48", "q4_k+96", "iq4_xs+32", "tq1_0+96"])
def test_tails_use_it_too(family: str, machine: str) -> None:
    text = tile_assembly(family, machine, 1, "1")
    wanted = families.tail(family).block // 4 * {"neon": 4, "avxvnni": 2}[machine]
    assert len(re.findall(DOT[machine], text)) == wanted
    assert "zmm" not in text
    assert not re.search(r"^\s+(bl|blr|call|callq)\s", text, re.MULTILINE)


@pytest.mark.parametrize("machine", DOT)
@pytest.mark.parametrize("family", CODED)
def test_every_family_uses_the_dot_product(family: str, machine: str) -> None:
    """One dot product instruction for each register of codes and token (TQ1_0 takes two where bytes of full range are
    multiplied), no wider registers than the machine has, and no calls: what LLVM cannot do in instructions it would
    call the C library for."""
    fam, tokens = families.family(family), 1
    text = tile_assembly(family, machine, tokens, "1")
    per_vector = {"neon": 4, "avxvnni": 2}[machine] * (2 if (family, machine) == ("tq1_0", "avxvnni") else 1)
    assert len(re.findall(DOT[machine], text)) == fam.block // 4 * tokens * per_vector
    assert "zmm" not in text
    assert not re.search(r"^\s+(bl|blr|call|callq)\s", text, re.MULTILINE)


@pytest.mark.parametrize("machine", DOT)
@pytest.mark.parametrize("family", CODED)
def test_many_tokens_multiply_bytes_and_do_nothing_else_to_them(family: str, machine: str) -> None:
    """A unit against a tile: eight groups of columns, a dot product each for every token and register. To take blocks
    apart needs none, nor a call."""
    tokens = machines.MACHINES[machine].tile_tokens
    text = tile_assembly(family, machine, tokens, "1")
    assert len(re.findall(DOT[machine], text)) == 8 * tokens * {"neon": 4, "avxvnni": 2}[machine]
    made = tile_assembly(family, machine, 1, "unpack")
    assert not re.search(DOT[machine], made)
    for each in (text, made):
        assert "zmm" not in each
        assert not re.search(r"^\s+(bl|blr|call|callq)\s", each, re.MULTILINE)


@pytest.mark.parametrize("machine", host.PAIR_MACHINES)
@pytest.mark.parametrize("family", [name for name in CODED if mode_of_many(name, FAST, ZEN) == "1p"])
def test_pairs_of_columns_take_fewer_dot_products(family: str, machine: str) -> None:
    """A unit, two or three of whose four pairs of fours of columns are multiplied so, against a tile, without columns
    apart and with them, which take one more for each token: six dot products and four additions of bytes for every
    token, or five and six where 32 columns have one scale."""
    tokens = machines.MACHINES[machine].tile_tokens
    text = tile_assembly(family, machine, tokens, "1p")
    dots, sums = (6, 4) if families.paired_form(families.family(family)).sub == 16 else (5, 6)
    assert len(re.findall(r"\bvpdpbusd\b", text)) == (dots + dots + 1) * tokens
    assert len(re.findall(r"\bvpaddb\b", text)) == 2 * sums * tokens
    assert not re.search(r"^\s+(call|callq)\s", text, re.MULTILINE)


def test_pairs_are_multiplied_where_that_pays() -> None:
    """On Zen 4 with all of AVX-512, by types whose codes leave room for those of activations; elsewhere and
    otherwise codes are multiplied themselves."""
    others = [replace(ZEN, cpu="icelake-server"), replace(ZEN, cpu="znver5"), replace(ZEN, machine="avx2")]
    for name in FAMILIES:
        assert {mode_of_many(name, FAST, other) for other in others} == {"1+"}
        assert mode_of_many(name, ("2", "2"), ZEN) == "2"
    known = {"q4_0": 120, "q4_k+96": 120, "q5_k": 112, "mxfp4": 112, "q2_k": 105, "q6_k+16": 96, "nvfp4": 112}
    known["iq3_s"] = 112
    for name, levels in known.items():
        assert mode_of_many(name, FAST, ZEN) == "1p"
        second = 127 if name in ("q6_k+16", "nvfp4") else levels
        assert families.levels(families.family(name)) == (levels, second)
    for name in ("q3_k", "q8_0", "iq4_xs", "iq3_xxs", "iq2_s", "f16"):
        assert mode_of_many(name, FAST, ZEN) == "1+"


GROUPED = [name for name in CODED if families.in_groups(families.family(name), "avx2", "1+")]


@pytest.mark.parametrize("family", GROUPED)
def test_sums_of_many_columns_are_whole_numbers(family: str) -> None:
    """Of AVX2: eight groups of columns take a product for every token and register, and one what stands apart. They are
    widened once, and become floats once for all units, as do the mins; what stands apart does so by itself."""
    tokens = machines.MACHINES["avx2"].tile_tokens
    text = tile_assembly(family, "avx2", tokens, "group")
    kinds = 1 + families.family(family).has_offsets  # of sums: products, mins
    assert len(re.findall(r"\bvpmaddubsw\b", text)) == (8 + 1) * tokens * 2
    assert len(re.findall(r"\bvpmaddwd\b", text)) == len(re.findall(r"\bvcvtdq2ps\b", text)) == 2 * kinds * tokens * 2
    assert not re.search(r"^\s+(call|callq)\s", text, re.MULTILINE)


def test_which_types_are_summed_so() -> None:
    assert {"q2_k", "q3_k", "q5_k", "q6_k"} <= set(GROUPED)
    assert not {"q4_k", "q4_1", "q8_0", "iq4_xs"} & set(GROUPED)
    for name in GROUPED:
        fam = families.family(name)
        assert not families.in_groups(fam, "avx512vbmi", "1p") and not families.in_groups(fam, "avx2", "2")
        # what 16 columns add up to fits int16, and what a block adds up to int32
        code = max(fam.max_code - int(fam.zero), int(fam.zero))
        lane = code * fields.MOST_SUM
        assert lane < 2**15 and fields.MOST_TIMES * fields.MOST_SUM < 2**15
        assert 2 * fields.ALIKE * fields.MOST_TIMES * fam.max_scale * lane < 2**31


@pytest.mark.parametrize("ahead", [0, 10240])
@pytest.mark.parametrize("family, mode, arms", [("q6_k", "2", 1), ("q4_k", "2", 1), ("q2_k", "1+", 2)])
def test_weights_are_prefetched_where_the_hardware_does_not(
    family: str, mode: str, arms: int, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line of a block once in each way to multiply it, among the dot products, not all before or after them."""
    monkeypatch.setattr(block_products, "AHEAD", ahead)
    text = tile_assembly(family, "avx512vbmi", 1, mode)
    lines = -(-16 * families.family(family).n_bytes // 64)
    found = re.findall(r"\b(prefetcht0|vpdpbusd)\b", text)
    assert found.count("prefetcht0") == (arms * lines if ahead else 0)
    turns = sum(a != b for a, b in itertools.pairwise(found))
    assert turns >= lines // 2 if ahead else not turns
    assert [host.Host(cpu, "", "avx512vbmi").ahead > 0 for cpu in ("znver4", "znver5", "sapphirerapids")] == [0, 1, 0]


@pytest.mark.parametrize("machine", DOT)
@pytest.mark.parametrize("family", FLOATS)
def test_float_families_use_fused_multiply_adds(family: str, machine: str) -> None:
    text = tile_assembly(family, machine, 1, "f")
    assert re.search(r"\bfmla\b" if machine == "neon" else r"\bvfmadd\d+ps\b", text)
    assert not re.search(r"^\s+(bl|blr|call|callq)\s", text, re.MULTILINE)


@pytest.mark.parametrize("machine", host.WORD_MACHINES)
@pytest.mark.parametrize("family", [name for name in FLOATS if families.family(name).in_words])
def test_halves_are_multiplied_as_words(family: str, machine: str) -> None:
    """A unit against a tile: 16 pairs of columns, each one product a token and register of rows."""
    here = machines.MACHINES[machine]
    text = tile_assembly(family, machine, here.tile_tokens, "w")
    assert len(re.findall(WORDS, text)) == 16 * here.tile_tokens * 16 // here.lanes
    assert not re.search(r"^\s+(call|callq)\s", text, re.MULTILINE)


def test_what_floats_are_multiplied_with() -> None:
    """Weights that are halves as words where "1+" allows it and the machine has the products; all else as floats."""
    for name in ("f16", "bf16"):
        assert families.modes_of(name, FAST, "avx2") == families.modes_of(name, FAST, "avx512vbmi") == ("f", "w")
        for modes, machine in ((FAST, "neon"), (FAST, "portable"), (("2", "2"), "avx2"), (("f", "f"), "avx2")):
            assert families.modes_of(name, modes, machine) == ("f", "f")
    assert families.modes_of("f32", FAST, "avx2") == ("f", "f")
    assert families.modes_of("q8_0", FAST, "avx2") == FAST


NEON_KERNELS = {  # kernel -> what its assembly must contain
    "matmul/q4_k/2/1": r"\bsdot\b",
    "matmul/q8_0/f/f": r"\bfmla\b",
    "norm/2/1": r"\bsdot\b",
    "gate/gelu/f/f": r"\bfdiv\b",
    "copy/1/1": r"\bsdot\b",
    "rope/neox/f16/norm": r"\bfcvt\b",
    "attention/3/64/f16": r"\bfmla\b",
    "attention/3/64/q12": r"\bsmlal2?\b|\bmla\b",
    "combine/3/64": r"\bfmla\b",
    "repack": r"\bldr",
    "team": r"\bblr\b",
    "post": r"\bstlr\b|\bldadd|\bstlxr\b",
}


def test_whole_kernels_compile_for_aarch64() -> None:
    """Numba's front end with the machine "neon", LLVM's back end for AArch64. All kernels: ``test_aarch64``."""
    for name, text in whole_kernels(list(NEON_KERNELS)).items():
        assert re.search(NEON_KERNELS[name], text), name
