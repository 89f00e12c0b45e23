"""Variables of the chat template that the user sets: the same in scoring and training, and part of what a run is."""

from pathlib import Path
from typing import Any

import pytest
from small_tokenizers import SWITCH, TEMPLATES, template_folder

from harness import UserError
from harness.cli.options import Flags
from harness.config.parse import configure
from harness.prepare.prepare import Prepared, prepare

EFFORT = "{{ '<effort:' ~ (effort | default('low')) ~ '>' }}" + TEMPLATES["chatml"]
THINKS = TEMPLATES["closes"].replace(
    "<think>\n\n</think>\n\n' }}", "' }}{%- if thinking %}{{ '<think>\n' }}{%- endif %}"
)
"""As DeepSeek-V3.1's: an option of another name begins a thought."""
TASKS = """
from harness import Choose, Generate, Task, exact_match, task

ROWS = [{"q": "1 + 1?", "a": "2"}]

@task
def asked() -> Task:
    return Task(data=ROWS, train=ROWS, sample=lambda row: Generate(row["q"], row["a"]), metrics=[exact_match])

@task
def chosen() -> Task:
    return Task(data=ROWS, train=ROWS, sample=lambda row: Choose(row["q"], ["2", "3"], 0), metrics=["acc"])
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.py").write_text(TASKS)
    Path("talk.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]}'
    )


def prepared(
    template: str | None, options: dict[str, Any], *variants: str, task: str = "asked", **more: Any
) -> Prepared:
    template_folder(template)
    settings = {"apply_chat_template": True, "model": "./model", "tasks": [f"./x.py@{task}"]} | more
    return prepare(configure(list(variants or ("base", "lora")), template_options=options, **settings))


def prompts(made: Prepared) -> list[str]:
    """The prompts of scoring, then those of training."""
    scored = [item.request.contexts[0] for row in made.variants for items in row.items.values() for item in items]
    return scored + [example.prompt for training in made.trainings for example in training.data.examples]


@pytest.mark.parametrize("train", [None, "talk.jsonl"])
def test_an_option_reaches_every_prompt_and_decides_what_a_run_is(train: str | None) -> None:
    given = {"train": {"data": train}} if train else {}
    low, high = (prepared(EFFORT, options, **given) for options in ({}, {"effort": "high"}))
    assert [prompt.startswith("<effort:low>") for prompt in prompts(low)] == [True] * 3
    assert [prompt.startswith("<effort:high>") for prompt in prompts(high)] == [True] * 3
    assert low.identity != high.identity and low.config.sha256 != high.config.sha256
    assert low.trainings[0].data.digest != high.trainings[0].data.digest
    assert prompts(prepared(EFFORT, {"effort": "low"}, **given)) == prompts(low)


@pytest.mark.parametrize(
    ("typed", "value", "shown"),
    [
        ("true", True, "True"),
        ("false", False, "False"),
        ("3", 3, "3"),
        ("0.5", 0.5, "0.5"),
        ("26 Jul 2024", "26 Jul 2024", "26 Jul 2024"),
        ('"3"', "3", "3"),
        ("a=b", "a=b", "a=b"),
    ],
)
def test_values_have_types_on_the_command_line_and_in_a_file(typed: str, value: Any, shown: str) -> None:
    made = prepared(EFFORT, Flags(template_options=[f"effort={typed}"]).settings()["template_options"])
    assert prompts(made)[0].startswith(f"<effort:{shown}>")
    Path("compare.yaml").write_text(made.config.to_yaml())
    again = configure(file=Path("compare.yaml"), tasks=["./x.py@asked"])
    assert again.template_options == {"effort": value} and again.sha256 == made.config.sha256
    assert type(again.template_options["effort"]) is type(value)


def test_an_option_can_begin_a_thought() -> None:
    for options, in_thought in (({}, False), ({"thinking": True}, True)):
        made = prepared(THINKS, options, "base")
        (item,) = made.variants[0].items["./x.py@asked"]
        assert item.request.in_thought == in_thought
    prepared(THINKS, {}, "base", task="chosen")
    with pytest.raises(UserError, match="a choice inside a thought measures nothing"):
        prepared(THINKS, {"thinking": True}, "base", task="chosen")


@pytest.mark.parametrize(
    ("template", "options", "more", "message", "hint"),
    [
        (None, {"effort": "high"}, {"apply_chat_template": False}, "`./model` has no chat template", "instruct model"),
        (EFFORT, {"efort": "high"}, {}, "reads no variable `efort`", "did you mean `effort`?"),
        (TEMPLATES["chatml"], {"effort": 1}, {}, "reads no variable `effort`", "it reads no variables"),
        (EFFORT, {"raise_exception": 1}, {}, "reads no variable `raise_exception`", "effort"),
        (EFFORT, {"effort": 1}, {"apply_chat_template": False}, "no variant uses the chat template", "template=chat"),
        (EFFORT, {"messages": "x"}, {}, "`--template-option messages`: prompts and training data decide", None),
        (EFFORT, {"bos_token": "x"}, {}, "reads no variable `bos_token`", None),
        (SWITCH, {"enable_thinking": False}, {}, "enable_thinking`: a variant decides it", "base:think=off"),
        (EFFORT, {"effort": None}, {}, "`--template-option effort`: expected", None),
        (EFFORT, {"effort": [1]}, {}, "`--template-option effort`: expected", None),
        (EFFORT, {"effort": float("nan")}, {}, "`--template-option effort`: expected", None),
    ],
)
def test_an_option_without_effect_is_an_error(
    template: str | None, options: dict[str, Any], more: dict[str, Any], message: str, hint: str | None
) -> None:
    with pytest.raises(UserError, match=message) as error:
        prepared(template, options, **more)
    assert hint is None or hint in str(error.value.hint)


def test_an_option_holds_for_the_variants_that_use_the_template() -> None:
    made = prepared(EFFORT, {"effort": "high"}, "base", "plain=base:template=none")
    assert [prompt.startswith("<effort:high>") for prompt in prompts(made)] == [True, False]
