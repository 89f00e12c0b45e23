"""Chat templates are rendered as transformers renders them."""

from typing import Any

import pytest

from harness import UserError
from harness.prompts.chat import PLAIN, ChatTemplate

CHATML = (
    "{%- for message in messages %}\n    {{- '<|im_start|>' + message.role + '\\n' + message.content | trim + "
    "'<|im_end|>' + '\\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}"
)
WITH_TOOLS = (
    "{{ bos_token }}{% if tools is not none %}[TOOLS]{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}{{ m | tojson(indent=2) }}{{ eos_token }}{% endfor %}"
)
GENERATION = (
    "{% for m in messages %}\n{% if m.role == 'assistant' %}\n{% generation %}{{ m.content + eos_token }}"
    "{% endgeneration %}\n{% else %}\n[INST] {{ m['content'] }} [/INST]\n{% endif %}\n{% endfor %}"
)
CONTROLS = (
    "{% set ns = namespace(turns=0) %}{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
    "{% set ns.turns = ns.turns + 1 %}{{ ns.turns }}:{{ m.content }};{% endfor %}{{ ns.turns }}"
)
DATED = "{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}"
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ m.content }}{% endfor %}"
)
TURNS = [
    {"role": "user", "content": '  2 < 3 & "é"\n数? '},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "sure?"},
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("template", [CHATML, WITH_TOOLS, GENERATION, CONTROLS, DATED])
def test_rendering_equals_that_of_transformers(template: str, system: bool) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **SPECIAL)
    messages = [{"role": "system", "content": "Be brief."}] * system + TURNS
    for add in (True, False):
        theirs = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=add
        )
        assert ChatTemplate(template, SPECIAL).render(messages, add_generation_prompt=add) == theirs


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (NO_SYSTEM, "System role not supported"),
        ("{{ messages[9].content.upper() }}", "no element 9"),
        ("{{ 'x' + 1 }}", "concatenate"),
        ("{% if %}", "Expected an expression"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_a_template_that_raises_is_a_user_error_with_the_roles(template: str, expected: str) -> None:
    with pytest.raises(UserError, match=f"{expected}") as error:
        ChatTemplate(template, {}).render([{"role": "system", "content": "x"}, *TURNS])
    assert "(system, user, assistant, user)" in error.value.message


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n"
    "{{ m.reasoning_content | default('') | trim }}\n</think>\n\n{% endif %}"
    "{{ m.content.split('</think>')[-1].lstrip('\n') }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


@pytest.mark.parametrize(
    "template", [CHATML, CHATML.replace(" | trim", ""), GENERATION, THINKING, "<{{ messages[1].content }}</s>"]
)
@pytest.mark.parametrize("content", ["", "<", "</s>", " It is ", "It is\n", "im", "assistant", "<think>\nhm"])
def test_an_open_turn_at_the_end_equals_that_of_transformers(template: str, content: str) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **SPECIAL)
    messages = [{"role": "user", "content": "<is>?"}, {"role": "assistant", "content": content}]
    theirs = tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, continue_final_message=True
    )
    assert ChatTemplate(template, SPECIAL).render(messages) == theirs


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.content | replace('is', '') }}{% endfor %}",
    ],
)
def test_a_begun_answer_that_the_template_changes_is_an_error(template: str) -> None:
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "it is"}]
    with pytest.raises(UserError, match="changes the begun answer 'it is'") as error:
        ChatTemplate(template, {}).render(messages)
    assert "leave out the assistant's turn" in str(error.value.hint)


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_a_thought_has_every_name_that_templates_read(key: str) -> None:
    template = (
        "{% for m in messages %}{{ m.thinking }}|{{ m.reasoning_content }}|{{ m.tool_calls is defined }}{% endfor %}"
    )
    turn: dict[str, Any] = {"role": "assistant", "content": "4", key: "2 + 2", "tool_calls": None}
    assert ChatTemplate(template, {}).render([turn], add_generation_prompt=False) == "2 + 2|2 + 2|False"


def test_plain_messages_read_as_a_dialogue() -> None:
    assert PLAIN.render(TURNS[1:]) == "Assistant: yes\nUser: sure?\nAssistant:"


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("{{ messages[0].content }}{{ bos_token }}{{ strftime_now('%Y') }}", set()),
        ("{% if effort is defined %}{{ effort }}{% endif %}", {"effort"}),
        ("{% set effort = effort if effort is defined else 1 %}{{ effort }}", {"effort"}),
        ("{% if not date is defined %}{% set date = '1 May' %}{% endif %}{{ date }}", {"date"}),
        ("{% set said = messages[0].content %}{{ said }}{{ other | default('') }}", {"other"}),
        ("{% for m in messages %}{{ m.content }}{{ loop.index }}{% endfor %}", set()),
        ("{% macro show(a) %}{{ a }}{{ style }}{% endmacro %}{{ show(1) }}", {"style"}),
        ("{{ 'a' * 10 ** 12 }}{{ effort }}", {"effort"}),  # nothing is computed
        ("{% if %}", set()),
    ],
)
def test_the_variables_that_a_template_reads(text: str, variables: set[str]) -> None:
    assert ChatTemplate(text, {"bos_token": "<s>"}).variables == variables
