"""Products on the device against exact ones: every block type, one token and several, bias, accumulation, tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ggblock.blocks import tails
from ggblock.engine.cuda import jit, products
from ggblock.engine.cuda.gemm import Plain
from ggblock.engine.cuda.upload import Panels, Uploader
from ggblock.kernels import families
from tests.engine.cuda.common import DeviceProduct, device
from tests.kernels.harness import TYPES, Matrix, assert_close, exact_activations, matrix, team, tolerance
from tests.kernels.test_ragged import columns_of, ragged


def small(folder: Path, name: str, rng: np.random.Generator, n_rows: int = 3, n_blocks: int = 1) -> Matrix:
    n_cols = 40 if name in ("f32", "f16", "bf16") else n_blocks * max(32, products.block_of(family_of(name)))
    return matrix(folder, name, n_rows, n_cols if n_cols % 256 in (0, 40) else max(n_cols, 256), rng)


def family_of(name: str) -> str:
    return name if name in families.FAMILIES else "expanded32"


@pytest.mark.parametrize("name", TYPES)
def test_one_token_and_a_few(tmp_path: Path, name: str) -> None:
    """Two terms for one token, one term for nine, of which the ninth is alone in its launch."""
    rng = np.random.default_rng(len(name) + ord(name[-1]))
    m = small(tmp_path, name, rng)
    product = DeviceProduct(m.weight(), ("2", "1"))
    for n, terms in ((1, 2), (9, 1)):
        x = exact_activations(n, m.exact.shape[1], terms, rng)
        assert_close(product.run(x), x.astype(np.float64) @ m.exact.T, tolerance(m, x, m.weight().is_float))


@pytest.mark.parametrize("name", tails.CUT)
def test_ragged_rows(tmp_path: Path, name: str) -> None:
    """A row that is a tail alone and one that ends in a tail: products, tiles and rows of files in panels."""
    rng = np.random.default_rng(9)
    for n_cols in columns_of(name):
        m = ragged(tmp_path, name, 3, n_cols, rng)
        x = exact_activations(1, n_cols, 2, rng)
        product = DeviceProduct(m.weight(), ("2", "1"))
        assert_close(product.run(x), x.astype(np.float64) @ m.exact.T, tolerance(m, x, False))
        check_decoded(m, m.weight().family)


@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "q8_0", "q5_0", "q2_k", "iq4_nl", "mxfp4", "tq1_0"])
def test_float_activations(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(5)
    m = small(tmp_path, name, rng)
    x = rng.standard_normal((2, m.exact.shape[1])).astype(np.float32)
    product = DeviceProduct(m.weight(), ("f", "f"))
    assert_close(product.run(x), x.astype(np.float64) @ m.exact.T, tolerance(m, x, True) * 2)


def test_several_panels_blocks_and_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """37 rows are three panels; five blocks over four workers; y is added to, then a bias."""
    monkeypatch.setattr(jit, "SIMULATED_WORKERS", 4)
    rng = np.random.default_rng(6)
    m = matrix(tmp_path, "q4_1", 37, 160, rng)
    bias = np.zeros(48, np.float32)
    bias[:37] = rng.standard_normal(37)
    x = exact_activations(1, 160, 2, rng)
    product = DeviceProduct(m.weight(), ("2", "1"), accumulate=True, bias=bias)
    assert [step._threads for run in product.plan.runs for step in run.steps][-1] == 64
    expected = x.astype(np.float64) @ m.exact.T + bias[:37] + 3
    assert_close(product.run(x, before=3.0), expected, tolerance(m, x, False) + 1e-5)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_tiles_and_rows_are_the_decoded_weights(tmp_path: Path, name: str) -> None:
    """``rows`` gives exactly what the decoder gives (or one rounding off), ``tile`` the nearest bfloat16 of it."""
    stored = {"expanded32": "q8_k"}.get(name, name)  # made of types without a family
    rng = np.random.default_rng(7)
    check_decoded(small(tmp_path, stored, rng, n_rows=18), name)


def check_decoded(m: Matrix, name: str) -> None:
    """The last two rows and the first, and the last panel as a tile."""
    weight = m.weight()
    assert weight.family == name
    first, last = (weight.n_panels - 1) * 16, weight.n_rows - 1
    on_device = Uploader(device(), team(1)).send(weight)
    decoded = m.tensor.dequantize()
    n_cols = decoded.shape[1]
    assert_close(_rows(on_device, [last, 0]), decoded[[last, 0]], np.abs(m.size[[last, 0]]) * 2.0**-23)

    kernel, depth = products.tile(name), max(n_cols, on_device.n_blocks * products.block_of(name))
    out = device().zeros(depth * 16, np.uint16)
    views = [on_device.views[v] for v in kernel.views]
    kernel[(1, 1), 16 * on_device.n_parts](*views, out, on_device.n_blocks, first // 16, 16)
    tile = out.copy_to_host().reshape(depth, 16)
    n = weight.n_rows - first
    assert not (tile[:, n:] & 0x7FFF).any(), "rows that the matrix does not have are zero"
    values = (tile[:n_cols, :n].astype(np.uint32) << 16).view(np.float32).T
    assert_close(values, decoded[first:], np.abs(decoded[first:]) * 2.0**-8 + m.size[first:] * 2.0**-23)


def _rows(on_device: Panels, ids: list[int]) -> np.ndarray:
    kernel, n, n_cols = products.rows(on_device.family), len(ids), on_device.n_cols
    out = device().zeros(n * n_cols, np.float32)
    views = [on_device.views[v] for v in kernel.views]
    kernel[(n, 1), on_device.n_parts](
        *views, device().upload(np.array(ids, np.int32)), out, n_cols, on_device.n_blocks, n_cols, np.float32(1)
    )
    result: np.ndarray = out.copy_to_host().reshape(n, n_cols)
    return result


@pytest.mark.parametrize("accumulate", [False, True])
def test_many_tokens_through_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: bool) -> None:
    """Three panels in two tiles, weights and activations rounded to bfloat16, products by the stand-in for cuBLAS."""
    monkeypatch.setattr("ggblock.engine.cuda.steps.TILE_BYTES", 2 * 64 * 32)
    rng = np.random.default_rng(8)
    m = matrix(tmp_path, "q8_0", 37, 64, rng)
    bias = np.zeros(48, np.float32)
    bias[:37] = rng.standard_normal(37)
    product = DeviceProduct(m.weight(), ("2", "1"), 32, accumulate, bias, Plain())
    x = rng.standard_normal((17, 64)).astype(np.float32)
    expected = x.astype(np.float64) @ m.exact.T + bias[:37] + (2 if accumulate else 0)
    bound = 2.0**-7 * (np.abs(x) @ np.abs(m.exact).T) + 1e-5
    actual = product.run(x, before=2.0)
    assert_close(actual, expected, bound)
    few = x[:5]
    assert_close(product.run(few, before=2.0), expected[:5], 0.02 * (np.abs(few) @ np.abs(m.exact).T) + 1e-5)
