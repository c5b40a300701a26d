"""The builder: what it emits, what it keeps alive, what it shares."""

from __future__ import annotations

import gc
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ggblock
from ggblock.engine.memory import address, buffer, floats
from ggblock.engine.plan import Builder, bits_of, round_up, tabled_blocks, tabled_slice, tables_of
from ggblock.engine.team import Team
from ggblock.engine.weights import Weight, describe, vector
from ggblock.format.writer import GgufWriter, TensorSpec
from ggblock.kernels import fields
from ggblock.kernels.families import form_of, mode_of_one
from ggblock.simd.host import host


@pytest.fixture
def file(tmp_path: Path) -> ggblock.GgufFile:
    rng = np.random.default_rng(2)
    path = tmp_path / "w.gguf"
    specs = [TensorSpec("a", "f32", (40, 64)), TensorSpec("b", "q4_0", (24, 64)), TensorSpec("v", "f16", (50,))]
    with GgufWriter(path, {"general.architecture": "none"}, specs) as writer:
        for spec in specs:
            values = rng.standard_normal(spec.shape).astype(np.float32)
            writer.write(
                spec.name,
                ggblock.quantize(values, spec.type).reshape(spec.shape[0], -1) if spec.name == "b" else values,
            )
    return ggblock.open(path)


def test_numbers_in_columns() -> None:
    assert round_up(0, 32) == 0 and round_up(1, 32) == 32 and round_up(64, 32) == 64
    assert struct.pack("<q", bits_of(1.5, -2.25)) == struct.pack("<ff", 1.5, -2.25)
    assert struct.pack("<q", bits_of(-0.0)) == struct.pack("<ff", -0.0, 0.0)


@pytest.mark.parametrize("n_bytes", [1, 64, 1000, 5 << 20])
def test_buffers_are_aligned_and_zero(n_bytes: int) -> None:
    data = buffer(n_bytes)
    assert data.shape == (n_bytes,) and address(data) % 64 == 0 and not data.any()
    assert floats(3, 5).shape == (3, 5)


def test_activations_are_written_once_for_each_form(file: ggblock.GgufFile) -> None:
    """Two products of one norm share its row; a matrix of floats needs the float form beside the bytes."""
    builder = Builder(("2", "1"), 1, 16)
    x, y, z = builder.rows(64), builder.rows(40), builder.rows(24)
    ones = floats(64) + 1
    a = builder.norm(x, ones, 1e-6)
    quantized, in_floats = describe(file.tensors["b"]), describe(file.tensors["a"])
    builder.matmul(a, quantized, z)
    builder.matmul(a, quantized, z)
    builder.matmul(a, in_floats, y)
    builder.barrier()
    assert [row[0] for row in builder._rows] == [
        "norm/2/1",
        "matmul/q4_0/2/1",
        "matmul/q4_0/2/1",
        "norm/f/f",
        "matmul/f32/f/f",
    ]
    assert [row[fields.BARRIER] for row in builder._rows] == [
        fields.BATCH,
        fields.NEVER,
        fields.NEVER,
        fields.BATCH,
        fields.ALWAYS,
    ]
    assert builder.kernel_names() == ["norm/2/1", "matmul/q4_0/2/1", "norm/f/f", "matmul/f32/f/f"]


@pytest.mark.parametrize(
    "family, modes, machine, expected",
    [
        ("q2_k", ("2", "1+"), "avx2", "1s"),
        ("q3_k+48", ("2", "1+"), "avx512vbmi", "1s"),
        ("tq2_0", ("2", "1+"), "avx512vbmi", "1+"),
        ("q2_k", ("2", "2"), "neon", "2"),
        ("q4_k", ("2", "1+"), "avx512", "2"),
        ("f16", ("f", "f"), "avx512", "f"),
        ("q1_0", ("2", "1+"), "avx512vbmi", "1t"),
        ("q1_0", ("2", "1+"), "avx512", "1t"),
        ("q1_0", ("2", "1+"), "avxvnni", "1t"),
        ("q1_0", ("2", "1+"), "neon", "1+"),
        ("q1_0", ("2", "2"), "avx512vbmi", "2"),
        ("tq1_0", ("2", "1+"), "avx2", "1+"),
        ("tq1_0_threes", ("2", "1+"), "avx2", "1d"),
        ("q8_0", ("2", "1+"), "avx2", "2w"),
        ("iq4_xs+32", ("2", "2"), "avx2", "2w"),
        ("q8_0", ("2", "1+"), "avxvnni", "2"),
        ("q4_0", ("2", "1+"), "avx2", "1+"),
        ("q6_k+32", ("2", "1+"), "avx2", "1+"),
        ("q4_0", ("2", "2"), "avx2", "2"),
        ("q4_0", ("2", "1+"), "avxvnni", "2"),
        ("q6_k", ("2", "1+"), "avx512", "2"),
        ("f16", ("2", "1+"), "avx2", "2"),
        ("q8_0", ("1", "1"), "avx2", "1"),
    ],
)
def test_how_one_token_is_multiplied_depends_on_type_and_machine(
    family: str, modes: tuple[str, str], machine: str, expected: str
) -> None:
    assert mode_of_one(family, modes, machine) == expected


