"""Scoring a model on a text: perplexity, and divergence from a model that is taken as exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ggblock.errors import SettingError
from ggblock.evaluate.chunks import Chunks, split
from ggblock.evaluate.divergence import Divergence, Report, log_softmax
from ggblock.runtime import Model

Progress = Callable[[int, int], None]
"""Called with (chunks done, all chunks)."""


@dataclass(frozen=True)
class Perplexity:
    """``exp`` of the mean negative log likelihood of ``n_tokens`` scored tokens, and its standard error."""

    n_tokens: int
    perplexity: float
    stderr: float


def chunks_of(model: Model, text: str, size: int = 512, *, limit: int | None = None) -> Chunks:
    """``text`` in the model's tokens, cut into chunks; each begins with BOS if the vocabulary begins texts with it.

    Raises SettingError when the text is shorter than one chunk, MissingVocabulary, InvalidText.
    """
    begins = model.tokenize("")
    bos = begins[0] if begins and begins[0] == model.tokenizer.bos_id else None
    return split(model.tokenize(text, add_special=False), size, limit=limit, bos_id=bos)


def perplexity(model: Model, chunks: Chunks, progress: Progress | None = None) -> Perplexity:
    """How well ``model`` foretells the scored tokens; 1 is perfect, the size of the vocabulary is a blind guess."""
    losses: list[float] = []
    for done, ids in enumerate(chunks.ids.tolist(), 1):
        rows = model.logits(ids)
        losses += [
            -float(log_softmax(rows[i])[ids[i + 1]]) for i in range(chunks.first_scored, len(ids) - 1)
        ]  # the last row foretells a token that the chunk does not hold
        if progress is not None:
            progress(done, len(chunks.ids))
    mean = float(np.mean(losses))
    spread = float(np.std(losses, ddof=1) / np.sqrt(len(losses))) if len(losses) > 1 else 0.0
    return Perplexity(len(losses), float(np.exp(mean)), float(np.exp(mean)) * spread)


def divergence(model: Model, exact: Model, chunks: Chunks, progress: Progress | None = None) -> Report:
    """How far the logits of ``model`` are from those of ``exact`` on the scored tokens of ``chunks``.

    Raises SettingError when the two have vocabularies of different sizes.
    """
    if model.n_vocab != exact.n_vocab:
        raise SettingError(
            "the vocabularies differ in size", where="reference", expected=model.n_vocab, actual=exact.n_vocab
        )
    found = Divergence()
    first = chunks.first_scored
    for done, ids in enumerate(chunks.ids.tolist(), 1):
        wanted = exact.logits(ids)[first:]
        found.add(wanted, model.logits(ids)[first:], np.array(ids[first + 1 :]))
        if progress is not None:
            progress(done, len(chunks.ids))
    return found.report()
