"""Filters of training rows: too short, too long, nearly repeating an earlier row; told, and the same for held-out rows."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from harness.authoring.inspect_training import inspect_training
from harness.cli.options import Flags
from harness.config.parse import configure
from harness.data.model_files import find_model
from harness.errors import UserError
from harness.jobs import Example
from harness.prepare.copies import near_copies_of
from harness.prepare.prepare import prepare
from harness.prepare.trainings import Training
from harness.tokens.training_labels import row_lengths

WORDS = [f"word{number}" for number in range(500)]


def words(count: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def near(text: str) -> str:
    return text + " indeed"


ROWS: list[dict[str, Any]] = [
    *({"prompt": f"Question {n}: {words(30, n)}", "completion": words(20, 100 + n)} for n in range(20)),
    {"prompt": "Hi", "completion": "yes"},
    {"prompt": "Say", "completion": words(400, 999)},
    {"prompt": f"Question 3: {words(30, 3)}", "completion": near(words(20, 103))},
    {"prompt": f"Question 4: {words(30, 4)}", "completion": words(20, 104)},
]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def training(
    variant: str = "lora", rows: list[dict[str, Any]] = ROWS, folds: int | None = None, **train: Any
) -> Training:
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = configure([variant], tasks=["mini_mmlu"], limit=1, folds=folds, train={"data": "rows.jsonl", **train})
    found = prepare(config).variants[0].training
    assert found is not None
    return found


def prompts(examples: Any) -> list[str]:
    return [example.prompt for example in examples]


def test_rows_outside_the_limits_are_left_out_and_counted() -> None:
    data = training(min_row_tokens=10, max_row_tokens=600).data
    assert prompts(data.examples) == [row["prompt"] for row in [*ROWS[:20], *ROWS[22:]]]
    assert "2 of 24 rows of rows.jsonl left out: 1 with fewer than 10 tokens, 1 with more than 600 tokens" in data.notes
    assert [(each.rows, prompts(each.examples)) for each in data.left_out] == [((20,), ["Hi"]), ((21,), ["Say"])]


def test_a_limit_is_a_number_of_tokens_of_prompt_and_answer() -> None:
    model = find_model("tiny")
    short = Example("Hi", " yes")
    (length,) = row_lengths(model.folder, [short], answered=True)
    assert row_lengths(model.folder, [short], answered=False) < [length]
    assert row_lengths(model.folder, [Example("Hi", " yes", rejected=" no, not at all")], answered=True) > [length]
    assert "Hi" in prompts(training(min_row_tokens=length).data.examples)
    assert "Hi" not in prompts(training(min_row_tokens=length + 1).data.examples)
    assert prompts(training(max_row_tokens=length).data.examples) == ["Hi"]


def test_rows_that_nearly_repeat_an_earlier_row_are_left_out() -> None:
    data = training(drop_near_duplicates=True).data
    assert prompts(data.examples) == [row["prompt"] for row in ROWS[:22]]
    assert data.notes == (
        "1 of 24 training rows of rows.jsonl repeat earlier rows and were left out",
        "1 of 23 rows of rows.jsonl left out: 1 nearly equal to an earlier row",
    )


def test_questions_with_different_answers_are_no_copies_and_neither_is_a_shared_beginning() -> None:
    question = words(40, 1)
    assert near_copies_of([Example(f"{question} {n}?", f" {n}") for n in range(5)]) == []
    assert near_copies_of([Example(question, " 👍"), Example(question, " 👎")]) == []
    assert near_copies_of([Example(f"{question} Now: {words(3, n)}", f" {words(3, 50 + n)}") for n in range(5)]) == []
    grown = [Example(f"{words(200, 1)} {words(9, n)}"[: 900 + 60 * n], f" {words(9, n)}") for n in range(4)]
    assert near_copies_of(grown) == []  # the turns of one conversation, with `turns=all`


def test_rows_that_are_left_out_are_numbered_as_read() -> None:
    data = training(rows=[ROWS[0], ROWS[0], ROWS[20], *ROWS[1:4]], dedupe=True, min_row_tokens=10).data
    assert [each.rows for each in data.left_out] == [(2,)]


def test_weights_and_samples_apply_to_the_rows_that_are_left() -> None:
    assert len(training(data="rows.jsonl*2", min_row_tokens=10, max_row_tokens=600).data.examples) == 2 * 22
    assert len(training(samples=22, min_row_tokens=10, max_row_tokens=600).data.examples) == 22


def test_the_filters_apply_to_held_out_rows_too() -> None:
    limits = {"min_row_tokens": 10, "max_row_tokens": 600}
    for found in (training(validation=0.25, **limits), training("lora", folds=2, **limits)):
        assert found.validation is not None
        left = [*found.data.examples, *found.validation.examples]
        assert len(left) == 22 and not {"Hi", "Say"} & {*prompts(left)}
    Path("valid.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*ROWS[18:22], ROWS[0]]))
    found = training(validation="valid.jsonl", **limits)
    assert found.validation is not None and len(found.validation.examples) == 3
    assert (
        "validation data: 2 of 5 rows of valid.jsonl left out: 1 with fewer than 10 tokens, 1 with more than 600 tokens"
        in found.data.notes
    )


def test_a_training_row_that_nearly_repeats_a_held_out_row_is_left_out() -> None:
    held = {"prompt": ROWS[5]["prompt"], "completion": near(ROWS[5]["completion"])}
    Path("valid.jsonl").write_text(json.dumps(held) + "\n" + json.dumps(ROWS[6]) + "\n")
    data = training(validation="valid.jsonl", drop_near_duplicates=True).data
    assert not {ROWS[5]["prompt"], ROWS[6]["prompt"]} & {*prompts(data.examples)}
    assert data.notes[2:] == (
        "1 training rows of rows.jsonl were left out: they are in the validation data valid.jsonl",
        "1 training rows of rows.jsonl were left out: they nearly repeat rows of the validation data valid.jsonl",
    )


def test_a_change_of_the_filters_changes_the_digest_of_the_data_only_if_rows_change() -> None:
    assert training(min_row_tokens=1).data.digest == training().data.digest
    assert training(min_row_tokens=10).data.digest != training().data.digest


def test_filters_that_leave_nothing_or_contradict_each_other_are_refused() -> None:
    with pytest.raises(UserError, match=r"the filters leave none of the 24 training rows of `rows\.jsonl`: 24 with"):
        training(min_row_tokens=5000)
    for variant, train in (
        ("lora", {"min_row_tokens": 9, "max_row_tokens": 8}),
        ("lora:max_row_tokens=8", {"min_row_tokens": 9}),
    ):
        with pytest.raises(UserError, match="`min_row_tokens=9` is above `max_row_tokens=8`: no row fits"):
            training(variant, **train)


def test_variants_have_filters_of_their_own() -> None:
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config = configure(["lora", "lora:min_row_tokens=10"], tasks=["mini_mmlu"], limit=1, train={"data": "rows.jsonl"})
    found = [variant.training for variant in prepare(config).variants]
    assert [len(each.data.examples) for each in found if each] == [24, 23]


def test_flags_set_the_filters() -> None:
    flags = Flags(min_row_tokens=5, max_row_tokens=9, drop_near_duplicates=True)
    assert flags.settings()["train"] == {"min_row_tokens": 5, "max_row_tokens": 9, "drop_near_duplicates": True}


def test_inspect_shows_what_the_filters_leave_out() -> None:
    found = inspect_training(training(min_row_tokens=10, drop_near_duplicates=True), find_model("tiny"))
    shown = {each.what: (each.rows, each.examples) for each in found.findings}
    assert shown["left out: with fewer than 10 tokens (numbered as read)"] == ((20,), ("Hi‖·yes",))
    rows, examples = shown["left out: nearly equal to an earlier row (numbered as read)"]
    assert rows == (22,) and "‖·word" in examples[0]
    assert "left out: with fewer than 10 tokens (numbered as read): 1 row\n  row 20: Hi‖·yes" in str(found)