@pytest.mark.parametrize(
    "family, modes, machine, expected",
    [
        ("q1_0", ("2", "1+"), "avx2", "q1_0_places"),
        ("q1_0", ("2", "1+"), "avx512vbmi", "q1_0"),
        ("q1_0", ("2", "2"), "avx2", "q1_0"),
        ("q1_0+32", ("2", "1+"), "avx2", "q1_0+32"),
        ("tq1_0", ("2", "1+"), "avx512vbmi", "tq1_0_threes"),
        ("tq1_0", ("2", "1+"), "neon", "tq1_0"),
        ("tq1_0", ("f", "f"), "avx2", "tq1_0"),
        ("q4_k", ("2", "1+"), "avx2", "q4_k"),
    ],
)
def test_panels_are_packed_in_the_form_that_one_token_is_multiplied_by(
    family: str, modes: tuple[str, str], machine: str, expected: str
) -> None:
    assert form_of(family, modes, machine) == expected


def test_tables_leave_half_of_a_first_level_of_cache() -> None:
    assert [tabled_blocks("1t", k) for k in (64, 128, 2048, 4096, 8192, 1 << 20)] == [0, 1, 16, 18, 0, 0]
    assert [tabled_blocks("1d", k) for k in (128, 256, 2048, 4096, 8192, 1 << 20)] == [0, 1, 8, 7, 0, 0]


