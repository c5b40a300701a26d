"""The two catalog models end to end: sensible text, one seed one text, conversations that keep their beginning."""
from __future__ import annotations

from pathlib import Path

import pytest

import ggblock

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


def test_smollm2_answers(smollm2_path: Path) -> None:
    with ggblock.load(smollm2_path, context=1024) as model:
        result = model.chat(QUESTION, 64, temperature=0).run()
        assert "Paris" in result.text and result.finish_reason == "stop"
        assert "<|im_end|>" not in result.text and result.ids[-1] not in model.tokenizer.eog_ids


def test_gemma3_continues(gemma3_path: Path) -> None:
    with ggblock.load(gemma3_path, context=512) as model:
        result = model.generate("One, two, three, four,", 8, temperature=0).run()
        assert result.prompt_ids[0] == model.tokenizer.bos_id
        assert result.text.startswith(" five, six, seven") and result.finish_reason == "length"


def test_a_seed_gives_one_text_whatever_the_number_of_threads(smollm2_path: Path) -> None:
    texts = set()
    for threads in (1, 2, 3):
        with ggblock.load(smollm2_path, threads=threads, context=256) as model:
            texts.add(model.generate("Once upon a time", 24, seed=11).run().text)
            texts.add(model.generate("Once upon a time", 24, seed=11).run().text)
    assert len(texts) == 1


@pytest.mark.parametrize("reuse", [True, False])
def test_the_second_question_knows_the_first(smollm2_path: Path, reuse: bool) -> None:
    with ggblock.load(smollm2_path, context=1024) as model:
        first = model.chat(QUESTION, 64, temperature=0, reuse=reuse).run()
        conversation = [*QUESTION, {"role": "assistant", "content": first.text}]
        conversation.append({"role": "user", "content": "Repeat only the name of that city."})
        second = model.chat(conversation, 48, temperature=0, reuse=reuse).run()
        assert "Paris" in second.text
        expected = len(first.prompt_ids) if reuse else 0
        assert second.timings.reused_tokens >= expected and (reuse or second.timings.reused_tokens == 0)
