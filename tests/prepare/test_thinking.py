"""The key `think`: the chat template's option, a budget, and the same form in training and scoring."""

from pathlib import Path
from typing import Any

import pytest
from small_tokenizers import CHANNELS, SWITCH, TEMPLATES, template_folder

from harness import UserError
from harness.comparison.fairness import fairness
from harness.comparison.thought_notes import default_thinking
from harness.config.parse import configure
from harness.config.variants import make_variant, parse_variant
from harness.prepare.prepare import Prepared, prepare

OPENS = SWITCH.replace("{%- endif %}{%- endif %}", "{%- else %}{{ '<think>\n' }}{%- endif %}{%- endif %}")
"""As Qwen3.6's: the prompt begins a thought, unless the option closes it."""
TASKS = """
from harness import Choose, Generate, Task, exact_match, task

ROWS = [{"q": "1 + 1?", "a": "2"}]

@task
def open_ended() -> Task:
    return Task(data=ROWS, train=ROWS, sample=lambda row: Generate(row["q"], row["a"], max_tokens=7), metrics=[exact_match])

@task
def chosen() -> Task:
    return Task(data=ROWS, train=ROWS, sample=lambda row: Choose(row["q"], ["2", "3"], 0), metrics=["acc"])
"""
ASKED = "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
CLOSED = "<think>\n\n</think>\n\n"


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.py").write_text(TASKS)


def prepared(template: str, *variants: str, task: str = "open_ended", **settings: Any) -> Prepared:
    template_folder(template)
    options = {"apply_chat_template": True} | settings
    return prepare(configure(list(variants), model="./model", tasks=[f"./x.py@{task}"], **options))


def request(made: Prepared, number: int = 0) -> Any:
    return next(iter(made.variants[number].items.values()))[0].request


@pytest.mark.parametrize(
    ("template", "think", "tail", "in_thought", "budget"),
    [
        (SWITCH, "", "", False, 0),
        (SWITCH, ":think=on", "", False, 8192),
        (SWITCH, ":think=off", CLOSED, False, 0),
        (SWITCH, ":think=512", "", False, 512),
        (OPENS, "", "<think>\n", True, 0),
        (OPENS, ":think=on", "<think>\n", True, 8192),
        (OPENS, ":think=off", CLOSED, False, 0),
        (TEMPLATES["opens"], "", "<think>\n", True, 0),
        (TEMPLATES["opens"], ":think=512", "<think>\n", True, 512),
        (TEMPLATES["closes"], ":think=off", CLOSED, False, 0),
        (TEMPLATES["chatml"], "", "", False, 0),
        (CHANNELS, ":think=512", "", False, 512),
    ],
)
def test_thoughts_of_a_prompt(template: str, think: str, tail: str, in_thought: bool, budget: int) -> None:
    made = request(prepared(template, "base" + think))
    assert made.contexts == (ASKED.replace("\n", "") if template is CHANNELS else ASKED + tail,)
    assert (made.in_thought, made.thought_tokens, made.limit) == (in_thought, budget, 7 + budget)


@pytest.mark.parametrize("think", ["", ":think=on", ":think=off"])
@pytest.mark.parametrize("template", [SWITCH, OPENS])
def test_choices_are_scored_and_learned_after_a_closed_thought(template: str, think: str) -> None:
    made = prepared(template, "lora" + think, task="chosen")
    assert request(made).contexts == (ASKED + CLOSED,)
    (example,) = made.trainings[0].data.examples
    assert (example.prompt, example.completion) == (ASKED + CLOSED, "2")


HEADER = "<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("template", "start"),
    [
        (CHANNELS, HEADER),
        (TEMPLATES["closes"], ""),
        (SWITCH.replace("'<think>\n\n</think>\n\n'", "'<think>\n\n</think>'"), "\n\n"),
    ],
)
def test_choices_are_scored_where_the_template_writes_an_answer(template: str, start: str) -> None:
    made = prepared(template, "lora", task="chosen")
    (example,) = made.trainings[0].data.examples
    (context,) = request(made).contexts
    assert (context + "2").endswith(start + "2")
    assert example.prompt + example.completion == context + "2" and example.prompt == context.removesuffix(start)