@pytest.mark.parametrize("k", [128, 2048, 2816, 2944, 4096, 5120, 6144, 8192, 11008, 12288, 1 << 16])
def test_slices_of_wide_rows_are_few_and_have_tables_for_all_columns(k: int) -> None:
    width = tabled_slice("1t", k)
    n = -(-k // width)
    assert width % 128 == 0 and tabled_blocks("1t", width) * 128 == width
    assert n == 1 if tabled_blocks("1t", k) * 128 == k else n == -(-k // 2048)
    if k % 256 == 0:
        width = tabled_slice("1d", k)
        assert width % 256 == 0 and tabled_blocks("1d", width) * 256 == width


def test_tables_are_written_for_the_most_columns_that_a_matrix_wants(tmp_path: Path) -> None:
    """Of two matrices of signs that read the same activations, one, which has a bias, is not packed in slices."""
    spec = TensorSpec("w", "q1_0", (16, 4096))
    with GgufWriter(tmp_path / "m.gguf", {"general.architecture": "none"}, [spec]) as out:
        out.write("w", np.zeros((16, 576), np.uint8))
    tensor = ggblock.open(tmp_path / "m.gguf").tensors["w"]
    builder = Builder(("2", "1+"), 1, 1)
    a, y = builder.copy(builder.rows(4096)), builder.rows(16)
    for w in (whole := describe(tensor), sliced := describe(tensor)):
        bias = np.zeros(16, np.float32) if w is whole else None
        builder.matmul(a, w, y, bias=bias)
    if mode_of_one("q1_0", ("2", "1+"), host().machine) == "1t":
        assert (whole.slices, sliced.slices) == ([(0, 32)], [(0, 16), (16, 16)])
        assert [row[fields.A] for row in builder._rows if row[0] == "tables"] == [32]


def test_tables_of_each_kind_have_places_of_their_own() -> None:
    """Matrices of signs, of super-blocks and of signed codes that read the same activations, on several threads."""
    w = Weight(None, "q1_0", 16, 2048)  # type: ignore[arg-type]  # not read
    builder = Builder(("2", "1+"), 3, 1)
    a = builder.copy(builder.rows(2048))
    b = builder._activations("i", 2048)
    places = []
    for mode in ("1t", "1s", "1d", "2w"):
        at, size, n = builder._tables(mode, a, b, b.thread_q, b.thread_meta, w)
        begin = at.ctypes.data - b.q2.ctypes.data
        places.append((begin, begin + 3 * size))
        assert n == tables_of(mode, 2048)[1]
    assert [row[0] for row in builder._rows] == ["tables", "sums", "digits", "wide"]
    edges = [3 * b.thread_q, *(edge for place in sorted(places) for edge in place), b.q2.nbytes]
    assert edges == sorted(edges) and all(begin < end for begin, end in places)


def test_a_product_of_the_wrong_width_is_refused(file: ggblock.GgufFile) -> None:
    builder = Builder(("2", "1"), 1, 16)
    with pytest.raises(AssertionError):
        builder.matmul(builder.copy(builder.rows(32)), describe(file.tensors["b"]), builder.rows(24))


def test_a_matrix_of_two_plans_is_packed_once_and_a_plan_keeps_what_it_needs(file: ggblock.GgufFile) -> None:
    team = Team(2)
    w = describe(file.tensors["a"])
    plans, outputs = [], []
    for _ in range(2):
        builder = Builder(("f", "f"), 2, 16)
        x, y = builder.rows(64), builder.rows(40)
        builder.matmul(builder.copy(x), w, y)
        builder.barrier()
        plans.append(builder.finish(team))
        outputs.append((x.data, y.data))
        packed = address(w.data)
        del builder, x, y
    assert address(w.data) == packed
    values = np.random.default_rng(3).standard_normal(64).astype(np.float32)
    exact = file.tensors["a"].dequantize().astype(np.float64)
    del w
    gc.collect()
    junk = [floats(40, 64) + 9 for _ in range(20)]  # would overwrite memory that was let go of
    for plan, (x_data, y_data) in zip(plans, outputs, strict=True):
        x_data[0, :64] = values
        plan.run(1, 0)
        bound = 66 * 2.0**-24 * (np.abs(exact) @ np.abs(values))  # 64 fused steps, two to spare
        assert (np.abs(y_data[0, :40] - exact @ values) <= bound).all()
    assert len(junk) == 20
    team.close()


def test_vectors_are_padded_with_zeros(file: ggblock.GgufFile) -> None:
    v = vector(file.tensors["v"])
    assert v.dtype == np.float32 and v.shape == (64,) and not v[50:].any()
    assert np.array_equal(v[:50], file.tensors["v"].dequantize())


def test_choosing_forms_imports_no_numba() -> None:
    """Else kernels would not be compiled by children, in parallel: see ``engine.compile``."""
    code = "import sys; from ggblock.kernels.families import FORM_UNITS, form_of, family; "
    code += "[family(name) for name in FORM_UNITS]; form_of('tq1_0', ('2', '1+'), 'avx2'); "
    code += "print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_some_rows_of_a_plan(file: ggblock.GgufFile) -> None:
    """They keep the plan's state, and the waiting that rows left out between them would have done."""
    builder, team = Builder(("2", "1"), 1, 16), Team(1)
    x, y, z = builder.rows(64), builder.rows(24), builder.rows(24)
    a, w = builder.copy(x), describe(file.tensors["b"])
    for to in (y, z, y):
        builder.matmul(a, w, to)
        builder.barrier()
    assert builder.products_to(z, 0, builder.n_rows) == [2]
    assert builder.products_to(z, 3, builder.n_rows) == []
    try:
        plan = builder.finish(team)
        plan.rows[1, fields.BARRIER] = fields.NEVER
        part = plan.only([0, 1, 3])
        assert part.state is plan.state
        assert part.rows[:, fields.BARRIER].tolist() == [fields.BATCH, fields.ALWAYS, fields.ALWAYS]
        assert np.array_equal(part.rows[:, fields.STATE :], plan.rows[[0, 1, 3], fields.STATE :])
        x.data[:5, :64] = np.random.default_rng(1).standard_normal((5, 64), np.float32)
        part.run(5, 0)
        assert y.data[:5, :24].any() and not z.data.any()
    finally:
        team.close()
