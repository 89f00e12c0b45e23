"""What is learned of a turn is what the template renders behind the prompt, up to the end of the turn."""

from typing import Any

import pytest
from small_tokenizers import TEMPLATES, small_tokenizer

from harness import UserError
from harness.jobs import Example
from harness.prompts.chat import ChatTemplate
from harness.prompts.learned import LearnedTurn, learned, learned_after
from harness.prompts.render import Prompting, render_examples
from harness.prompts.training_rows import read_rows
from harness.tokens.description import describe


def examples_from_rows(name: str, rows: list[dict[str, Any]], **options: Any) -> list[Example]:
    return read_rows(name, rows, **options).examples


USER = {"role": "user", "content": "1 + 1?"}


def template_of(name: str) -> ChatTemplate:
    found = describe(small_tokenizer("bos", template=TEMPLATES[name])).chat
    assert found is not None
    return found


def spoken(content: str, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **keys}


THOUGHT = "<think>\nTwo.\n</think>\n\n2"


@pytest.mark.parametrize(
    ("name", "answer", "text", "thought"),
    [
        ("chatml", spoken("2"), "2", "as rendered"),
        ("chatml", spoken("2\n"), "2\n", "as rendered"),
        ("chatml", spoken(""), "", "as rendered"),
        ("chatml", spoken("2<|im_end|>2"), "2<|im_end|>2", "as rendered"),
        ("chatml", spoken(THOUGHT), THOUGHT, "as rendered"),
        ("chatml", spoken("2", reasoning_content="Two."), "2", "not rendered"),
        ("chatml", spoken("end"), "end", "as rendered"),
        ("gemma", spoken("t"), "t", "as rendered"),
        ("mistral", spoken("s"), " s", "as rendered"),
        ("gemma", spoken(" 2 "), "2", "as rendered"),
        ("llama", spoken("2"), "2", "as rendered"),
        ("mistral", spoken("2"), " 2", "as rendered"),
        ("two ends", spoken("2"), "2<|im_end|>\n", "as rendered"),
        ("no end", spoken("2"), "2", "as rendered"),
        ("words", spoken("2"), " 2", "as rendered"),
        ("opens", spoken("2"), "\n</think>\n\n2", "as rendered"),
        ("opens", spoken("2", thinking="Two."), "Two.\n</think>\n\n2", "as rendered"),
        ("opens and drops", spoken("2"), "</think>\n\n2", "added"),
        ("opens and drops", spoken("2", reasoning="Two."), "Two.\n</think>\n\n2", "added"),
        ("opens and drops", spoken(THOUGHT), "Two.\n</think>\n\n2", "added"),
        ("opens and drops", spoken("Two.\n</think>\n\n2"), "Two.\n</think>\n\n2", "added"),
        ("opens and drops", spoken("2</think>3<think>4</think>5"), "2\n</think>\n\n5", "not rendered"),
        ("closes", spoken("2"), "2", "as rendered"),
        ("closes", spoken("2", reasoning_content="Two."), "2", "left out"),
        ("closes", spoken(THOUGHT), THOUGHT, "as rendered"),
    ],
)
def test_what_is_learned_of_an_answer(name: str, answer: dict[str, Any], text: str, thought: str) -> None:
    template = template_of(name)
    for before in ([USER], [USER, spoken("two"), USER]):
        found = learned(template, [*before, answer])
        assert (found.text, found.thought) == (text, thought)
        assert found.prompt == template.render(before)


@pytest.mark.parametrize(
    ("written", "answer", "text"),
    [
        ("'<think>' + said + '</think>'", spoken("2"), "</think>2"),
        ("'<think></think>'", spoken("2"), "</think>2"),
        ("'<think></think>'", spoken("2", reasoning_content="Two."), "Two.\n</think>2"),
    ],
)
def test_an_open_thought_that_the_template_closes_without_a_line_break(
    written: str, answer: dict[str, Any], text: str
) -> None:
    template = TEMPLATES["opens"].replace("'<think>\n' + said + '\n</think>\n\n'", written)
    chat = describe(small_tokenizer(template=template)).chat
    assert chat is not None
    assert learned(chat, [USER, answer]) == LearnedTurn(chat.render([USER]), text, "added")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TEMPLATES["chatml"].replace("m.content", "m.content | upper"), "changes the answer 'It is two.'"),
        (
            "{% for m in messages %}{{ m.content }}{% if not loop.last %}</s>{% endif %}{% endfor %}",
            "writes no </s> after",
        ),
        ("{{ messages | length }}" + TEMPLATES["chatml"], "does not follow the prompt"),
        (TEMPLATES["no system"].replace("'system'", "'user'"), "refuses messages with these roles"),
    ],
)
def test_an_answer_that_cannot_be_learned_as_written_is_an_error(text: str, expected: str) -> None:
    template = ChatTemplate(text, {}, "</s>")
    row = {"messages": [USER, spoken("It is two.")]}
    with pytest.raises(UserError, match=expected) as error:
        examples_from_rows("x", [row], template=template)
    assert error.value.message.startswith("training data `x`: row 0: the model's chat template ")
    assert error.value.hint


def test_text_before_a_thought_that_the_prompt_has_begun_is_an_error() -> None:
    with pytest.raises(UserError, match="has text before its thought, 'Well"):
        learned(template_of("opens and drops"), [USER, spoken("Well. <think>2</think>3")])


