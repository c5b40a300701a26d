"""The reference encoders: ggml's bytes where it has no search, else an error near ggml's; fixed points; extremes."""
from __future__ import annotations

import libgguf
import numpy as np
import pytest

from ggblock import blocks, errors

SIMPLE = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"]
SEARCHED = ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl"]

#: Root mean square error over that of the weights, normally distributed: measured, and 3 % more allowed.
NORMAL_ERROR = {
    "f16": 0.00021, "bf16": 0.00166, "q4_0": 0.0856, "q4_1": 0.0779, "q5_0": 0.0426, "q5_1": 0.0377, "q8_0": 0.0053,
    "q2_k": 0.2735, "q3_k": 0.1520, "q4_k": 0.0712, "q5_k": 0.0358, "q6_k": 0.0177, "q8_k": 0.0069, "iq4_nl": 0.0760,
}


def weights(kind: str, shape: tuple[int, int] = (32, 1024)) -> np.ndarray:
    rng = np.random.default_rng(5)
    normal = rng.standard_normal(shape)
    made = {
        "normal": normal * 0.02,
        "heavy": rng.laplace(size=shape) * 0.02,
        "outliers": normal * np.where(rng.random(shape) < 0.003, 20, 1),
        "positive": np.abs(normal),
        "uniform": rng.uniform(-1, 1, shape),
        "offset": normal * 0.1 + 3,
        "tiny": normal * 1e-6,
    }
    return made[kind].astype(np.float32)


def relative_error(x: np.ndarray, data: np.ndarray, name: str, importance: np.ndarray | None = None) -> float:
    w = 1.0 if importance is None else importance
    miss = blocks.dequantize(data, name, x.shape).astype(np.float64) - x
    return float(np.sqrt((w * miss**2).sum() / (w * x.astype(np.float64) ** 2).sum()))


def test_the_types_with_an_encoder() -> None:
    with_encoder = {name for name, block in blocks.REGISTRY.items() if block.encode is not None}
    assert with_encoder == set(NORMAL_ERROR) | {"f32", "f64"}


@pytest.mark.parametrize("name", NORMAL_ERROR)
def test_error_on_normal_weights(name: str) -> None:
    x = weights("normal")
    assert relative_error(x, blocks.quantize(x, name), name) <= 1.03 * NORMAL_ERROR[name]


@pytest.mark.parametrize("kind", ["normal", "heavy", "outliers", "positive", "uniform", "offset", "tiny"])
@pytest.mark.parametrize("name", SIMPLE)
def test_same_bytes_as_ggml_without_importance(name: str, kind: str) -> None:
    x = weights(kind)
    expected = np.asarray(libgguf.quantize_rows(x, blocks.by_name(name).ggml_id)).view(np.uint8)
    np.testing.assert_array_equal(blocks.quantize(x, name), expected.reshape(len(x), -1))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["normal", "heavy", "outliers", "positive", "uniform", "offset", "tiny"])
@pytest.mark.parametrize("name", SIMPLE + SEARCHED)
def test_error_is_near_ggmls(name: str, kind: str, weighted: bool) -> None:
    x = weights(kind)
    importance = np.random.default_rng(6).uniform(0.01, 4, x.shape[1]).astype(np.float32) if weighted else None
    theirs = libgguf.quantize_rows(x, blocks.by_name(name).ggml_id, imatrix=importance)
    ours = relative_error(x, blocks.quantize(x, name, importance), name, importance)
    assert ours <= 1.05 * relative_error(x, np.asarray(theirs).view(np.uint8), name, importance)


@pytest.mark.parametrize("name", ["q4_0", "q4_1", "q5_0", "q5_1", *SEARCHED])
def test_importance_lowers_the_weighted_error(name: str) -> None:
    x = weights("heavy")
    importance = np.where(np.arange(x.shape[1]) % 8 == 0, 100.0, 0.1).astype(np.float32)
    plain = relative_error(x, blocks.quantize(x, name), name, importance)
    assert relative_error(x, blocks.quantize(x, name, importance), name, importance) < 0.97 * plain


@pytest.mark.parametrize("name", [*SIMPLE, *SEARCHED, "q8_k"])
def test_weights_that_fit_a_type_already_stay_as_they_are(name: str) -> None:
    once = blocks.dequantize(blocks.quantize(weights("normal"), name), name, (32, 1024))
    # Q3_K and Q5_K: another of several almost equal fits may win; 0.0015 measured.
    assert relative_error(once, blocks.quantize(once, name), name) <= (0.002 if name in ("q3_k", "q5_k") else 1e-7)


@pytest.mark.parametrize("name", [*SIMPLE, *SEARCHED, "q8_k"])
@pytest.mark.parametrize("value", [0.0, 0.3, -0.3, 6e4, -65504.0])
def test_constant_rows(name: str, value: float) -> None:
    x = np.full((2, 512), value, np.float32)
    decoded = blocks.dequantize(blocks.quantize(x, name), name, x.shape)
    assert np.abs(decoded - x).max() <= abs(value) * 2**-10


@pytest.mark.parametrize("name", [*SIMPLE, *SEARCHED, "q8_k"])
def test_zero_importance_everywhere_is_survivable(name: str) -> None:
    x = weights("normal", (2, 512))
    decoded = blocks.dequantize(blocks.quantize(x, name, np.zeros(512)), name, x.shape)
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize("name", [*SIMPLE, *SEARCHED, "q8_k"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 65600.0])
def test_a_weight_that_does_not_fit_is_named(name: str, bad: float) -> None:
    x = weights("normal", (300, 512))
    x[257, 300] = bad
    with pytest.raises(errors.NonFiniteWeight, match=r"row 257, column 300.*65504"):
        blocks.quantize(x, name)


@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "f64"])
def test_plain_numbers_keep_nan_and_infinity(name: str) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)
    np.testing.assert_array_equal(blocks.dequantize(blocks.quantize(x, name), name, 4), x)
