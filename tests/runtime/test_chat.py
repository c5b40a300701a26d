"""Conversations: template, BOS, history, what the cache keeps."""
from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from ggblock.errors import ContextOverflow
from ggblock.runtime import Model
from ggblock.runtime.sampling import seed_of

OpenTiny = Callable[..., Model]
HELLO = [{"role": "user", "content": "hello"}]
EOS, START = 2, 1
NO_END = {0: -math.inf, EOS: -math.inf}


def test_the_prompt_is_the_template_s_text_with_its_special_tokens(open_tiny: OpenTiny) -> None:
    model = open_tiny()
    ids = model.chat_ids(HELLO)
    expected = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert ids == model.tokenize(expected, add_special=False, parse_special=True)
    assert ids.count(START) == 2 and ids.count(EOS) == 1
    assert model.chat(HELLO, 3).run().prompt_ids == tuple(ids)


@pytest.mark.parametrize("writes_it", [True, False])
def test_there_is_one_bos_whoever_writes_it(
    open_tiny: OpenTiny, write_with: Callable[..., Path], writes_it: bool
) -> None:
    template = ("{{ bos_token }}" if writes_it else "") + "{{ messages[0]['content'] }}"
    model = open_tiny(path=write_with(add_bos_token=True, chat_template=template))
    ids = model.chat_ids(HELLO)
    assert ids[0] == START and ids.count(START) == 1


def test_an_answer_ends_at_the_end_of_turn(open_tiny: OpenTiny) -> None:
    result = open_tiny().chat(HELLO, logit_bias={EOS: 1000.0}).run()
    assert (result.text, result.finish_reason) == ("", "stop")


def test_a_missing_template_is_said_and_replaced(open_tiny: OpenTiny, write_with: Callable[..., Path]) -> None:
    path = write_with(chat_template=None)
    lines: list[str] = []
    model = open_tiny(path=path, notify=lines.append)
    assert not model.has_chat_template
    first = model.chat(HELLO, 3, seed=1).run()
    assert len(lines) == 1 and "ChatML" in lines[0]
    model.chat(HELLO, 3, seed=1).run()
    assert len(lines) == 1, "said once"
    with pytest.warns(UserWarning, match="ChatML"):
        silent = open_tiny(path=path)
        assert silent.chat(HELLO, 3, seed=1).run().ids == first.ids


def test_with_the_built_in_template_a_spelt_out_marker_ends_the_answer(
    open_tiny: OpenTiny, write_with: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_tiny(path=write_with(chat_template=None), notify=lambda line: None)
    spelt = model.tokenize("Fine.<|im_end|>\nwhat", add_special=False, parse_special=False)
    n_prompt = len(model.chat_ids(HELLO))
    forward = model.engine.forward

    def says(ids: list[int], position: int, **options: object):  # type: ignore[no-untyped-def]
        logits = forward(ids, position, **options)
        logits[-1, spelt[position + len(ids) - n_prompt]] = 1000.0
        return logits

    monkeypatch.setattr(model.engine, "forward", says)
    result = model.chat(HELLO, temperature=0).run()
    assert (result.text, result.finish_reason, result.stop_string) == ("Fine.", "stop_string", "<|im_end|>")


def test_a_session_remembers_and_computes_only_what_is_new(open_tiny: OpenTiny) -> None:
    model = open_tiny()
    session = model.session("be kind", max_tokens=6, seed=4, logit_bias=NO_END)
    reply = session.send("hello")
    text = "".join(reply)
    assert session.messages == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": text},
    ]
    first = reply.generation.result
    second = session.send("and now?").generation.run()
    assert second.timings.reused_tokens >= len(first.prompt_ids)
    assert second.prompt_ids[: len(first.prompt_ids)] == first.prompt_ids
    fresh = model.chat(
        [*session.messages[:3], {"role": "user", "content": "and now?"}],
        6, seed=second.seed, logit_bias=NO_END, reuse=False,
    ).run()
    assert fresh.ids == second.ids and fresh.timings.reused_tokens == 0


def test_one_seed_gives_the_whole_conversation_and_every_answer_its_own(open_tiny: OpenTiny) -> None:
    model = open_tiny()

    def answers(seed: int | None) -> list[tuple[int, tuple[int, ...]]]:
        session = model.session(max_tokens=8, seed=seed, temperature=2.0, logit_bias=NO_END)
        found = []
        for _ in range(3):  # the same question in the same state
            result = session.send("hello").generation.run()
            found.append((result.seed, result.ids))
            session.reset()
        return found

    first = answers(4)
    assert first == answers(4) and first[0][0] == 4
    assert len({seed for seed, _ in first}) == len({ids for _, ids in first}) == 3
    drawn = answers(None)
    assert drawn == answers(drawn[0][0]), "what was drawn for the first answer repeats them all"


def test_seeds_of_answers_stay_what_they_are() -> None:
    assert [seed_of(7, i) for i in range(3)] == [7, 369571992, 1009178997]
    assert seed_of(2**64 - 1, 0) == 2**64 - 1 and 0 <= seed_of(2**64 - 1, 1) < 2**32


def test_reset_keeps_only_the_system_message_it_is_given(open_tiny: OpenTiny) -> None:
    session = open_tiny().session("one", max_tokens=2)
    list(session.send("hello"))
    session.reset(session.system)
    assert session.messages == [{"role": "system", "content": "one"}]
    session.reset()
    assert session.messages == [] and session.system is None


def test_a_message_that_does_not_fit_leaves_the_conversation_alone(open_tiny: OpenTiny) -> None:
    session = open_tiny(context=64).session(max_tokens=2)
    list(session.send("hello"))
    before = list(session.messages)
    with pytest.raises(ContextOverflow):
        session.send("many words " * 50)
    assert session.messages == before
    list(session.send("ok"))
    assert len(session.messages) == 4


def test_a_cancelled_answer_stays_in_the_conversation(open_tiny: OpenTiny) -> None:
    session = open_tiny().session(seed=1, logit_bias=NO_END)
    reply = session.send("hello")
    text = next(reply)
    reply.generation.cancel()
    text += "".join(reply)
    assert session.messages[-1] == {"role": "assistant", "content": text}


def test_the_file_s_template_is_not_announced(open_tiny: OpenTiny) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_tiny().chat(HELLO, 1).run()
