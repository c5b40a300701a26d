#!/usr/bin/env python3
"""Make tests/tokenizer/golden/templates.json: what transformers renders from tests/tokenizer/templates/*.jinja.

Run it where ``transformers`` and ``jinja2`` are installed, from the root of the checkout::

    python tools/gen_golden_templates.py [--check]
"""
from __future__ import annotations

import itertools
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "tokenizer"
TARGET = FOLDER / "golden" / "templates.json"

CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2, "c": None}}}
PARTS = [{"type": "text", "text": " Look: "}, {"type": "image"}, {"type": "text", "text": "what is it?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city.\nIn <b>Celsius</b> & more",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "e.g. 'München'"},
                    "unit": {"type": "string", "enum": ["C", "F"]},
                    "days": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
                },
                "required": ["city"],
            },
        },
    },
    {"type": "retrieval"},
]
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one": [{"role": "user", "content": "Hello, <b>you</b> & \"me\" \u2013 caf\u00e9 \U0001f600"}],
    "system": [
        {"role": "system", "content": "  Be brief. \n"},
        {"role": "user", "content": "  1 + 1 = ?\n"},
        {"role": "assistant", "content": " <think>\nsum\n</think>\n\n2 "},
        {"role": "user", "content": "and {{ 2 * 3 }}{% raw %}?"},
    ],
    "tools": [
        {"role": "system", "content": "Use tools."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "{\"temp\": 21}"},
        {"role": "tool", "content": "sunny"},
        {"role": "assistant", "content": "<think>\nnice\n</think>\n21 and sunny"},
    ],
    "parts": [{"role": "user", "content": PARTS}],
    "two users": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
}
SETTINGS: list[dict[str, Any]] = [
    {"add_generation_prompt": True},
    {"add_generation_prompt": False},
    {"add_generation_prompt": True, "tools": TOOLS, "enable_thinking": False},
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def rendered(template: str, messages: list[dict[str, Any]], settings: dict[str, Any]) -> str | None:
    """The text, or None when the template raises."""
    try:
        texts, _ = render_jinja_template([messages], chat_template=template, **TOKENS, **settings)
    except (jinja2.TemplateError, TypeError):
        return None
    return texts[0]


def main() -> int:
    cases = []
    for path, (name, messages), settings in itertools.product(
        sorted((FOLDER / "templates").glob("*.jinja")), CONVERSATIONS.items(), SETTINGS
    ):
        text = rendered(path.read_text(encoding="utf-8"), messages, settings)
        cases.append({"template": path.name, "conversation": name, "settings": settings, "text": text})
    document = {
        "transformers": version("transformers"),
        "jinja2": version("jinja2"),
        "tokens": TOKENS,
        "conversations": CONVERSATIONS,
        "cases": cases,
    }
    text = json.dumps(document, indent=1, ensure_ascii=True) + "\n"
    if "--check" in sys.argv[1:]:
        same = TARGET.exists() and TARGET.read_text(encoding="utf-8") == text
        print("the same" if same else "different")
        return 0 if same else 1
    TARGET.write_text(text, encoding="utf-8", newline="\n")
    print(f"{len(cases)} renderings, {sum(case['text'] is None for case in cases)} refused")
    return 0


if __name__ == "__main__":
    sys.exit(main())
