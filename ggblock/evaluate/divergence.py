"""How far the logits of one run are from those of a more exact one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]


def log_softmax(logits: FloatArray) -> npt.NDArray[np.float64]:
    """float64 (..., n_vocab): natural logarithms of the probabilities that ``logits`` stand for."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def nmse(found: FloatArray, exact: FloatArray) -> float:
    """Normalised mean squared error: ``sum (found - exact)^2 / sum (exact - mean of its row)^2``.

    The mean of a row is taken out of the denominator, so that a large offset common to all tokens of the
    vocabulary cannot hide an error.
    """
    wanted = np.asarray(exact, np.float64)
    error = np.square(np.asarray(found, np.float64) - wanted).sum()
    return float(error / np.square(wanted - wanted.mean(axis=-1, keepdims=True)).sum())


@dataclass(frozen=True)
class Report:
    """What :class:`Divergence` found over all its rows. KL in nats, errors in units of the logits.

    A gap error is how wrong a row is about the distance between its two best tokens: what decides whether greedy
    choices can differ.
    """

    n_tokens: int
    mean_kl: float
    mean_kl_stderr: float
    kl_999: float
    max_kl: float
    same_top1: float
    nmse: float
    max_error: float
    rms_gap_error: float
    max_gap_error: float
    perplexity_exact: float | None
    perplexity: float | None

    def as_dict(self) -> dict[str, float | int | None]:
        """The same as a dictionary that JSON can hold."""
        return asdict(self)


@dataclass
class Divergence:
    """Accumulates rows of logits of a run beside the exact ones: ``add`` as often as needed, then ``report``."""

    _kl: list[npt.NDArray[np.float64]] = field(default_factory=list)
    _same: int = 0
    _error: float = 0.0
    _spread: float = 0.0
    _worst: float = 0.0
    _gaps: list[float] = field(default_factory=list)
    _nll: tuple[float, float] = (0.0, 0.0)
    _n_next: int = 0

    def add(self, exact: FloatArray, found: FloatArray, following: npt.NDArray[np.integer] | None = None) -> None:
        """Compare ``found`` with ``exact``, both float (n_tokens, n_vocab), n_vocab at least 2.

        ``following``: int (n_tokens,) or shorter, the tokens of the text that come next; the rows that have one
        count for the perplexities. KL is the sum over the vocabulary of ``p_exact * (log p_exact - log p_found)``.
        """
        kl = np.empty(len(exact))
        nll_exact = nll_found = 0.0
        n_next = 0 if following is None else len(following)
        for i, (wanted_row, found_row) in enumerate(zip(exact, found, strict=True)):
            wanted, got = log_softmax(wanted_row), log_softmax(found_row)
            kl[i] = float(np.exp(wanted) @ (wanted - got))
            self._same += int(wanted.argmax() == got.argmax())
            plain = np.asarray(wanted_row, np.float64)
            difference = np.asarray(found_row, np.float64) - plain
            self._error += float(difference @ difference)
            self._spread += float(np.square(plain - plain.mean()).sum())
            self._worst = max(self._worst, float(np.abs(difference).max()))
            second, first = np.argpartition(plain, -2)[-2:]
            self._gaps.append(float(abs(difference[first] - difference[second])))
            if following is not None and i < n_next:
                nll_exact -= float(wanted[following[i]])
                nll_found -= float(got[following[i]])
        self._kl.append(kl)
        self._nll = (self._nll[0] + nll_exact, self._nll[1] + nll_found)
        self._n_next += n_next

    def report(self) -> Report:
        """The figures over everything added so far; at least one row must have been added."""
        kl = np.concatenate(self._kl)
        n = len(kl)
        has_text = self._n_next > 0
        return Report(
            n_tokens=n,
            mean_kl=float(kl.mean()),
            mean_kl_stderr=float(kl.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan"),
            kl_999=float(np.quantile(kl, 0.999)),
            max_kl=float(kl.max()),
            same_top1=self._same / n,
            nmse=self._error / self._spread,
            max_error=self._worst,
            rms_gap_error=float(np.sqrt(np.mean(np.square(self._gaps)))),
            max_gap_error=max(self._gaps),
            perplexity_exact=float(np.exp(self._nll[0] / self._n_next)) if has_text else None,
            perplexity=float(np.exp(self._nll[1] / self._n_next)) if has_text else None,
        )
