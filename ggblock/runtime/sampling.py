"""From logits to one token.

A vocabulary of 262,144 words must not cost a sort for each token. `best` finds the k largest logits exactly from the
maxima of about a thousand groups: the k-th largest maximum is a floor under the k-th largest logit, because k groups
hold a logit at least as large, and hardly more than k logits lie above it. Everything after it works on a handful.

The random numbers are the raw 64-bit outputs of NumPy's PCG64, whose stream NumPy promises to keep; one number a token.
"""
from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ggblock import errors
from ggblock.runtime.settings import Sampling

FloatArray = npt.NDArray[np.floating]
Int64Array = npt.NDArray[np.int64]

_SMALL = 4096
"""Up to this many candidates a plain sort and float64 are cheap (about 0.1 ms)."""


def best(values: FloatArray, k: int) -> Int64Array:
    """Indices of the k largest values, largest first, the lower index first among equals.

    ``values``: (n,), no NaN. Returns int64 (min(k, n),). Exact, the same as a stable sort.
    """
    n = values.shape[0]
    n_groups = max(1024, 4 * k)
    if k < n and n_groups * 4 <= n:
        n_rows = n // n_groups
        maxima = values[: n_rows * n_groups].reshape(n_rows, n_groups).max(axis=0)
        tail = values[n_rows * n_groups :]
        np.maximum(maxima[: tail.shape[0]], tail, out=maxima[: tail.shape[0]])
        floor = np.partition(maxima, n_groups - k)[n_groups - k]
        candidates = np.flatnonzero(values >= floor)
        order = np.argsort(-values[candidates], kind="stable")[:k]
        return candidates[order]
    return np.argsort(-values, kind="stable")[:k]


def smallest_share(keys: FloatArray, weights: FloatArray, share: float) -> Int64Array:
    """Indices of the fewest entries, smallest key first, whose weights sum to at least ``share`` of the whole.

    ``keys``: (n,), ``weights``: (n,), not negative. Returns int64 (1..n,), ordered by key, at least one.
    """
    n = keys.shape[0]
    wanted = share * float(weights.sum(dtype=np.float64))
    negative = -keys
    size = n if n <= _SMALL else 256
    while True:
        order = best(negative, size)
        sums = np.cumsum(weights[order], dtype=np.float64)
        if sums[-1] >= wanted or size >= n:
            # The first place where the sum reaches the share; rounding may leave the last sum a hair below it.
            count = int(np.searchsorted(sums, wanted, side="left")) + 1
            return order[: min(count, order.shape[0])]
        size = min(size * 8, n)


