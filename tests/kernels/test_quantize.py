"""Quantizers: errors against ggml's, the same bytes everywhere, fixed points, extremes, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import libgguf
import numpy as np
import pytest

import ggblock
from ggblock import blocks, errors
from ggblock.convert.encode import decode_rows, encode_rows, encode_stored, prepare
from ggblock.kernels.quantizers import MODULES

from .conftest import other_machines
from .quantizer_inputs import COLUMNS, KINDS, TYPES, digest, importance, weights

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((Path(__file__).parent / "quantizers.json").read_text())

#: libgguf knows no Q2_0; F16 and BF16 are compared with NumPy.
AGAINST_GGML = [name for name in TYPES if name not in ("f16", "bf16", "q2_0")]
SCALED = [name for name in TYPES if name not in ("f16", "bf16")]

#: Root mean square error over that of the weights, "normal", without importance: measured, and 2 % more allowed.
NORMAL_ERROR = {
    "q4_0": 0.0781, "q4_1": 0.0681, "q5_0": 0.0386, "q5_1": 0.0327, "q8_0": 0.0052, "q2_k": 0.2612, "q3_k": 0.1406,
    "q4_k": 0.0687, "q5_k": 0.0339, "q6_k": 0.0165, "iq4_nl": 0.0719, "iq4_xs": 0.0725, "tq1_0": 0.4239,
    "tq2_0": 0.4239, "q1_0": 0.5914, "q2_0": 0.3471, "mxfp4": 0.1103,
}

#: One type for each way of searching and packing: what is compiled anew for another machine.
ELSEWHERE = ("bf16", "q4_0", "q4_1", "q8_0", "q2_k", "q4_k", "q3_k", "iq4_nl", "tq1_0", "mxfp4")


def error(x: np.ndarray, data: np.ndarray, name: str, given: np.ndarray | None) -> float:
    """The sum of squared errors, each counted by its column's importance."""
    miss = blocks.dequantize(data, name, x.shape).astype(np.float64) - x
    return float(((1.0 if given is None else given) * miss**2).sum())


def ggml(x: np.ndarray, name: str, given: np.ndarray | None) -> np.ndarray:
    made = libgguf.quantize_rows(x, blocks.by_name(name).ggml_id, imatrix=given)
    return np.asarray(made).view(np.uint8).reshape(len(x), -1)


@pytest.mark.parametrize("name", AGAINST_GGML)
def test_no_more_error_than_ggml(name: str) -> None:
    """For every kind of weights, with and without importance. Allowed is float16's own rounding of an exact fit."""
    worse = {}
    for kind in KINDS:
        x = weights(kind)
        for given in (None, importance()):
            ours, theirs = (
                error(x, encode_rows(x, name, given), name, given),
                error(x, ggml(x, name, given), name, given),
            )
            exact = 2.0**-26 * error(x, np.zeros_like(encode_rows(x, name)), name, given)
            slack = 1.01 if (name, kind) == ("q3_k", "offset") else 1 + 1e-6
            if ours > slack * theirs + exact:
                worse[kind, given is not None] = ours / theirs
    assert worse == {}


@pytest.mark.parametrize(
    "name",
    ["q4_0", "q5_0", "q4_1", "q5_1", "q2_k", "q4_k", "q5_k", "q6_k", "q3_k", "iq4_nl", "iq4_xs", "tq2_0", "mxfp4"],
)
def test_less_error_than_ggml_on_weights_like_a_models(name: str) -> None:
    for kind in ("normal", "heavy"):
        x = weights(kind, 64)
        for given in (None, importance()):
            assert error(x, encode_rows(x, name, given), name, given) < 0.99 * error(
                x, ggml(x, name, given), name, given
            )


@pytest.mark.parametrize("name", NORMAL_ERROR)
def test_error_on_normal_weights(name: str) -> None:
    x = weights("normal", 64)
    relative = np.sqrt(error(x, encode_rows(x, name), name, None) / (x.astype(np.float64) ** 2).sum())
    assert relative <= 1.02 * NORMAL_ERROR[name]


@pytest.mark.parametrize("value", [0.3, -0.3, 0.7, 1.1, -2.3, 6e4])
@pytest.mark.parametrize("name", SCALED)
def test_constant_rows(name: str, value: float) -> None:
    """Exact but for the rounding of a float16 (2**-11) or two; with an importance, of a few columns' sums."""
    x = np.full((3, 1024), value, np.float32)
    bound = {"q3_k": 2**-10, "mxfp4": 0.2, "q8_0": 2**-8}.get(name, 2**-9)
    for given in (None, importance()):
        assert (
            np.sqrt(
                error(x, encode_rows(x, name, given), name, given)
                / error(x, np.zeros_like(encode_rows(x, name)), name, given)
            )
            <= bound
        )


@pytest.mark.parametrize("name", TYPES)
def test_zeros_stay_zeros(name: str) -> None:
    x = np.zeros((2, 512), np.float32)
    for given in (None, importance(512)):
        assert not blocks.dequantize(encode_rows(x, name, given), name, x.shape).any()


