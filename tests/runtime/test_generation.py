"""Generation over the naive twin: what comes out, when it ends, what is computed."""
from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ggblock.errors import ContextOverflow, MissingVocabulary, SettingError
from ggblock.runtime import Model, cache
from tests.naive.llama import NaiveLlama

OpenTiny = Callable[..., Model]
PROMPT = "the rain in on water"
EOS = 2
NO_END = {0: -math.inf, EOS: -math.inf}
READABLE = {0: -math.inf, 1: -math.inf, EOS: -math.inf} | {
    3 + byte: -math.inf for byte in range(256) if not 32 <= byte < 127
}
"""Bans the end and every byte but printable ASCII, so that each token is a piece of text."""


def naive_greedy(model: Model, ids: list[int], n: int) -> list[int]:
    """Greedy continuation without any cache: every token from the whole text."""
    for _ in range(n):
        twin = NaiveLlama(model.file, context=len(ids))
        ids = [*ids, int(twin.forward(ids, 0)[-1].argmax())]
    return ids[-n:]


# --- what comes out


def test_greedy_is_the_argmax_of_each_step(open_tiny: OpenTiny) -> None:
    model = open_tiny()
    result = model.generate(PROMPT, 12, temperature=0, logit_bias=NO_END).run()
    prompt = model.tokenize(PROMPT)
    assert result.prompt_ids == tuple(prompt)
    assert list(result.ids) == naive_greedy(model, prompt, 12)
    assert result.text == model.detokenize(result.ids) and result.finish_reason == "length"


def test_pieces_are_the_text(open_tiny: OpenTiny) -> None:
    generation = open_tiny().generate(PROMPT, 40, seed=3, logit_bias=READABLE)
    pieces = list(generation)
    assert len(pieces) > 5 and all(pieces)
    assert "".join(pieces) == generation.result.text
    assert list(generation) == []


def test_a_seed_gives_one_text(open_tiny: OpenTiny) -> None:
    model = open_tiny()
    texts = [model.generate(PROMPT, 30, seed=seed, temperature=1.5).run().text for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]
    free = model.generate(PROMPT, 30, temperature=1.5).run()
    assert model.generate(PROMPT, 30, temperature=1.5, seed=free.seed).run().ids == free.ids


def test_token_ids_are_a_prompt_too(open_tiny: OpenTiny) -> None:
    model = open_tiny()
    ids = model.tokenize(PROMPT)
    assert model.generate(ids, 5, seed=1).run().ids == model.generate(PROMPT, 5, seed=1).run().ids
    assert model.generate(np.array(ids), 5, seed=1).run().ids == model.generate(ids, 5, seed=1).run().ids


def test_a_file_without_vocabulary_continues_ids(open_tiny: OpenTiny) -> None:
    model = open_tiny("llama_f32")
    result = model.generate([1, 2, 3], 5, temperature=0).run()
    assert list(result.ids) == naive_greedy(model, [1, 2, 3], 5) and result.text == ""
    with pytest.raises(MissingVocabulary):
        model.generate("text", 5)


def test_the_penalties_see_the_prompt(open_tiny: OpenTiny) -> None:
    model = open_tiny()
    ids = model.tokenize(PROMPT)
    plain = model.generate(ids, 1, temperature=0).run().ids[0]
    punished = model.generate([*ids, plain, *ids], 1, temperature=0, repeat_penalty=1e6, repeat_last_n=-1).run().ids[0]
    assert punished not in {*ids, plain}


# --- how it ends


def test_nothing_is_computed_for_no_tokens(open_tiny: OpenTiny) -> None:
    model = open_tiny()
    result = model.generate(PROMPT, 0).run()
    assert (result.text, result.ids, result.finish_reason) == ("", (), "length")
    assert model.engine.n_evaluated == 0  # type: ignore[attr-defined]


def test_the_end_token_ends_and_is_not_part(open_tiny: OpenTiny) -> None:
    result = open_tiny().generate(PROMPT, 10, logit_bias={EOS: 1000.0}).run()
    assert (result.text, result.ids, result.finish_reason) == ("", (), "stop")
    assert result.timings.generated_tokens == 0