def _weights(logits: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(x, exp(x)) with x = logits − max: float64 for few candidates, float32 for a whole vocabulary."""
    x = logits.astype(np.float64) if logits.shape[0] <= _SMALL else logits
    x = x - x.max()
    return x, np.exp(x)


def keep_typical(logits: FloatArray, share: float) -> Int64Array:
    """Places of the tokens that locally typical sampling keeps, most typical first.

    A token's surprise is −log p; the entropy H is the expected surprise. Tokens are taken in the order of
    |−log p − H| until their probabilities sum to ``share``. Source: arXiv:2202.00666, equation 5.
    """
    x, weights = _weights(logits)
    total = float(weights.sum(dtype=np.float64))
    products = np.multiply(weights, x, out=np.zeros_like(x), where=weights > 0)  # −inf · 0 counts as 0
    mean_x = float(products.sum(dtype=np.float64)) / total
    # −log p = log(total) − x and H = log(total) − mean(x), so the difference needs no logarithm.
    return smallest_share(np.abs(x - mean_x), weights, share)


def keep_top_p(logits: FloatArray, share: float) -> Int64Array:
    """Places of the fewest most likely tokens whose probabilities sum to ``share``, most likely first."""
    x, weights = _weights(logits)
    return smallest_share(-x, weights, share)


def keep_min_p(logits: FloatArray, ratio: float) -> Int64Array:
    """Places of the tokens at least ``ratio`` times as likely as the most likely one, in the order given."""
    return np.flatnonzero(logits >= logits.max() + np.float32(math.log(ratio)))


def random_seed() -> int:
    """A seed from the system, below 2**32."""
    return secrets.randbits(32)


def seed_of(seed: int, number: int) -> int:
    """The seed of answer ``number`` of a conversation: ``seed`` for the first one, number 0; others below 2**32.

    From NumPy's SeedSequence, whose values NumPy promises to keep.
    """
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0]) if number else seed


class Sampler:
    """Chooses tokens one after another; holds the random stream and the window of the penalties.

    The result depends on the settings, the seed, the logits and the tokens accepted so far, on nothing else.

    Args:
        settings: what to do; see `Sampling` for the order of the stages.
        n_vocab: length of the logits.
        n_ctx: tokens in a window of -1.

    Raises:
        SettingError: a logit bias for a token outside the vocabulary.
    """

    def __init__(self, settings: Sampling, n_vocab: int, n_ctx: int) -> None:
        self.settings = settings
        self.seed: int = random_seed() if settings.seed is None else settings.seed
        self._stream = np.random.PCG64(self.seed)
        self._window: deque[int] = deque()
        self._window_size = n_ctx if settings.repeat_last_n < 0 else settings.repeat_last_n
        self._counts: dict[int, int] = {}
        self._bias_ids = np.array(sorted(settings.logit_bias), dtype=np.int64)
        self._bias = np.array([settings.logit_bias[int(i)] for i in self._bias_ids], dtype=np.float32)
        if self._bias_ids.size and self._bias_ids[-1] >= n_vocab:
            raise errors.SettingError(
                "token outside the vocabulary",
                where="logit_bias",
                expected=f"0 to {n_vocab - 1}",
                actual=int(self._bias_ids[-1]),
            )

    @property
    def n_best(self) -> int:
        """How many of the largest logits decide; 0 where any can."""
        settings = self.settings
        if self._bias_ids.size or settings.has_penalties:
            return 0
        return 1 if settings.is_greedy else settings.top_k

    def accept(self, ids: Iterable[int]) -> None:
        """Note tokens that now stand in the text (prompt or chosen): they count for the penalties."""
        if not self.settings.has_penalties:
            return
        for token in ids:
            self._window.append(token)
            self._counts[token] = self._counts.get(token, 0) + 1
            if len(self._window) > self._window_size:
                oldest = self._window.popleft()
                self._counts[oldest] -= 1
                if not self._counts[oldest]:
                    del self._counts[oldest]

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        """The next token. ``logits``: float32 (n_vocab,), left as they are.

        Raises:
            ModelError: the logits hold NaN or infinity, or every token is banned.
        """
        values = self._adjusted(logits)
        if self.settings.is_greedy:
            token = int(values.argmax())  # of equals the first; NaN counts as the largest
            _check_top(float(values[token]))
            return token
        return self._draw(*self._candidates(values))

    def _adjusted(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits after bias and penalties; a copy when anything changes."""
        settings = self.settings
        if not self._bias_ids.size and not self._counts:
            return logits
        values: npt.NDArray[np.float32] = logits.copy()
        if self._bias_ids.size:
            values[self._bias_ids] += self._bias
        if self._counts:
            ids = np.fromiter(self._counts.keys(), dtype=np.int64, count=len(self._counts))
            counts = np.fromiter(self._counts.values(), dtype=np.float32, count=len(self._counts))
            seen = values[ids]
            penalty = np.float32(settings.repeat_penalty)
            seen = np.where(seen > 0, seen / penalty, seen * penalty)
            seen -= counts * np.float32(settings.frequency_penalty) + np.float32(settings.presence_penalty)
            values[ids] = seen
        return values

    def _candidates(self, values: npt.NDArray[np.float32]) -> tuple[Int64Array | None, FloatArray]:
        """(ids, their logits) after top-k, typical, top-p and min-p; ids None stands for the whole vocabulary."""
        settings = self.settings
        _check_top(float(values.max()))
        ids: Int64Array | None = None
        kept: FloatArray = values
        if 0 < settings.top_k < values.shape[0]:
            ids = best(values, settings.top_k)
            kept = values[ids]
        for is_on, keep, limit in (
            (settings.typical < 1.0, keep_typical, settings.typical),
            (settings.top_p < 1.0, keep_top_p, settings.top_p),
            (settings.min_p > 0.0, keep_min_p, settings.min_p),
        ):
            if is_on:
                places = keep(kept, limit)
                kept = kept[places]
                ids = places if ids is None else ids[places]
        return ids, kept

    def _draw(self, ids: Int64Array | None, logits: FloatArray) -> int:
        """One token with the probabilities softmax(logits / temperature)."""
        # 53 random bits as a float64 in [0, 1).
        uniform = (int(self._stream.random_raw()) >> 11) * 2.0**-53
        if logits.shape[0] == 1:
            place = 0
        else:
            x = logits.astype(np.float64) if logits.shape[0] <= _SMALL else logits
            temperature = x.dtype.type(max(self.settings.temperature, 1e-30))  # not 0 in float32
            with np.errstate(over="ignore"):  # towards −inf only, since no x is above 0
                sums = np.cumsum(np.exp((x - x.max()) / temperature), dtype=np.float64)
            place = int(np.searchsorted(sums, uniform * sums[-1], side="right"))
            place = min(place, logits.shape[0] - 1)
        return place if ids is None else int(ids[place])


def _check_top(value: float) -> None:
    if math.isnan(value) or value == math.inf:
        raise errors.ModelError("the model's logits are not finite numbers: its weights or its file are damaged")
    if value == -math.inf:
        raise errors.ModelError("no token is left to choose: every one is banned")
