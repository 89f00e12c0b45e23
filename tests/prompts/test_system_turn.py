"""A chat template without a system turn gets the description and the system prompt in the first user turn."""

from collections.abc import Sequence
from typing import Any

import pytest

from harness import Generate, Message, Metric, Task
from harness.prompts.chat import PLAIN, ChatTemplate, system_in_user_turn
from harness.prompts.render import Prompting, render, render_examples

ONE = Metric("one", score=lambda output, sample: 1.0)
ROW = {"q": "1+1?", "a": "2"}
REFUSES = (  # as Gemma's
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}"
    "{% endif %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}<model>"
)
DROPS = "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{{ m.content | trim }}{% endif %}{% endfor %}<model>"
JOINS = (  # as Llama 2's and Mistral's
    "{% if messages[0].role == 'system' %}{% set head = messages[0].content + '|' %}{% set rest = messages[1:] %}"
    "{% else %}{% set head = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}[{{ head if loop.first else '' }}{{ m.content }}]{% endfor %}"
)


def prompt(template: str, sample: Any, system: str | None = None, **options: Any) -> str:
    task = Task([ROW], sample, [ONE], train=[ROW], **options)
    prompting = Prompting(system=system, template=ChatTemplate(template, {}))
    (item,) = render("t", task, prompting)
    if not options.get("shots"):
        (example,) = render_examples("t", task, prompting)
        assert example.prompt == item.request.contexts[0]
    return item.request.contexts[0]


def ask(row: Any) -> Generate:
    return Generate(row["q"], row["a"])


@pytest.mark.parametrize("template", [REFUSES, DROPS])
def test_description_and_system_prompt_are_at_the_head_of_the_first_user_turn(template: str) -> None:
    assert prompt(template, ask, description="Add.\n\n") == "<user>Add.\n\n1+1?<model>"
    assert prompt(template, ask, description="Add.") == "<user>Add.\n\n1+1?<model>"
    assert prompt(template, ask, system="Be brief.") == "<user>Be brief.\n\n1+1?<model>"
    assert prompt(template, ask, system="Be brief.", description="Add.\n\n") == "<user>Be brief.\n\nAdd.\n\n1+1?<model>"
    shots = prompt(template, ask, description="Add. ", shots=1, shots_from=[{"q": "2+2?", "a": "4"}])
    assert shots == "<user>Add. 2+2?<assistant>4<user>1+1?<model>"


@pytest.mark.parametrize("template", [REFUSES, DROPS])
def test_a_system_turn_of_the_task_itself_is_moved_too(template: str) -> None:
    turns = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1+1?"}]
    assert prompt(template, lambda row: Generate(turns, "2"), system="S.") == "<user>S.\n\nAdd.\n\n1+1?<model>"


def test_a_template_with_a_system_turn_keeps_it() -> None:
    assert prompt(PLAIN.text, ask, description="Add.") == "System: Add.\nUser: 1+1?\nAssistant:"
    assert prompt(JOINS, ask, description="Add.") == "[Add.|1+1?]"


@pytest.mark.parametrize(
    ("template", "expected"),
    [(REFUSES, False), (DROPS, False), (JOINS, True), (PLAIN.text, True), ("{{ messages[9].content.upper() }}", True)],
)
def test_a_probe_tells_whether_a_template_has_a_system_turn(template: str, expected: bool) -> None:
    assert ChatTemplate(template, {}).has_system_turn is expected


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ("su", ["user:s0\n\nu1"]),
        ("ssu", ["user:s0\n\ns1\n\nu2"]),
        ("usau", ["user:u0", "user:s1", "assistant:a2", "user:u3"]),
        ("usu", ["user:u0", "user:s1\n\nu2"]),
        ("s", ["user:s0"]),
        ("ua", ["user:u0", "assistant:a1"]),
    ],
)
def test_each_system_message_joins_the_user_turn_after_it(roles: str, expected: Sequence[str]) -> None:
    names = {"s": "system", "u": "user", "a": "assistant"}
    messages: list[Message] = [{"role": names[role], "content": f"{role}{n}"} for n, role in enumerate(roles)]
    assert [f"{m['role']}:{m['content']}" for m in system_in_user_turn(messages)] == expected
