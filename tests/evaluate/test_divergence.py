"""Divergence of logits, against sums written out."""
from __future__ import annotations

import math

import numpy as np
import pytest

from ggblock.evaluate.divergence import Divergence, log_softmax, nmse


def naive_kl(exact: np.ndarray, found: np.ndarray) -> float:
    p = [math.exp(v) for v in exact]
    q = [math.exp(v) for v in found]
    return sum(a / sum(p) * math.log(a / sum(p) / (b / sum(q))) for a, b in zip(p, q, strict=True))


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    exact = rng.normal(size=(7, 11)).astype(np.float32)
    return exact, (exact + 0.2 * rng.normal(size=exact.shape)).astype(np.float32)


def test_log_softmax_is_normalised_and_survives_large_logits() -> None:
    values = log_softmax(np.array([[1e4, 1e4 - 1.0, -1e30], [0.0, 0.0, 0.0]]))
    assert np.isfinite(values[:, :2]).all()
    np.testing.assert_allclose(np.exp(values).sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(values[0, 0] - values[0, 1], 1.0, rtol=1e-9)


def test_kl_is_the_written_out_sum(rows: tuple[np.ndarray, np.ndarray]) -> None:
    exact, found = rows
    divergence = Divergence()
    divergence.add(exact[:3], found[:3])
    divergence.add(exact[3:], found[3:])
    report = divergence.report()
    wanted = [naive_kl(a, b) for a, b in zip(exact.astype(float), found.astype(float), strict=True)]
    assert report.n_tokens == 7
    assert report.mean_kl == pytest.approx(np.mean(wanted), rel=1e-9)
    assert report.max_kl == pytest.approx(max(wanted), rel=1e-9)
    assert report.mean_kl_stderr == pytest.approx(np.std(wanted, ddof=1) / math.sqrt(7), rel=1e-9)
    assert report.nmse == pytest.approx(nmse(found, exact), rel=1e-9)
    assert report.max_error == pytest.approx(np.abs(found.astype(float) - exact).max())
    best = np.argsort(exact, axis=1)[:, -2:]
    gaps = np.diff(np.take_along_axis(found.astype(float) - exact, best, axis=1))
    assert report.max_gap_error == pytest.approx(np.abs(gaps).max())
    assert report.rms_gap_error == pytest.approx(np.sqrt(np.mean(gaps**2)))
    assert report.perplexity is None


def test_equal_logits_diverge_by_nothing_and_a_constant_changes_no_probability(
    rows: tuple[np.ndarray, np.ndarray],
) -> None:
    exact, _ = rows
    shifted = Divergence()
    shifted.add(exact, exact.astype(float) + 5.0)
    report = shifted.report()
    assert report.mean_kl == pytest.approx(0.0, abs=1e-12)
    assert report.same_top1 == 1.0
    assert report.nmse > 1.0


def test_perplexity_is_of_the_tokens_that_follow(rows: tuple[np.ndarray, np.ndarray]) -> None:
    exact, found = rows
    following = np.array([3, 1, 4, 1, 5, 9])
    divergence = Divergence()
    divergence.add(exact, found, following)
    report = divergence.report()
    chance = log_softmax(found)[np.arange(6), following]
    assert report.perplexity == pytest.approx(math.exp(-chance.mean()))
    assert report.perplexity_exact == pytest.approx(math.exp(-log_softmax(exact)[np.arange(6), following].mean()))


def test_rows_must_match(rows: tuple[np.ndarray, np.ndarray]) -> None:
    exact, found = rows
    with pytest.raises(ValueError):
        Divergence().add(exact, found[:-1])