@pytest.mark.parametrize("name", [name for name in SCALED if name not in ("mxfp4",)])
def test_weights_that_fit_a_type_already_stay_as_they_are(name: str) -> None:
    x = weights("normal")
    once = blocks.dequantize(encode_rows(x, name), name, x.shape)
    again = encode_rows(once, name)
    # another of several almost equal fits of scales and mins may win: 0.013 measured for Q2_K
    bound = {"q2_k": 0.016, "q3_k": 0.004, "q4_k": 0.004, "q5_k": 0.004, "q6_k": 0.004, "iq4_xs": 0.004}.get(name, 1e-4)
    assert np.sqrt(error(once, again, name, None) / (once.astype(np.float64) ** 2).sum()) <= bound


@pytest.mark.parametrize("name", ["q4_0", "q2_k", "q4_k", "q6_k", "iq4_xs", "q5_1", "mxfp4", "tq2_0"])
def test_importance_lowers_the_weighted_error(name: str) -> None:
    x, given = weights("heavy"), importance()
    assert error(x, encode_rows(x, name, given), name, given) < 0.98 * error(x, encode_rows(x, name), name, given)


@pytest.mark.parametrize("name", ["q4_k", "q6_k", "q4_0"])
def test_only_ratios_of_importances_count(name: str) -> None:
    x, given = weights("normal"), importance()
    expected = encode_rows(x, name, given)
    for factor in (2.0**-90, 2.0**70):
        np.testing.assert_array_equal(encode_rows(x, name, given * np.float32(factor)), expected)
    np.testing.assert_array_equal(encode_rows(x, name, np.zeros(COLUMNS, np.float32)), encode_rows(x, name))
    assert np.isfinite(
        blocks.dequantize(encode_rows(x, name, (np.arange(COLUMNS) % 300 == 0).astype(np.float32)), name, x.shape)
    ).all()


def test_q8_0_has_ggmls_bytes() -> None:
    for kind in KINDS:
        np.testing.assert_array_equal(encode_rows(weights(kind), "q8_0"), ggml(weights(kind), "q8_0", None))


def test_floats_are_rounded_as_numpy_does() -> None:
    exponents = np.random.default_rng(1).uniform(-45, 38.53, 40000)
    odd = [65519.9, 65520, 65504, 2**-25, 1.5 * 2**-25, 2**-24, 0, -0.0, np.inf, -np.inf, 3.4e38, 2**-133, 1e-45]
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    middles = (halves[1:31744].astype(np.float32) + halves[:31743].astype(np.float32)) / 2  # ties
    x = np.concatenate([10.0**exponents * np.resize([1, -1], 40000), odd, halves[~np.isnan(halves)], middles]).astype(
        np.float32
    )
    for name in ("f32", "f16", "bf16"):
        np.testing.assert_array_equal(ggblock.quantize(x, name), blocks.quantize(x, name))
    assert np.isnan(blocks.dequantize(ggblock.quantize(np.full(32, np.nan), "f16"), "f16", 32)).all()
    assert np.isnan(blocks.dequantize(ggblock.quantize(np.full(32, np.nan), "bf16"), "bf16", 32)).all()


@pytest.mark.parametrize("name", ["f16", "bf16", "q4_0"])
def test_rows_are_decoded_exactly(name: str) -> None:
    every = np.arange(65536, dtype="<u2")
    raw = every.view(np.uint8).reshape(2, -1) if name != "q4_0" else encode_rows(weights("normal"), name)
    for part in (raw, raw[:, :72], raw[:1, :18]):
        expected = blocks.by_name(name).decode(np.ascontiguousarray(part).reshape(-1, blocks.by_name(name).block_bytes))
        got = decode_rows(part, name)
        np.testing.assert_array_equal(got, expected.reshape(len(part), -1))
        assert got.shape[0] == len(part) and got.dtype == np.float32


# --- the same bytes everywhere
@pytest.mark.parametrize("name", TYPES)
def test_golden_bytes_for_any_number_of_threads(name: str) -> None:
    assert digest(name, 1) == GOLDEN[name]
    assert digest(name, 3) == GOLDEN[name]


