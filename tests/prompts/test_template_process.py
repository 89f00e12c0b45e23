"""Templates of strangers are rendered within limits on time and memory, compilation included."""

import os
import threading
import time
from typing import Any

import pytest

from harness.errors import UserError
from harness.prompts import template_process
from harness.prompts.chat import ChatTemplate
from harness.prompts.template_process import LimitedTemplate, TemplateRefuses

TURN: Any = [{"role": "user", "content": "hi"}]
HOSTILE = {
    "a loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a long text": "{{ 'x' * 2000000000 }}",
    "a long text from small parts": "{% set ns = namespace(t='xxxxxxxx') %}{% for i in range(60) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
    "a large number": "{{ 10 ** 100000000 }}",
    "a large constant of the compiler": "{% if 9 ** 9 ** 9 %}{% endif %}",
    "padding": "{{ '%0999999999d' % 3 }}",
    "a list": "{{ ([0] * 1000000000) | length }}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "a long prompt": "{{ 'x' * 100000000 }}",
    "deep nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "many blocks": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "a large template": "{# " + "x" * 2_000_000 + " #}",
    "a filter": "{{ ('a\n' * 100000) | indent(100000) }}",
    "the time": "{{ strftime_now('%9999999999Y' * 1000) }}",
}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_process, "CPU_SECONDS", 0.3)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_an_error_soon_and_the_next_one_renders(name: str) -> None:
    began, before = time.monotonic(), os.times()
    template = ChatTemplate(HOSTILE[name], {})
    try:
        assert len(template.render(TURN)) < 10_000
    except UserError as error:
        assert "the model's chat template" in error.message
    assert time.monotonic() - began < 30
    after = os.times()
    assert after.user + after.system - before.user - before.system < 1
    assert ChatTemplate("{{ messages[0].content }}", {}).render(TURN) == "hi"


def test_limits_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"takes more than 0\.3 s for one prompt"):
        LimitedTemplate(HOSTILE["a loop"]).render()
    monkeypatch.setattr(template_process, "CPU_SECONDS", 9)
    for text, message in (
        (HOSTILE["a list"], "takes more than 1.5 GB of memory"),
        (HOSTILE["a long prompt"], "makes a prompt of 100,000,000 bytes; at most 67,108,864"),
        (HOSTILE["a large template"], "has 2,000,006 characters; at most 1,048,576"),
    ):
        with pytest.raises(UserError, match=message):
            LimitedTemplate(text).render()


def test_a_limit_is_reached_once() -> None:
    template = LimitedTemplate(HOSTILE["a loop"])
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(UserError, match="takes more than"):
            template.render()
    assert time.monotonic() - began < 0.1


def test_a_refusal_keeps_the_words_of_the_template_and_half_characters_pass() -> None:
    with pytest.raises(TemplateRefuses, match=r"^no system$"):
        LimitedTemplate("{{ raise_exception('no system') }}").render()
    assert LimitedTemplate("{{ a }}").render(a="\ud83d x" * 3) == "\ud83d x" * 3


def test_long_prompts_and_threads_get_their_own_texts() -> None:
    template = LimitedTemplate("{{ a }}.")
    texts = [str(number) * 3_000_000 for number in range(8)]
    found: dict[int, str] = {}

    def render(number: int) -> None:
        found[number] = template.render(a=texts[number])

    threads = [threading.Thread(target=render, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(8)] == [text + "." for text in texts]


def test_a_forked_child_has_a_process_of_its_own() -> None:
    template = LimitedTemplate("{{ a }}")
    assert template.render(a=1) == "1"
    child = os.fork()
    if child == 0:
        os._exit(0 if template.render(a=2) == "2" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert template.render(a=3) == "3"


def test_an_interrupted_question_gets_no_late_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    template = LimitedTemplate("{{ a }}")
    asked = template_process._asked

    def interrupted(child: Any, question: bytes) -> Any:
        child.stdin.write(len(question).to_bytes(8, "little") + question)
        child.stdin.flush()
        raise KeyboardInterrupt

    monkeypatch.setattr(template_process, "_asked", interrupted)
    with pytest.raises(KeyboardInterrupt):
        template.render(a="old")
    monkeypatch.setattr(template_process, "_asked", asked)
    assert template.render(a="new") == "new"
