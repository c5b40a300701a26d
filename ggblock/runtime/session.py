"""A conversation with its history."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ggblock.runtime.generation import Generation
from ggblock.runtime.sampling import random_seed, seed_of
from ggblock.runtime.settings import Sampling

if TYPE_CHECKING:
    from ggblock.runtime.model import Model


class Session:
    """Messages so far and how to answer them; made by `Model.session`.

    Because a model has one KV cache, several sessions of one model work but read their common history again.

    Every answer has a seed of its own, which its result tells; the seed of the sampling is that of the first answer and
    gives all others. So one seed repeats the whole conversation, and one question asked twice gets two answers.
    """

    def __init__(
        self,
        model: Model,
        system: str | None = None,
        *,
        max_tokens: int = -1,
        stop: Iterable[str] = (),
        sampling: Sampling | None = None,
    ) -> None:
        self._model = model
        self._max_tokens = max_tokens
        self._stop = (stop,) if isinstance(stop, str) else tuple(stop)
        self._sampling = Sampling() if sampling is None else sampling
        self._seed = random_seed() if self._sampling.seed is None else self._sampling.seed
        self._n_sent = 0
        self.messages: list[dict[str, str]] = []
        """The conversation: role and content. May be edited between two answers."""
        self.reset(system)

    def reset(self, system: str | None = None) -> None:
        """Begin anew, with this system message if any. The seeds go on."""
        self.messages = [] if not system else [{"role": "system", "content": system}]

    @property
    def system(self) -> str | None:
        """The system message."""
        first = self.messages[:1]
        return first[0]["content"] if first and first[0]["role"] == "system" else None

    def send(self, text: str) -> Reply:
        """Ask; iterate over the reply to get the answer piece by piece.

        Question and answer join `messages` when the reply ends or is cancelled; after an error neither does.

        Raises:
            ContextOverflow: the conversation no longer fits the context; `reset` it.
            TemplateError: the template refuses the messages.
        """
        question = {"role": "user", "content": text}
        sampling = replace(self._sampling, seed=seed_of(self._seed, self._n_sent))
        generation = self._model.chat(
            [*self.messages, question], self._max_tokens, stop=self._stop, sampling=sampling
        )
        self._n_sent += 1
        return Reply(self, question, generation)


class Reply(Iterator[str]):
    """Pieces of an answer. ``generation`` has the result and can be cancelled."""

    def __init__(self, session: Session, question: dict[str, str], generation: Generation) -> None:
        self.generation = generation
        self._session = session
        self._question: dict[str, str] | None = question

    def __iter__(self) -> Reply:
        return self

    def __next__(self) -> str:
        try:
            return next(self.generation)
        except StopIteration:
            if self._question is not None:
                answer = {"role": "assistant", "content": self.generation.result.text}
                self._session.messages += [self._question, answer]
                self._question = None
            raise
