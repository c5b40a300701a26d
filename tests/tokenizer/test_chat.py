"""Chat templates render as transformers renders them."""
from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import ggblock
from ggblock import errors
from ggblock.tokenizer.chat import ChatTemplate

FOLDER = Path(__file__).parent
GOLDEN = json.loads((FOLDER / "golden" / "templates.json").read_text(encoding="utf-8"))
HELLO = [{"role": "user", "content": "Hello"}]


def case_name(case: dict[str, Any]) -> str:
    return f"{case['template']}-{case['conversation']}-{'-'.join(case['settings'])}"


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=case_name)
def test_renders_as_transformers(case: dict[str, Any]) -> None:
    source = (FOLDER / "templates" / case["template"]).read_text(encoding="utf-8")
    template = ChatTemplate(source, **GOLDEN["tokens"])
    messages = GOLDEN["conversations"][case["conversation"]]
    if case["text"] is None:
        with pytest.raises(errors.TemplateError):
            template.render(messages, **case["settings"])
    else:
        assert template.render(messages, **case["settings"]) == case["text"]
    assert not template.is_fallback


def test_every_template_has_cases() -> None:
    names = {path.name for path in (FOLDER / "templates").glob("*.jinja")}
    assert names == {case["template"] for case in GOLDEN["cases"]} and len(names) >= 6


def test_the_real_template(smollm2_path: Path) -> None:
    with ggblock.open(smollm2_path) as file:
        source = file.metadata["tokenizer.chat_template"]
    assert isinstance(source, str)
    text = ChatTemplate(source, "<|im_start|>", "<|im_end|>").render(HELLO)
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("source", [None, ""])
def test_the_fallback_is_chatml(source: str | None) -> None:
    template = ChatTemplate(source)
    assert template.is_fallback
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]
    text = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
    assert template.render(messages, add_generation_prompt=False) == text
    assert template.render(messages) == text + "<|im_start|>assistant\n"
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}, "b"]}, {"content": None}]
    assert template.render(parts, False) == "<|im_start|>user\nab<|im_end|>\n<|im_start|>user\n<|im_end|>\n"


def test_a_refusal_is_told() -> None:
    with pytest.raises(errors.TemplateError, match="refuses: no system role"):
        ChatTemplate("{{ raise_exception('no system role') }}").render(HELLO)


def test_the_clock() -> None:
    before = datetime.datetime.now().year
    assert before <= int(ChatTemplate("{{ strftime_now('%Y') }}").render(HELLO)) <= datetime.datetime.now().year


def test_json_as_in_transformers() -> None:
    source = "{{ messages[0].content | tojson }}|{{ messages | tojson(indent=2, sort_keys=true) }}"
    text = ChatTemplate(source).render([{"role": "user", "content": "<é> '&\" \u2028"}])
    content = json.dumps("<é> '&\" \u2028", ensure_ascii=False)
    assert text == f'{content}|[\n  {{\n    "content": {content},\n    "role": "user"\n  }}\n]'


def test_any_mapping_is_a_message_and_stays_as_it_is() -> None:
    message: Mapping[str, object] = MappingProxyType({"role": "user", "content": ("a", 1, 2.5, None, True)})
    assert ChatTemplate("{{ messages[0].content | tojson }}").render([message]) == '["a", 1, 2.5, null, true]'


def test_a_message_may_have_keys_that_are_method_names() -> None:
    message = {"role": "user", "content": "x", "pop": "a", "update": "b"}
    assert ChatTemplate("{{ messages[0].pop }}{{ messages[0]['update'] }}").render([message]) == "ab"


@pytest.mark.parametrize("messages", [["text"], [{"role": "user", "content": object()}], [{"content": b"bytes"}], [7]])
def test_messages_must_be_plain_data(messages: Any) -> None:
    for template in (ChatTemplate(None), ChatTemplate("{{ messages }}")):
        with pytest.raises(errors.TemplateError):
            template.render(messages)


def test_messages_that_hold_themselves_are_refused() -> None:
    message: dict[str, object] = {"role": "user"}
    message["content"] = [message]
    with pytest.raises(errors.TemplateError, match="nested too deeply"):
        ChatTemplate("{{ messages }}").render([message])


@pytest.mark.parametrize(
    "source", ["{{ (", "{% for x in y %}", "{% endfor %}", "{{ x|nofilter }}", "{% generation %}"]
)
def test_broken_templates_are_found_when_they_are_made(source: str) -> None:
    with pytest.raises(errors.TemplateError) as caught:
        ChatTemplate(source)
    assert "line 1" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(errors.TemplateError, match="outside loop"):
        ChatTemplate("{% break %}")