@pytest.mark.parametrize("n_prompt", [1, 15, 16])
def test_a_full_context_ends_cleanly(open_tiny: OpenTiny, n_prompt: int) -> None:
    model = open_tiny(context=16)
    result = model.generate([70] * n_prompt, -1, temperature=0, logit_bias=NO_END).run()
    # The last logits come from position 15; the token they give has no place but is said.
    assert result.finish_reason == "context" and len(result.ids) == 16 - n_prompt + 1
    assert list(result.ids[:-1]) == list(model.cache.ids[n_prompt:])


def test_a_prompt_longer_than_the_context(open_tiny: OpenTiny) -> None:
    model = open_tiny(context=16)
    with pytest.raises(ContextOverflow) as caught:
        model.generate([70] * 17)
    assert caught.value.actual == 17 and "16" in str(caught.value) and "17" in str(caught.value)
    with pytest.raises(ContextOverflow):
        model.logits([70] * 17)


def test_a_stop_string_over_several_tokens(open_tiny: OpenTiny) -> None:
    model = open_tiny()
    free = model.generate(PROMPT, 40, seed=9, logit_bias=READABLE).run()
    stop = free.text[11:16]
    cut = free.text.index(stop)
    generation = model.generate(PROMPT, 40, seed=9, logit_bias=READABLE, stop=[stop, "never to be seen"])
    pieces = list(generation)
    result = generation.result
    assert "".join(pieces) == result.text == free.text[:cut]
    assert (result.finish_reason, result.stop_string) == ("stop_string", stop)
    assert result.ids == free.ids[: len(result.ids)]
    assert stop in model.detokenize(result.ids)


def test_what_looked_like_a_stop_string_comes_out_at_the_end(open_tiny: OpenTiny) -> None:
    model = open_tiny()
    free = model.generate(PROMPT, 8, seed=9, logit_bias=READABLE).run()
    held = model.generate(PROMPT, 8, seed=9, logit_bias=READABLE, stop=free.text[-3:] + "and more").run()
    assert held.text == free.text and held.finish_reason == "length"


def test_cancel_ends_at_the_next_token(open_tiny: OpenTiny) -> None:
    model = open_tiny()
    generation = model.generate(PROMPT, 100, seed=1)
    first = next(generation)
    generation.cancel()
    rest = list(generation)
    result = generation.result
    assert result.finish_reason == "cancelled" and result.text == first + "".join(rest)
    assert len(result.ids) < 5