@pytest.mark.parametrize("machine", other_machines())
def test_golden_bytes_on_other_machines(machine: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.kernels.quantizer_inputs", *ELSEWHERE],
        cwd=ROOT,
        check=True,
        env={**os.environ, "GGBLOCK_MACHINE": machine},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert json.loads(run.stdout) == {name: GOLDEN[name] for name in ELSEWHERE}


def test_every_quantizer_is_tested() -> None:
    assert set(TYPES) == set(MODULES) == set(GOLDEN)


@pytest.mark.parametrize("name", TYPES)
def test_a_row_alone_gives_the_same_bytes(name: str) -> None:
    """Rows that do not fill the 16 lanes, and wherever a row lies."""
    x, given = weights("mixed")[:, :512], importance(512)
    whole = encode_rows(x, name, given)
    for i in (0, 7, len(x) - 1):
        np.testing.assert_array_equal(encode_rows(x[i : i + 1], name, given), whole[i : i + 1])


@pytest.mark.parametrize("source", ["f16", "bf16", "f32"])
@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "q8_0", "q4_k", "q6_k"])
def test_numbers_as_they_are_stored_give_the_same_bytes(name: str, source: str) -> None:
    x = blocks.dequantize(blocks.quantize(weights("mixed"), source), source, weights("mixed").shape)
    raw = blocks.quantize(x, source)
    for given in (None, importance()):
        np.testing.assert_array_equal(encode_stored(raw, source, name, given), encode_rows(x, name, given))
    part = np.ascontiguousarray(raw[1:2, : raw.shape[1] // 2])
    np.testing.assert_array_equal(encode_stored(part, source, name), encode_rows(x[1:2, :512], name))


@pytest.mark.parametrize("source", ["f16", "bf16", "f32"])
@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_stored_numbers_that_are_not_finite(name: str, source: str, bad: float) -> None:
    x = np.ones((3, 64), np.float32)
    x[2, 63] = bad
    raw = blocks.quantize(x, source)
    with pytest.raises(errors.NonFiniteWeight, match="row 12, column 63"):
        encode_stored(raw, source, name, first_row=10)
    if name != "q8_0":
        kept = blocks.dequantize(encode_stored(raw, source, name, allow_nonfinite=True), name, x.shape)
        np.testing.assert_array_equal(kept, x)
    tiny = np.ascontiguousarray(raw[2:, -8:])          # fewer numbers than a vector holds
    if name != "q8_0":
        with pytest.raises(errors.NonFiniteWeight):
            encode_stored(tiny, source, name)


def test_the_public_function_gives_the_bytes_of_a_conversion() -> None:
    x, given = weights("normal"), importance()
    np.testing.assert_array_equal(ggblock.quantize(x.astype(np.float64), "Q4_K", given), encode_rows(x, "q4_k", given))
    np.testing.assert_array_equal(ggblock.quantize(x[0], blocks.by_name("q6_k")), encode_rows(x[:1], "q6_k"))
    assert ggblock.quantize(x.reshape(2, 3, -1, COLUMNS), "q8_0").shape == (len(x), COLUMNS // 32 * 34)
    assert encode_rows(x[:0], "q4_k").shape == (0, COLUMNS // 256 * 144)
    np.testing.assert_array_equal(ggblock.quantize(x, "f64"), blocks.quantize(x, "f64"))  # no compiled quantizer


# --- refusals
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 65536.0])
@pytest.mark.parametrize("name", SCALED)
def test_a_weight_that_does_not_fit_is_named(name: str, bad: float) -> None:
    x = weights("normal", 40)
    x[37, 300], x[38, 5] = bad, np.nan
    for allow in (False, True):
        with pytest.raises(errors.NonFiniteWeight, match=r"row 37, column 300.*65504"):
            encode_rows(x, name, allow_nonfinite=allow)


@pytest.mark.parametrize(
    ("name", "bad"),
    [("f32", np.nan), ("f16", np.inf), ("f16", 65520.0), ("bf16", np.nan), ("bf16", 3.4e38), ("f64", np.inf)],
)
@pytest.mark.parametrize("n_cols", [6, 500])
def test_numbers_that_become_or_are_not_finite(name: str, bad: float, n_cols: int) -> None:
    x = np.ones((2, n_cols), np.float32)
    encode_rows(x, name)
    x[1, n_cols - 2] = bad
    with pytest.raises(errors.NonFiniteWeight, match=f"row 1, column {n_cols - 2}"):
        encode_rows(x, name)
    with np.errstate(over="ignore"):
        assert encode_rows(x, name, allow_nonfinite=True).shape[0] == 2


def test_bad_arguments() -> None:
    x = weights("normal", 2)
    for given in (np.full(COLUMNS, -1), np.full(COLUMNS, np.nan)):
        with pytest.raises(errors.SettingError, match="not negative"):
            encode_rows(x, "q4_k", given)
    with pytest.raises(errors.BadShape, match="one number a column"):
        encode_rows(x, "q4_k", importance(512))
    with pytest.raises(errors.BadShape, match="multiple of 256"):
        encode_rows(x[:, :255], "q4_k")
    with pytest.raises(errors.BadShape):
        ggblock.quantize(1.0, "q4_k")
    with pytest.raises(errors.NoEncoder):
        ggblock.quantize(x, "iq2_xxs")
    with pytest.raises(errors.UnknownType):
        ggblock.quantize(x, "q9_9")
    with pytest.raises(errors.SettingError):
        encode_rows(x, "q4_k", threads=0)


def test_a_compilation_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "from ggblock.convert.encode import prepare\nprepare(['f32', 'q8_0'], print)\nprepare(['q8_0'], print)",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "GGBLOCK_CACHE": str(tmp_path)},
        timeout=300,
    )
    first, done = run.stdout.splitlines()
    assert first.startswith("compiling 1 kernel for this CPU") and done.startswith("compiled in")
    prepare(["q8_0", "iq2_xxs"])  # types without a quantizer are passed over
