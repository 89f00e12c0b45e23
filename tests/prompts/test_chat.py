"""Chat templates are rendered as transformers renders them."""

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


@pytest.mark.parametrize(
    ("template", "content", "expected"),
    [
        (
            "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}",
            " It is ",
            "<user>is?</s><assistant> It is ",
        ),
        (
            "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</s>{% endfor %}",
            " is ",
            "<user>is?</s><assistant>is",
        ),
    ],
)
def test_an_assistant_turn_at_the_end_is_left_open(template: str, content: str, expected: str) -> None:
    messages = [{"role": "user", "content": "is?"}, {"role": "assistant", "content": content}]
    assert ChatTemplate(template, {}).render(messages) == expected


def test_plain_messages_read_as_a_dialogue() -> None:
    assert PLAIN.render(TURNS[1:]) == "Assistant: yes\nUser: sure?\nAssistant:"