@pytest.mark.parametrize("name", ["chatml", "gemma", "llama", "mistral", "no end", "closes"])
def test_the_rest_of_a_begun_answer(name: str) -> None:
    template = template_of(name)
    asked = [USER, spoken("It is")]
    assert learned_after(template, asked, " two.") == LearnedTurn(template.render(asked), " two.")


def test_a_begun_answer_that_changes_when_it_is_complete_is_an_error() -> None:
    template = ChatTemplate(
        "{% for m in messages %}{{ m.content | length }} {{ m.content }}</s>{% endfor %}", {}, "</s>"
    )
    with pytest.raises(UserError, match="changes a begun answer when it is complete"):
        learned_after(template, [USER, spoken("It is")], " two.")


# Rows and tasks

CONVERSATION = [USER, spoken("two"), {"role": "user", "content": "sure?"}, spoken("yes")]


def test_rows_of_messages_are_learned_with_the_end_of_their_turn() -> None:
    for name, prompt, answer, end in (
        ("gemma", "<s><start_of_turn>user\n1 + 1?<end_of_turn>\n<start_of_turn>model\n", "two", "<end_of_turn>"),
        ("chatml", "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n", "two", "<|im_end|>"),
        ("words", "user: 1 + 1?\nassistant:", " two", ""),
    ):
        template = template_of(name)
        first, last = examples_from_rows("x", [{"messages": CONVERSATION}], template=template, every_turn=True)
        assert (first.prompt, first.completion, first.turn_end) == (prompt, answer, end)
        assert last.prompt == template.render(CONVERSATION[:3]) and last.completion == answer.replace("two", "yes")
        (pair,) = examples_from_rows("x", [{"prompt": "1 + 1?", "completion": "two"}], template=template, chat=True)
        assert pair == first


@pytest.mark.parametrize(
    ("name", "answer", "note"),
    [
        ("opens", spoken("2", reasoning_content="Two."), None),
        ("chatml", spoken("2", reasoning_content="Two."), "not rendered by the template, so not learned"),
        (None, spoken("2", reasoning_content="Two."), "not rendered by the template, so not learned"),
        (
            "closes",
            spoken("2", reasoning_content="Two."),
            "left out, because the prompt of the template closes the thought",
        ),
        (
            "opens and drops",
            spoken("2"),
            "the prompt of the template begins a thought that the template does not write",
        ),
    ],
)
def test_a_note_counts_what_happens_to_reasoning(name: str | None, answer: dict[str, Any], note: str | None) -> None:
    rows = [{"messages": [USER, answer]}] * 2
    notes = read_rows("x", rows, template=template_of(name) if name else None).notes
    assert [note in found and "2 learned turns of x" in found for found in notes] == [True] * (note is not None)


def test_both_answers_of_a_preference_are_turns() -> None:
    template = template_of("mistral")
    for row in (
        {"prompt": [USER], "chosen": "two", "rejected": "three"},
        {"prompt": "1 + 1?", "chosen": "two", "rejected": "three"},
    ):
        (found,) = examples_from_rows("x", [row], template=template, stage="dpo", chat=True)
        assert (found.prompt, found.completion, found.rejected) == ("<s>[INST] 1 + 1? [/INST]", " two", " three")
        assert found.turn_end == "</s>"


def test_the_reference_of_a_reward_is_the_answer_as_written() -> None:
    (found,) = examples_from_rows("x", [{"messages": CONVERSATION[:2]}], template=template_of("opens"), stage="grpo")
    assert found.prompt.endswith("<think>\n") and found.completion == "two" and found.turn_end == "<|im_end|>"


@pytest.mark.parametrize("begun", [False, True])
def test_the_answer_of_a_task_is_a_turn_whose_end_replaces_the_stop_string(begun: bool) -> None:
    from harness import Generate, Task, exact_match

    template = template_of("chatml")
    prompt = [USER, spoken("It is")] if begun else [USER]
    task = Task(data=[{}], train=[{}], sample=lambda row: Generate(prompt, "two", stop=["\n"]), metrics=[exact_match])
    (found,) = render_examples("x", task, Prompting(template=template))
    assert found.prompt == template.render(prompt)
    assert (found.completion, found.turn_end) == (" two" if begun else "two", "<|im_end|>")
    (plain,) = render_examples("x", task, Prompting(template=template_of("words")))
    assert (plain.completion, plain.append_eos, plain.turn_end) == ((" two\n" if begun else "two\n"), False, "")


def test_a_training_row_of_a_task_that_the_template_refuses_is_named() -> None:
    from harness import Generate, Task, exact_match

    task = Task(data=[{}], train=[{}], sample=lambda row: Generate([USER, USER], "two"), metrics=[exact_match])
    with pytest.raises(UserError, match="training data of task `x`, row 0: the model's chat template refuses"):
        render_examples("x", task, Prompting(template=template_of("alternating")))


def test_a_system_prompt_is_learned_in_the_user_turn_of_a_template_without_system_turns() -> None:
    from harness import Generate, Task, exact_match

    template = template_of("no system")
    task = Task(data=[{}], train=[{}], sample=lambda row: Generate("?", "two"), metrics=[exact_match])
    (found,) = render_examples("x", task, Prompting(system="S", template=template))
    assert found.prompt == template.render([{"role": "user", "content": "S\n\n?"}])
    assert (found.completion, found.turn_end) == ("two", template.turn_end)
