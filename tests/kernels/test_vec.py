"""The vector machine of this process: conversions of halves, exponentials, sums and the machine's own operations."""

from __future__ import annotations

import numpy as np
import pytest

from ggblock.simd import vec

from .adhoc import by_sixteen, compiled, emitted
from .harness import EPS, MACHINE

F32 = np.float32


def same_floats(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal to the bit, but any NaN is as good as another."""
    return bool(np.all((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))))


def test_every_half_becomes_its_float() -> None:
    halves = np.arange(65536, dtype=np.uint16)
    result = emitted(32, lambda e, p: e.half_load(p, 0))(halves).reshape(-1).view(F32)
    assert same_floats(result, halves.view(np.float16).astype(F32))


def test_floats_round_to_the_nearest_half() -> None:
    """Every half, every midpoint of two neighbours (ties go to even), and the floats beside both; the edges of the
    range, infinities and NaN. NumPy's conversion is the twin; IEEE 754 leaves no freedom but a NaN's payload."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(F32)
    midpoints = (halves[1:].astype(np.float64) + halves[:-1]) / 2
    exact = np.concatenate([halves, midpoints.astype(F32), F32([65504, 65519.996, 65520, 65536, 1e30, np.inf])])
    around = np.concatenate([exact, np.nextafter(exact, F32(np.inf)), np.nextafter(exact, F32(-np.inf)), F32([np.nan])])
    random = np.random.default_rng(0).integers(0, 1 << 32, 1 << 16, dtype=np.uint64).astype(np.uint32).view(F32)
    values = np.concatenate([around, -around, random])
    load, keep = vec.load, vec.store_half

    def loop(a, b, n):  # type: ignore[no-untyped-def]
        for i in range(n):
            keep(b + 2 * i, load(a + 4 * i, "f32"))

    out = np.empty(len(values), np.uint16)
    compiled(loop)(values, out, len(values))
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    result = out.view(np.float16)
    wrong = (out != expected.view(np.uint16)) & ~(np.isnan(result) & np.isnan(expected))
    assert not wrong.any(), (values[wrong][:5], result[wrong][:5], expected[wrong][:5])


def allowed(in_eps: float) -> float:
    """A bound in EPS for fused steps. Where a multiply-add rounds twice, the last product, a third of the result at
    most, adds EPS / 3 and those before it less: one EPS in all; so does the second step of exp's reduction, of a number
    below 1/32."""
    return (in_eps if MACHINE.has_fma else in_eps + 1) * EPS


def relative(result: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.abs(result.astype(np.float64) - expected) / expected))


def test_exp() -> None:
    """At most 3 EPS from exp. The reduced argument is within 2**-26 (one rounding of a number below 1/2; n times the
    first part of ln 2 is exact), which is EPS / 4 of the result. ``1 + r`` rounds by EPS at most, ``p * r`` by EPS / 5,
    and the last fused step by EPS; results in [0.7, 1) are relatively larger by up to 1.42, but there the first
    of these is halved. The polynomial itself is within 1e-8 (EPS / 6)."""
    x = np.linspace(-87.3, 88, 1 << 20, dtype=F32)
    exp = by_sixteen(vec.vexp)
    assert relative(exp(x), np.exp(x.astype(np.float64))) <= allowed(3)
    edges = np.zeros(16, F32)
    edges[:6] = (-87.5, -1000, -np.inf, 0, 1, -1e-30)
    result = exp(edges)
    assert np.array_equal(result[:3], [0, 0, 0]) and np.array_equal(result[[3, 5]], [1, 1])
    assert abs(float(result[4]) - np.e) <= allowed(3) * np.e
    assert np.isnan(exp(np.full(16, np.nan, F32))).all()
    assert np.isfinite(exp(np.full(16, 1e30, F32))).all(), "above 88 it stays at exp(88)"


def test_exp2() -> None:
    """At most 2 EPS from 2**x: the reduction is exact, the polynomial within 2e-9 (EPS / 30). The last fused step
    rounds a number in [0.7, 1.42) by EPS, below 1 by half of that, so by EPS / 1.4 of the result at most; the one
    before rounds a number below 1 by EPS / 2 and is multiplied by at most 1/2; those before count for less, and
    less."""
    x = np.linspace(-125.9, 127, 1 << 20, dtype=F32)
    exp2 = by_sixteen(vec.vexp2)
    assert relative(exp2(x), np.exp2(x.astype(np.float64))) <= allowed(2)
    whole = np.arange(-126, 126, dtype=F32)[:240]
    assert np.array_equal(exp2(whole), np.exp2(whole)), "powers of two are exact"
    assert np.array_equal(exp2(np.full(16, -3e38, F32)), np.full(16, 2.0**-126, F32))


