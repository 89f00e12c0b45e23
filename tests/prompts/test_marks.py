"""Rows of `stage=kto`: answers marked good or bad, in every format, and preferences read as two of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.authoring.inspect_training import inspect_training
from harness.authoring.preview_training import view_training
from harness.config.parse import configure
from harness.data.model_files import find_model
from harness.data.sources import source
from harness.errors import UserError
from harness.prepare.prepare import prepare
from harness.prepare.trainings import Training
from harness.prompts.training_rows import TrainingRows, read_rows

SAID = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]


def read(*rows: dict[str, Any], **options: Any) -> TrainingRows:
    return read_rows("x", [*rows], **{"stage": "kto", **options})


def marks(*rows: dict[str, Any], **options: Any) -> list[tuple[str, str, bool | None]]:
    return [(each.prompt, each.completion, each.desirable) for each in read(*rows, **options).examples]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "1+1?", "completion": "2"},
        {"instruction": "1+1?", "output": "2", "input": ""},
        {"query": "1+1?", "response": "2"},
        {"prompt": SAID[:1], "completion": SAID[1:]},
        {"messages": SAID},
        {"conversations": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}]},
    ],
)
@pytest.mark.parametrize("column", ["label", "kto_tag"])
def test_a_label_marks_the_answer_in_every_format(row: dict[str, Any], column: str) -> None:
    for value in (True, False):
        found = read({**row, column: value})
        ((_, answer, desirable),) = marks({**row, column: value})
        assert (answer.strip(), desirable) == ("2", value) and found.notes == []


@pytest.mark.parametrize(
    ("value", "desirable"),
    [
        *((value, True) for value in (True, 1, 1.0, "true", "True", " TRUE ", "1", "desirable", "Good")),
        *((value, False) for value in (False, 0, 0.0, "false", "0", "undesirable", "bad")),
    ],
)
def test_spellings_of_marks(value: Any, desirable: bool) -> None:
    assert marks({"prompt": "a", "completion": "b", "label": value}) == [("a", " b", desirable)]


@pytest.mark.parametrize("value", [None, float("nan"), 2, -1, 0.5, "", "yes", "chosen", [True], {"good": 1}])
def test_other_values_are_refused_with_the_spellings(value: Any) -> None:
    with pytest.raises(
        UserError, match=r"row 0 has .* in `kto_tag`, which marks its answer neither as good nor as bad"
    ) as e:
        read({"prompt": "a", "completion": "b", "kto_tag": value})
    assert "true or false" in str(e.value.hint)


def test_rows_without_a_label_are_refused_with_what_to_do() -> None:
    with pytest.raises(
        UserError, match="row 1 has no `label`, and `stage=kto` learns from answers that are marked"
    ) as e:
        read({"prompt": "a", "completion": "b", "label": 1}, {"prompt": "a", "completion": "b"})
    assert "--train-columns label=COLUMN" in str(e.value.hint)
    with pytest.raises(UserError, match="learns from a prompt, an answer and a `label`") as e:
        read({"question": "a", "answer": "b", "good": True})
    assert "--train-columns prompt=question,completion=answer,label=good" in str(e.value.hint)
    with pytest.raises(UserError, match="learns from a prompt, an answer and a `label`"):
        read({"text": "a", "label": True})


def test_a_label_of_another_name_is_mapped() -> None:
    row = {"q": "a", "a": "b", "thumb": True}
    assert marks(row, columns={"prompt": "q", "completion": "a", "label": "thumb"}) == [("a", " b", True)]
    row = {"prompt": "a", "completion": "b", "thumb": False, "system": "S"}
    assert marks(row, columns={"label": "thumb"}) == [("S\n\na", " b", False)]


def test_numbers_of_named_classes_are_read_by_their_names(tmp_path: Path) -> None:
    import datasets

    def saved(names: list[str]) -> Any:
        features = datasets.Features(
            prompt=datasets.Value("string"), completion=datasets.Value("string"), label=datasets.ClassLabel(names=names)
        )
        rows = {"prompt": ["p", "q"], "completion": ["a", "b"], "label": [0, 1]}
        datasets.Dataset.from_dict(rows, features).to_parquet(str(tmp_path / "x.parquet"))
        return source(str(tmp_path / "x.parquet")).load()

    found = read_rows("x", saved(["good", "bad"]), stage="kto").examples
    assert [each.desirable for each in found] == [True, False]
    assert [each.desirable for each in read_rows("x", saved(["0", "1"]), stage="kto").examples] == [False, True]
    with pytest.raises(UserError, match="row 0 has 'sports' in `label`"):
        read_rows("x", saved(["sports", "art"]), stage="kto")


def test_preferences_and_single_answers_may_be_rows_of_one_table() -> None:
    empty = dict.fromkeys(("chosen", "rejected", "completion", "label"))
    rows = [
        {"prompt": "a", **empty, "chosen": "b", "rejected": "c"},
        {"prompt": "d", **empty, "completion": "e", "label": 1},
    ]
    assert marks(*rows) == [("a", " b", True), ("a", " c", False), ("d", " e", True)]


def test_preferences_become_a_good_and_a_bad_answer() -> None:
    pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
    single = {"prompt": "d", "completion": "e", "label": False}
    assert marks(pair, single) == [("a", " b", True), ("a", " c", False), ("d", " e", False)]
    assert read(pair, single).notes == ["1 of 2 rows of x are preferences: each is read as a good and a bad answer"]
    swift = {"messages": SAID, "rejected_response": "3"}
    assert [(answer, good) for _, answer, good in marks(swift)] == [(" 2", True), (" 3", False)]


@pytest.mark.parametrize("column", ["label", "kto_tag"])
def test_other_stages_point_to_kto(column: str) -> None:
    row = {"prompt": "a", "completion": "b", column: True}
    with pytest.raises(UserError, match=f"row 0 marks its answer as good or bad in `{column}`") as error:
        read(row, stage="sft")
    assert "`stage=kto`" in str(error.value.hint)
    with pytest.raises(UserError, match="`stage=dpo` learns from `chosen` and `rejected`") as error:
        read(row, stage="dpo")
    assert "`stage=kto`" in str(error.value.hint)
    assert read(row, stage="grpo").notes == [f"columns of x not used: `{column}` (1 row)"]
    assert read({**row, column: "sports"}, stage="sft").notes == [f"columns of x not used: `{column}` (1 row)"]


def test_images_are_refused_here_too() -> None:
    with pytest.raises(UserError, match="has content in `images`"):
        read({"prompt": "a", "completion": "b", "label": True, "images": ["x.png"]})


# Through a run


def training(rows: list[dict[str, Any]], **settings: Any) -> Training:
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = {"data": "rows.jsonl", "stage": "kto", **settings}
    found = prepare(configure(["lora"], tasks=["mini_mmlu"], limit=1, train=train)).variants[0].training
    assert found is not None
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


ROWS = [{"prompt": f"Q{n}", "completion": f"a{n}", "label": n % 2 == 0} for n in range(10)]


def test_marks_are_part_of_the_digest_and_other_digests_are_as_before(folder: None) -> None:
    other = [{**row, "label": not row["label"]} for row in ROWS]
    assert training(ROWS).data.digest != training(other).data.digest
    plain = training([{"prompt": row["prompt"], "completion": row["completion"]} for row in ROWS], stage="sft")
    assert "true" not in plain.data.digest and plain.data.examples[0].desirable is None


def test_notes_say_which_answers_outweigh_the_others(folder: None) -> None:
    assert training(ROWS).data.notes == ()
    many = [*ROWS[::2] * 3, *ROWS[1::2]]
    assert (
        "15 answers of rows.jsonl are marked good and 5 bad: in sum, good answers have 3 times the weight of bad ones;"
        " `undesirable_weight=3` makes them equal" in training(many).data.notes
    )
    assert not any("outweigh" in n or "in sum" in n for n in training(many, undesirable_weight=3).data.notes)
    assert "`desirable_weight=5` makes them equal" in training([ROWS[0], *ROWS[1::2]]).data.notes[-1]
    assert training(ROWS[::2]).data.notes == (
        "all 5 answers of rows.jsonl are marked good; KTO learns from both kinds",
    )


def test_equal_answers_with_different_marks_are_no_copies_but_odd(folder: None) -> None:
    rows = [*ROWS, {**ROWS[0], "label": False}, ROWS[1]]
    data = training(rows, dedupe=True).data
    assert len(data.examples) == 11 and data.duplicates == 1
    found = inspect_training(training(rows), find_model("tiny")).findings
    assert {each.what: each.rows for each in found}["marked good in one row and bad in another"] == (0, 10)


def test_the_preview_shows_the_marks(folder: None) -> None:
    titles = [row.title for row in view_training(training(ROWS), find_model("tiny"), 2).rows]
    assert titles == ["row 0, marked good", "row 1, marked bad"]


def test_what_kto_cannot_learn_from_is_refused_before_anything_runs(folder: None) -> None:
    with pytest.raises(
        UserError, match="learns from answers that are marked good or bad, but rows of `mini_gsm8k` are not"
    ):
        training(ROWS, data="mini_gsm8k")
    with pytest.raises(UserError, match="KTO compares each answer with the answer of another row"):
        training(ROWS, batch_size=1)
    with pytest.raises(UserError, match="KTO compares each answer with the answer of another row"):
        training(ROWS[:1])
    with pytest.raises(UserError, match="has one mark, for its last answer"):
        training(ROWS, turns="all")
    with pytest.raises(UserError, match="`desirable_weight` has no effect"):
        training(ROWS, stage="dpo", desirable_weight=2)