def test_a_begun_answer_can_end_inside_a_thought() -> None:
    for begun, in_thought in (("<think>\nSo", True), ("<think>So</think>", False), ("So", False)):
        turns = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": begun}]
        Path("x.py").write_text(TASKS.replace('Generate(row["q"]', f"Generate({turns}"))
        assert (
            request(prepared(SWITCH.replace("'<think>\n' + said + '\n</think>\n\n'", "''"), "base")).in_thought
            == in_thought
        )


def test_a_template_that_refuses_a_lone_user_turn_can_be_used() -> None:
    refuses = "{%- if messages[0].role != 'system' %}{{ raise_exception('no') }}{%- endif %}"
    for task in ("open_ended", "chosen"):
        made = prepared(refuses + SWITCH, "base:system=S", task=task)
        assert request(made).contexts[0].endswith(CLOSED if task == "chosen" else "assistant\n")
        assert len(default_thinking(made.variants)) == 1
    (note,) = default_thinking(prepared(refuses + OPENS, "base:system=S").variants)
    assert "prompts begin a thought" in note


def test_choices_inside_a_thought_are_refused() -> None:
    with pytest.raises(UserError, match="a choice inside a thought measures nothing") as error:
        prepared(TEMPLATES["opens"], "base", task="chosen")
    assert "generate" in str(error.value.hint)


@pytest.mark.parametrize(
    ("think", "prompt", "completion"),
    [("", ASKED, f"{CLOSED}2"), (":think=off", ASKED + CLOSED, "2"), (":think=on", ASKED, f"{CLOSED}2")],
)
def test_training_has_the_form_of_scoring(think: str, prompt: str, completion: str) -> None:
    Path("rows.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]}'
    )
    for train in ({}, {"train": {"data": "rows.jsonl"}}):
        made = prepared(SWITCH, "lora" + think, **train)
        (example,) = made.trainings[0].data.examples
        assert (example.prompt, example.completion) == (prompt, completion)
        assert request(made).contexts == (prompt,)


def test_the_end_of_a_thought_that_is_added_to_the_answers_of_a_task_is_counted() -> None:
    (data,) = [training.data for training in prepared(TEMPLATES["opens and drops"], "lora").trainings]
    (example,) = data.examples
    assert example.completion == "</think>\n\n2"
    assert any(
        note.startswith("end of a thought added to 1 learned turn of ./x.py@open_ended: ") for note in data.notes
    )


def test_variants_that_differ_in_thinking_share_neither_prompts_nor_training() -> None:
    made = prepared(SWITCH, "base", "off=base:think=off", "lora", "thinks=lora:think=9")
    assert [request(made, number).contexts[0].count("<think>") for number in range(4)] == [0, 1, 0, 0]
    assert len(made.trainings) == 2
    (note,) = default_thinking(made.variants)
    assert note.startswith(
        "base, lora: thinking follows the chat template's default: the model may begin a thought; `think=on`"
    )
    assert any("off: the tasks' own shots, chat template, think=off" in text for text in fairness(made, made.variants))
    assert default_thinking(prepared(TEMPLATES["chatml"], "base").variants) == []


@pytest.mark.parametrize(
    ("template", "variant", "options", "expected"),
    [
        (TEMPLATES["chatml"], "base:think=on", {}, "knows no thoughts"),
        (TEMPLATES["opens"], "base:think=off", {}, "cannot switch thoughts off"),
        (SWITCH, "base:think=on", {"apply_chat_template": False}, "`think=on` needs the model's chat template"),
        (SWITCH, "base:think=maybe", {}, "expected on, off or a number of tokens"),
        (SWITCH, "base:think=0", {}, "expected on, off or a number of tokens"),
    ],
)
def test_thinking_that_cannot_be_is_an_error(
    template: str, variant: str, options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        prepared(template, variant, **options)


@pytest.mark.parametrize(("value", "text"), [(True, "on"), (False, "off"), (512, "512"), ("on", "on")])
def test_thinking_in_a_configuration_file_and_back(value: Any, text: str) -> None:
    spec = make_variant("a", "a", "base", [], {"think": value})
    assert spec.prompting == {"think": text} and spec.canonical == f"base:think={text}"
    assert parse_variant(spec.canonical).prompting == spec.prompting
