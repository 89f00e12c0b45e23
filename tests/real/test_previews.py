"""Previews on real tokenizers and chat templates show what transformers' own `apply_chat_template` gives, token by token."""

import json
from pathlib import Path
from typing import Any

import pytest
from page import Previews
from transformers import PreTrainedTokenizerBase as Tokenizer

from harness.cli import main

pytestmark = pytest.mark.real

ENDS = {
    "SmolLM2-135M-Instruct": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma3": "<end_of_turn>",
}
"""The end of a turn, by the model's folder."""
SYSTEM = "Answer in one word."
ROWS = [
    ("What is the capital of France?", "Paris"),
    ("  Two spaces, an emoji 👋 and 中文:\n\n- a list\t", "Ja, l'été"),
    ("<b>&amp;</b> {{ braces }} 'quotes' \"both\"", "a\nb"),
    ("Is 7 prime?", "<yes>"),
]
TASKS = f'''
from harness import Choose, Generate, Task, exact_match, acc, task

ROWS = {ROWS!r}


@task
def asked(*, described: bool = False) -> Task:
    return Task(
        data=[{{"q": q, "a": a}} for q, a in ROWS],
        sample=lambda row: Generate(row["q"], row["a"]),
        metrics=[exact_match],
        description={SYSTEM!r} if described else "",
        shots_from=[{{"q": q, "a": a}} for q, a in ROWS[::-1]],
        shots_order="first",
    )


@task
def chosen() -> Task:
    return Task(
        data=[{{"q": q, "a": a}} for q, a in ROWS],
        sample=lambda row: Choose(row["q"], [row["a"], "no", " 42"], 0),
        metrics=[acc],
    )


@task
def talked() -> Task:
    """The prompt is a conversation, whose last turn the model continues."""
    turns = [
        {{"role": "user", "content": ROWS[0][0]}},
        {{"role": "assistant", "content": ROWS[0][1]}},
        {{"role": "user", "content": ROWS[3][0]}},
    ]
    begun = [*turns, {{"role": "assistant", "content": "It is"}}]
    return Task(
        data=[{{"turns": turns}}, {{"turns": begun}}],
        sample=lambda row: Generate(row["turns"], "yes"),
        metrics=[exact_match],
    )
'''
TRAINED = [
    [("user", "What is the capital of France?"), ("assistant", "Paris")],
    [("system", SYSTEM), ("user", ROWS[1][0]), ("assistant", ROWS[1][1])],
    [("user", "Hi"), ("assistant", "Hello!"), ("user", "2 + 2?"), ("assistant", "4\n\nis right")],
    [("user", "Code?"), ("assistant", "```python\nprint(1)\n```")],
]


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    file = tmp_path / "tasks.py"
    file.write_text(TASKS, encoding="utf-8")
    return file


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command and returns its JSON."""

    def run(*arguments: str) -> Any:
        assert main([*arguments, "--format", "json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize(("number", "shots", "described"), [(0, 0, False), (1, 0, True), (2, 2, False), (3, 2, True)])
def test_prompts(
    templated: Path,
    tokenizer: Tokenizer,
    tasks: Path,
    shown: Any,
    previews: Previews,
    number: int,
    shots: int,
    described: bool,
) -> None:
    found = shown(
        "show", f"{tasks}@asked", "-m", str(templated), "--apply-chat-template",
        "--sample", str(number), "-f", str(shots), "-T", f"described={described}",
    )  # fmt: skip
    solved = [turn(*each) for q, a in ROWS[::-1] for each in (("user", q), ("assistant", a))]
    messages = [turn("system", SYSTEM)] * described + [*solved[: 2 * shots], turn("user", ROWS[number][0])]
    assert found["contexts"] == [tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)]
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    previews.check(templated.name, "prompts", found["rows"][0]["ids"], theirs)


@pytest.mark.parametrize("number", [0, 1])
def test_choices(
    templated: Path, tokenizer: Tokenizer, tasks: Path, shown: Any, previews: Previews, number: int
) -> None:
    found = shown("show", f"{tasks}@chosen", "-m", str(templated), "--apply-chat-template", "--sample", str(number))
    question, answer = ROWS[number]
    prompt = tokenizer.apply_chat_template(  # choices are scored after a closed thought
        [turn("user", question)], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert found["contexts"] == [prompt]
    for row, choice in zip(found["rows"], [answer, "no", " 42"], strict=True):
        previews.check(templated.name, "choices", row["ids"], tokenizer(prompt + choice, add_special_tokens=False))


@pytest.mark.parametrize("begun", [False, True])
def test_conversations(
    templated: Path, tokenizer: Tokenizer, tasks: Path, shown: Any, previews: Previews, begun: bool
) -> None:
    found = shown("show", f"{tasks}@talked", "-m", str(templated), "--apply-chat-template", "--sample", str(int(begun)))
    messages = [turn("user", ROWS[0][0]), turn("assistant", ROWS[0][1]), turn("user", ROWS[3][0])]
    messages += [turn("assistant", "It is")] if begun else []
    how = {"continue_final_message": True} if begun else {"add_generation_prompt": True}
    assert found["contexts"] == [tokenizer.apply_chat_template(messages, tokenize=False, **how)]
    theirs = tokenizer.apply_chat_template(messages, **how)
    previews.check(templated.name, "conversations", found["rows"][0]["ids"], theirs)


@pytest.mark.parametrize("turns", ["last", "all"])
def test_training_rows(
    templated: Path, tokenizer: Tokenizer, tmp_path: Path, shown: Any, previews: Previews, turns: str
) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"messages": [turn(*each) for each in row]} for row in TRAINED]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = shown("train", "lora", "-m", str(templated), "--train", str(file), "--preview", "9", "-S", f"turns={turns}")
    asked = [
        row["messages"][: place + 1]
        for row in rows
        for place, each in enumerate(row["messages"])
        if each["role"] == "assistant" and (turns == "all" or place == len(row["messages"]) - 1)
    ]
    assert len(found["rows"]) == len(asked)
    for row, messages in zip(found["rows"], asked, strict=True):
        prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        assert whole.startswith(prompt)
        end = ENDS[templated.name]
        learned, found_end, _ = whole[len(prompt) :].partition(end)
        assert found_end
        read = tokenizer(prompt, add_special_tokens=False)
        previews.check(templated.name, "prompts of training rows", row["ids"][: row["learned_from"]], read)
        both = tokenizer(prompt + learned + end, add_special_tokens=False)
        previews.check(templated.name, "training rows", row["ids"], both)