def test_cancel_is_heard_between_the_chunks_of_a_prompt(open_tiny: OpenTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CHUNK_TOKENS", 4)
    model = open_tiny()
    generation = model.generate([70] * 20, 10)
    forward = model.engine.forward

    def cancelling(*args: object, **options: object) -> np.ndarray:
        generation.cancel()
        return forward(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(model.engine, "forward", cancelling)
    assert generation.run().finish_reason == "cancelled"
    assert model.cache.ids == (70,) * 4


# --- the cache


def test_chunks_change_nothing(open_tiny: OpenTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_tiny()
    ids = [int(i) for i in np.random.default_rng(0).integers(3, 250, 30)]
    whole = model.logits(ids)
    monkeypatch.setattr(cache, "CHUNK_TOKENS", 7)
    chunked = model.logits(ids)
    assert whole.shape == (30, model.n_vocab) and whole.dtype == np.float32
    np.testing.assert_array_equal(whole, chunked)
    np.testing.assert_array_equal(whole, NaiveLlama(model.file).forward(ids, 0, all_logits=True))


def test_a_common_beginning_is_computed_once(open_tiny: OpenTiny) -> None:
    model = open_tiny()
    engine = model.engine
    assert isinstance(engine, NaiveLlama)
    shared = [int(i) for i in np.random.default_rng(1).integers(3, 250, 20)]
    model.generate([*shared, 70, 71], 1, temperature=0, reuse=True).run()
    assert engine.n_evaluated == 22
    result = model.generate([*shared, 80, 81, 82], 1, temperature=0, reuse=True).run()
    assert engine.n_evaluated == 22 + 3 and result.timings.reused_tokens == 20
    again = model.generate([*shared, 80, 81, 82], 1, temperature=0, reuse=True).run()
    assert again.timings.reused_tokens == 22 and again.ids == result.ids  # the last token's logits are needed
    shorter = model.generate(shared[:5], 1, temperature=0, reuse=True).run()
    assert shorter.timings.reused_tokens == 4 and shorter.ids == model.generate(shared[:5], 1, temperature=0).run().ids


def test_without_reuse_everything_is_computed(open_tiny: OpenTiny) -> None:
    model = open_tiny()
    for n in (1, 2):
        assert model.generate([70] * 10, 1).run().timings.reused_tokens == 0
        assert model.engine.n_evaluated == 10 * n  # type: ignore[attr-defined]


def test_generations_may_be_interleaved(open_tiny: OpenTiny) -> None:
    model = open_tiny()
    alone = [model.generate(p, 15, seed=2).run().text for p in ("the water", "the wind")]
    both = [model.generate(p, 15, seed=2) for p in ("the water", "the wind")]
    texts = ["", ""]
    for _ in range(30):
        for i, generation in enumerate(both):
            texts[i] += next(generation, "")
    assert texts == alone


def test_generations_may_run_in_two_threads(open_tiny: OpenTiny) -> None:
    model = open_tiny()
    prompts = ["the water", "a wind"]
    alone = [model.generate(p, 10, seed=2).run().text for p in prompts]
    texts = ["", ""]

    def work(i: int) -> None:
        texts[i] = model.generate(prompts[i], 10, seed=2).run().text

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == alone


# --- settings and prompts


@pytest.mark.parametrize("n", [-2, 1.5, True, "9"])
def test_a_bad_number_of_tokens(open_tiny: OpenTiny, n: object) -> None:
    with pytest.raises(SettingError, match="max_tokens"):
        open_tiny().generate(PROMPT, n)  # type: ignore[arg-type]


def test_bad_settings_are_refused_at_the_call(open_tiny: OpenTiny) -> None:
    model = open_tiny()
    with pytest.raises(SettingError, match="unknown setting"):
        model.generate(PROMPT, temprature=1.0)  # type: ignore[call-arg]
    with pytest.raises(SettingError, match="stop"):
        model.generate(PROMPT, stop=[""])
    with pytest.raises(SettingError, match="vocabulary"):
        model.generate([10_000])
    with pytest.raises(SettingError, match="vocabulary"):
        model.generate([-1])


def test_an_empty_prompt_needs_a_beginning(open_tiny: OpenTiny, write_with: Callable[..., Path]) -> None:
    with pytest.raises(SettingError, match="empty"):
        open_tiny().generate("")
    with pytest.raises(SettingError, match="no tokens"):
        open_tiny().generate([])
    with_bos = open_tiny(path=write_with(add_bos_token=True))
    result = with_bos.generate("", 3, temperature=0).run()
    assert result.prompt_ids == (1,) and len(result.ids) == 3


# --- timings


def test_timings_count_what_happened(open_tiny: OpenTiny) -> None:
    model = open_tiny()
    result = model.generate([70] * 20, 9, seed=1, logit_bias=NO_END).run()
    timings = result.timings
    assert (timings.prompt_tokens, timings.reused_tokens) == (20, 0)
    assert (timings.generated_tokens, timings.decode_tokens) == (9, 8)
    assert timings.first_token_s is not None and timings.first_token_s >= timings.prompt_s > 0
    assert timings.prefill_tokens_per_s == pytest.approx(20 / timings.prompt_s)
    assert timings.decode_tokens_per_s == pytest.approx(8 / timings.decode_s)
    empty = model.generate([70] * 20, 0).run().timings
    assert (empty.first_token_s, empty.prefill_tokens_per_s, empty.decode_tokens_per_s) == (None, None, None)


def test_close_closes_everything_once(open_tiny: OpenTiny) -> None:
    with open_tiny() as model:
        assert model.n_ctx == 256
    assert model.engine.is_closed  # type: ignore[attr-defined]
    model.close()
    with pytest.raises(ValueError):
        model.file.tensors["output_norm.weight"].dequantize()
