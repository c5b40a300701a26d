"""Templates from strangers: no way out, and an end to everything, soon."""
from __future__ import annotations

import threading
import time

import pytest

from ggblock import errors
from ggblock.tokenizer.chat import ChatTemplate
from ggblock.tokenizer.sandbox import MAX_SOURCE_CHARACTERS

HELLO = [{"role": "user", "content": "Hello"}]
LOOP = "{% set ns = namespace(v=START) %}{% for i in range(200) %}{% set ns.v = STEP %}{% endfor %}{{ USE }}"


def growing(start: str, step: str, use: str = "ns.v") -> str:
    return LOOP.replace("START", start).replace("STEP", step).replace("USE", use)


ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__code__ }}",
    "{{ self.__init__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ namespace.mro() }}",
    "{{ dict.mro() }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{{ ['']|map(attribute='__class__')|list }}",
    "{{ messages|selectattr('__class__')|list }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{{ 'a'.encode() }}",
    "{{ (1).to_bytes(5) }}",
    "{% macro m() %}{% endmacro %}{{ m.__call__.__globals__ }}",
    "{% for x in [1] %}{{ loop.__class__ }}{% endfor %}",
    "{% for x in messages|map('upper') %}{% endfor %}{{ (messages|map('upper')).gi_frame }}",
    "{{ cycler.__init__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'x' %}",
]

FLOODS = [
    "{% for i in range(10**9) %}x{% endfor %}",
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{% for i in range(100000) %}{% for j in range(100000) if j < 0 %}{% endfor %}{% endfor %}",
    "{% for i in range(100000) %}" + "text " * 2000 + "{% endfor %}",
    "{% set x %}{% for i in range(100000) %}" + "text " * 2000 + "{% endfor %}{% endset %}",
    "{% macro m() %}" + "text " * 2000 + "{% endmacro %}{% for i in range(100000) %}{% set x = m() %}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% for x in messages recursive %}{{ loop(messages) }}{{ loop(messages) }}{% endfor %}",
    "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "{{ 'a' * 10**10 }}",
    "{{ 10**10 * 'a' }}",
    "{{ [1] * 10**9 }}",
    "{{ 9**(9**9) }}",
    "{{ ('%1000000000d' % 1) }}",
    "{{ '%1000000000d'|format(1) }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ '{:>{}}'.format(1, 10**9) }}",
    "{{ 'a'.ljust(10**9) }}",
    "{{ 'a'.zfill(10**9) }}",
    "{{ '\t'.expandtabs(10**9) }}",
    "{{ 'a'|center(10**9) }}",
    "{{ 'a'|indent(10**9, true) }}",
    "{{ ('a' * 10**6)|replace('a', 'b' * 1000) }}",
    "{{ ('a' * 10**6).replace('a', 'b' * 1000) }}",
    "{{ ('a' * 10**6).join('b' * 1000) }}",
    "{{ ('b' * 1000)|join('a' * 10**6) }}",
    "{{ [[1]]|sum(start=[1] * 10**7) }}",
    "{{ 5|round(-1000000000) }}",
    "{{ 5.5|round(1000000000, 'ceil') }}",
    "{{ strftime_now('%Y' * 1000) }}",
    "{{ [1]|tojson(indent=10**9) }}",
    growing("'ab'", "ns.v + ns.v"),
    growing("'ab'", "ns.v ~ ns.v"),
    growing("'ab'", "ns.v * 3"),
    growing("'ab'", "'%s%s' % (ns.v, ns.v)"),
    growing("'ab'", "'%s%s'|format(ns.v, ns.v)"),
    growing("'ab'", "'{0}{0}'.format(ns.v)"),
    growing("'ab'", "[ns.v, ns.v]|join"),
    growing("'ab'", "ns.v.replace('a', 'aa')"),
    growing("3", "ns.v * ns.v"),
    growing("[1]", "ns.v + ns.v"),
    growing("[1]", "[ns.v, ns.v]"),
    growing("[1]", "(ns.v, ns.v)"),
    growing("[1]", "[ns.v] * 2", "ns.v == ns.v"),
    growing("[1]", "{'a': ns.v, 'b': ns.v}", "ns.v|tojson"),
    growing("[1]", "dict(a=ns.v, b=ns.v)", "ns.v|string"),
    growing("[1]", "[ns.v]", "ns.v"),
    "{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set x %}{{ ns.s }}{{ ns.s }}{% endset %}"
    "{% set ns.s = x %}{% endfor %}",
    "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "{{ lipsum(10**6) }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_escapes_get_an_error(source: str) -> None:
    with pytest.raises(errors.TemplateError) as caught:
        ChatTemplate(source).render(HELLO)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", FLOODS, ids=lambda source: source[:70])
def test_floods_end_soon(source: str) -> None:
    start = time.process_time()
    with pytest.raises(errors.TemplateError):
        ChatTemplate(source, time_limit_s=0.5).render(HELLO)
    assert time.process_time() - start < 4.0


def test_the_time_limit_holds_outside_the_main_thread() -> None:
    source = "{% for i in range(99999) %}{% for j in range(99999) if j < 0 %}{% endfor %}{% endfor %}"
    template = ChatTemplate(source, time_limit_s=0.2)
    found: list[BaseException] = []

    def render() -> None:
        try:
            template.render(HELLO)
        except errors.TemplateError as problem:
            found.append(problem)

    threads = [threading.Thread(target=render) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3 and all("0.2 seconds" in str(problem) for problem in found)


def test_a_template_can_be_used_again_after_an_error() -> None:
    source = "{% if messages|length > 1 %}{{ raise_exception('two') }}{% endif %}{{ messages[0].content }}"
    template = ChatTemplate(source)
    with pytest.raises(errors.TemplateError):
        template.render(HELLO * 2)
    assert template.render(HELLO) == "Hello"


def test_a_long_conversation_is_within_the_limits() -> None:
    source = (
        "{% set ns = namespace(all=[]) %}{% for m in messages %}{% set ns.all = ns.all + [m] %}{% endfor %}"
        "{% for m in ns.all %}<|{{ m.role }}|>{{ m.content | trim }}\n{% endfor %}"
    )
    messages = [{"role": "user", "content": "word " * 2000}] * 600
    text = ChatTemplate(source).render(messages)
    assert len(text) == 600 * len("<|user|>" + ("word " * 2000).strip() + "\n")


def test_a_template_that_is_too_long() -> None:
    with pytest.raises(errors.TemplateError, match="too long"):
        ChatTemplate("x" * (MAX_SOURCE_CHARACTERS + 1))