def test_rounding_to_whole_numbers() -> None:
    """Ties to even, at every size; the sign of a zero does not matter."""
    rng = np.random.default_rng(4)
    halves = np.arange(-40, 40, dtype=F32) / 2
    edges = F32([2**22 + 0.5, 2**22 + 1.5, 2**23 - 0.5, 2**23, 2**23 + 1, 2**24 + 2, 1e30, 0.49999997])
    values = np.concatenate(
        [halves, edges, -edges, (rng.standard_normal(4000) * 10.0 ** rng.uniform(-3, 9, 4000)).astype(F32)]
    )
    assert np.array_equal(by_sixteen(vec.round_even)(values), np.rint(values))


def test_sums_are_taken_in_halves_on_every_machine() -> None:
    values = np.random.default_rng(1).standard_normal((64, 16)).astype(F32) * F32(1000)
    load, keep, total = vec.load, vec.store, vec.sum_of

    def loop(a, b, n):  # type: ignore[no-untyped-def]
        for i in range(n):
            keep(b + 4 * i, total(load(a + 64 * i, "f32x16")))

    out = np.empty(64, F32)
    compiled(loop)(values, out, 64)
    expected = values
    while expected.shape[1] > 1:
        half = expected.shape[1] // 2
        expected = expected[:, :half] + expected[:, half:]
    assert np.array_equal(out, expected[:, 0])


def dot_inputs(low: int, high: int) -> np.ndarray:
    """Rows of 64 left bytes, 64 right bytes, 64 bytes of accumulators: all extremes, then random ones."""
    rng = np.random.default_rng(2)
    rows = np.zeros((400, 192), np.uint8)
    left = rng.integers(low, high + 1, (400, 64))
    right = rng.integers(-127, 128, (400, 64))
    for i, (x, y) in enumerate([(low, -127), (low, 127), (high, -127), (high, 127)]):
        left[i], right[i] = x, y
    left[4], right[4] = np.tile([low, high], 32), np.tile([127, -127], 32)
    rows[:, :64], rows[:, 64:128] = left.astype(np.int16).astype(np.uint8), right.astype(np.int8).view(np.uint8)
    rows[:, 128:] = rng.integers(-(2**28), 2**28, (400, 16)).astype("<i4").view(np.uint8)
    return rows


@pytest.mark.parametrize("kind", ["dot_us", "dot_ss"])
def test_dot_products_are_exact_integers(kind: str) -> None:
    """Including the largest products of either sign, where saturating instructions would fail."""
    signed = kind == "dot_ss"
    rows = dot_inputs(-128, 127) if signed else dot_inputs(0, 127)
    run = emitted(
        192, lambda e, p: getattr(e, kind)(e.load(p, 128, "i32x16"), e.load(p, 0, "i8x64"), e.load(p, 64, "i8x64"))
    )
    left = (rows[:, :64].view(np.int8) if signed else rows[:, :64]).astype(np.int64).reshape(-1, 16, 4)
    right = rows[:, 64:128].view(np.int8).astype(np.int64).reshape(-1, 16, 4)
    bias = MACHINE.signed_bias if signed else 0
    expected = rows[:, 128:].view("<i4") + ((left + bias) * right).sum(2)
    assert np.array_equal(run(rows), expected)


def test_lookup_of_sixteen() -> None:
    table = [-128, 127, 0, 1, -1, 77, -77, 5, 6, 7, -8, 100, -100, 33, 2, 3]
    index = np.random.default_rng(3).integers(0, 16, (300, 64), dtype=np.uint8)
    result = emitted(64, lambda e, p: e.lookup16(table, e.load(p, 0, "i8x64")))(index)
    assert np.array_equal(result.view(np.int8), np.array(table, np.int8)[index])


@pytest.mark.parametrize(("n", "mask"), [(0, 15), (1, 127), (4, 15), (6, 3), (7, 1)])
def test_byte_shifts(n: int, mask: int) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(4, 64)
    right = emitted(64, lambda e, p: e.bytes_lshr(e.load(p, 0, "i8x64"), n, mask))(values).view(np.uint8)
    assert np.array_equal(right, values >> np.uint8(n) & np.uint8(mask))
    small = values & np.uint8(255 >> n)
    left = emitted(64, lambda e, p: e.bytes_shl(e.load(p, 0, "i8x64"), n))(small).view(np.uint8)
    assert np.array_equal(left, small << np.uint8(n))
