"""classify, qa and regress on toy data: the numbers of scikit-learn and SQuAD, and the inputs that are refused."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import (
    Choose,
    Generate,
    Metric,
    Output,
    UserError,
    acc,
    auc,
    em,
    f1,
    label_metrics,
    mae,
    mcc,
    pearson,
    rmse,
)
from harness.jobs import Item
from harness.metrics.regression import first_number, last_number
from harness.prompts.render import render, render_examples
from harness.registry.find import find
from harness.registry.load import load_task


def load(name: str, **parameters: Any) -> Any:
    return load_task(find("task", name), parameters)


def items(name: str, **parameters: Any) -> list[Item]:
    return render(name, load(name, **parameters))


def table(path: Path, rows: list[dict[str, Any]]) -> str:
    """Writes rows to a file, as a user has them."""
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def labelled(path: Path, *labels: Any) -> str:
    return table(path, [{"text": f"text {index}", "label": label} for index, label in enumerate(labels)])


def value(metric: Metric, outputs: list[Output], samples: list[Any]) -> float:
    """Computes a metric over all samples, whatever its form."""
    measured = [metric.measure(output, sample) for output, sample in zip(outputs, samples, strict=True)]
    if metric.whole is not None:
        return metric.whole(json.loads(json.dumps(measured)))  # as it is read back from the samples file
    if metric.value is not None:
        return metric.value(tuple(np.sum(measured, axis=0).tolist()))
    return float(np.mean(measured))


# classify


SKLEARN = {
    (2, 24): [0.5, 0.466666667, 0.471428571, 0.46875, -0.05976143, 0.4375],
    (3, 18): [0.5, 0.434640523, 0.398989899, 0.5, 0.285175913, 0.805555556],
    (5, 40): [0.225, 0.185353535, 0.165811966, 0.212698413, 0.036606713, 0.484360890],
    (30, 90): [0.044444444, 0.024579125, 0.016666667, 0.05, 0.010809291, 0.508465469],
}
"""Results of scikit-learn 1.9.1 on the data of `toy`: accuracy; F1, precision and recall with `average="macro"`; Matthews' correlation;
and the area under the ROC curve (one label against the rest, macro; probabilities rounded to 12 digits, so that equal ones are ties)."""


def toy(labels: int, n: int) -> tuple[list[Output], list[Choose]]:
    """Makes log-likelihoods on a grid, so that some are equal."""
    names = [str(index) for index in range(labels)]
    outputs = [
        Output(loglikelihoods=tuple(-1.0 - ((7 * i + 11 * j + i * j * 3) % 13) / 4 for j in range(labels)))
        for i in range(n)
    ]
    return outputs, [Choose("x", names, (5 * i + i // 3) % labels) for i in range(n)]


@pytest.mark.parametrize(("labels", "n"), SKLEARN)
@pytest.mark.parametrize("form", ["counts", "pairs"])
def test_the_metrics_of_labels_are_scikit_learns(labels: int, n: int, form: str) -> None:
    metrics = [acc, *label_metrics(2 if form == "counts" else 1000)]
    assert [metric.whole is not None for metric in metrics] == [False] + [form == "pairs"] * 4 + [True]
    assert [value(metric, *toy(labels, n)) for metric in metrics] == pytest.approx(SKLEARN[labels, n], abs=1e-8)


def test_labels_come_from_the_column_and_the_prompt_from_the_template(tmp_path: Path) -> None:
    data = table(
        tmp_path / "reviews.csv",
        [{"review": "fine {really}", "stars": "10"}, {"review": "awful", "stars": "9"}, {"review": "x", "stars": "10"}],
    )
    first, second, _ = items("classify", data=data, text="review", label="stars", prompt="{text}|{stars}\\nStars:")
    assert first.request.contexts == ("fine {really}|10\nStars:",)
    assert first.request.continuations == (" 9", " 10")  # sorted as numbers
    assert (first.sample.answer, second.sample.answer) == (1, 0)


def test_names_say_what_integer_labels_mean(tmp_path: Path) -> None:
    data = labelled(tmp_path / "x.jsonl", 1, 0, 2)
    found = items("classify", data=data, names=["no", " yes", "maybe"])
    assert [item.sample.choices[item.sample.answer] for item in found] == ["yes", "no", "maybe"]
    ordered = items("classify", data=data, names=["no", "yes", "maybe"], labels=["maybe", "no", "yes"])
    assert [item.sample.answer for item in ordered] == [2, 1, 0]
    as_text = items("classify", data=labelled(tmp_path / "y.jsonl", "yes", "1"), names=["no", "yes"])
    assert [item.sample.answer for item in as_text] == [1, 1]


def test_the_default_dataset_is_scored_trained_on_and_shown(made_up_hub: Path) -> None:
    task = load("classify")
    first = render("classify", task)[0]
    assert first.request.contexts == ("Text: a warm , quick-witted little film \nLabel:",)
    assert first.request.continuations == (" negative", " positive") and first.sample.answer == 1
    assert [example.completion for example in render_examples("classify", task)] == [
        " negative", " positive", " positive", " negative",
    ]  # fmt: skip


def test_a_label_of_the_train_split_alone_is_a_label_too(tmp_path: Path) -> None:
    data, train = labelled(tmp_path / "x.jsonl", "a", "b"), labelled(tmp_path / "train.jsonl", "c", "a")
    assert items("classify", data=data, train=train)[0].sample.choices == ["a", "b", "c"]


def test_a_label_with_spaces_at_its_ends_is_the_label_without_them(tmp_path: Path) -> None:
    found = items("classify", data=labelled(tmp_path / "x.jsonl", " good", "bad "))
    assert found[0].request.continuations == (" bad", " good")


@pytest.mark.parametrize(
    ("labels", "parameters", "message"),
    [
        (["a", "b"], {"label": "lable"}, "has no column `lable`"),
        (["a", "b"], {"text": "body"}, "uses the column `body`, which row 0 does not have"),
        (["a", "b"], {"labels": ["a", "c"]}, "row 1: the column `label` is `b`, which is not among the labels"),
        (["a", "b"], {"labels": ["a", "b", " a"]}, "the label `a` is empty, or given twice"),
        (["a", "b"], {"labels": ["a"]}, "1 labels in the column `label`"),
        ([0, 2], {"names": ["no", "yes"]}, "row 1: the label 2 of the column `label` is out of range"),
        ([0, -1], {"names": ["no", "yes"]}, "row 1: the label -1 of the column `label` is out of range"),
        ([0.0, 1.5], {"names": ["no", "yes"]}, "row 0: the label 0.0 of the column `label` is out of range"),
        (["good", " good", "bad"], {}, "row 1: 'good' and ' good' differ only by spaces"),
        (["a", None], {}, "row 1: the column `label` has no label"),
        (["a", "  "], {"labels": ["a", "b"]}, "row 1: the column `label` has no label"),
        (["a", "a"], {}, "1 labels in the column `label`"),
    ],
)
def test_bad_labels_are_refused_by_row_and_column(
    tmp_path: Path, labels: list[Any], parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        items("classify", data=labelled(tmp_path / "x.jsonl", *labels), **parameters)
    assert message in error.value.message and error.value.hint


@pytest.mark.parametrize("second", ["0", 1.0, True, "maybe"])
def test_labels_of_several_types_are_refused_with_their_rows(tmp_path: Path, second: Any) -> None:
    data = labelled(tmp_path / "x.jsonl", 0, 1, second, 1)
    with pytest.raises(
        UserError, match=rf"column `label` has labels of several types: 0 in row 0, {second!r} in row 2"
    ):
        load("classify", data=data)
    if second == "0":
        assert items("classify", data=data, labels=["0", "1"])[2].sample.answer == 0  # type: ignore[union-attr]


def test_labels_of_two_splits_are_compared_as_texts(tmp_path: Path) -> None:
    data, train = labelled(tmp_path / "x.jsonl", 0, 1), labelled(tmp_path / "train.csv", "0", "1")
    assert [item.sample.choices for item in items("classify", data=data, train=train)] == [["0", "1"]] * 2  # type: ignore[union-attr]
    train = labelled(tmp_path / "train.csv", "0.0", "1.0")
    with pytest.raises(UserError, match=r"has the labels `0\.0` and `0`"):
        load("classify", data=data, train=train)


def test_an_empty_text_or_label_is_refused_with_row_and_column(tmp_path: Path) -> None:
    for cell in (None, math.nan):
        data = table(tmp_path / "x.jsonl", [{"text": "a", "label": 0}, {"text": cell, "label": 1}])
        with pytest.raises(UserError, match="row 1: the column `text` is empty"):
            items("classify", data=data)
        with pytest.raises(UserError, match="row 1: the column `label` has no label"):
            items("classify", data=labelled(tmp_path / "x.jsonl", "a", cell))
        data = table(tmp_path / "x.jsonl", [{"sentence1": "a", "sentence2": cell, "label": 1.5}])
        with pytest.raises(UserError, match="row 0: the column `sentence2` is empty"):
            items("regress", data=data)
        data = table(tmp_path / "x.jsonl", [{"context": cell, "question": "q", "answers": "a"}])
        with pytest.raises(UserError, match="row 0: the column `context` is empty"):
            items("qa", data=data)
        data = table(tmp_path / "x.jsonl", [{"document": cell, "summary": "a"}])
        with pytest.raises(UserError, match="row 0: the column `document` is empty"):
            items("summarization", data=data)


def test_a_split_with_hidden_labels_is_reported_as_such(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        items("classify", data=labelled(tmp_path / "x.jsonl", -1, -1), names=["no", "yes"])
    assert "hidden" in str(error.value.hint)


@pytest.mark.parametrize("name", ["classify", "qa", "regress"])
def test_wrong_splits_files_and_empty_files_are_named(name: str, tmp_path: Path, made_up_hub: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        items(name, data="hub:rajpurkar/squad:plain_text:nowhere")
    with pytest.raises(UserError, match=r"missing\.csv"):
        items(name, data=str(tmp_path / "missing.csv"))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match=r"empty\.jsonl` has no rows"):
        items(name, data=str(tmp_path / "empty.jsonl"))


def test_thousands_of_labels_are_sampled_and_measured_without_tables_of_their_size(tmp_path: Path) -> None:
    data = labelled(tmp_path / "x.jsonl", *(f"intent {index % 3000}" for index in range(3100)))
    task = load("classify", data=data)
    samples = [item.sample for item in render("classify", task, limit=40)]
    outputs = [Output(loglikelihoods=tuple(-float(j != s.answer) for j in range(3000))) for s in samples]
    for metric in task.metrics:
        assert value(metric, outputs, samples) == pytest.approx(1.0)
        if metric.name != "auc":
            assert len(json.dumps(metric.measure(outputs[0], samples[0]))) < 20


def test_one_class_alone_has_no_area_under_a_curve_and_no_correlation() -> None:
    samples = [Choose("x", ["no", "yes"], 1)] * 3
    outputs = [Output(loglikelihoods=(-1.0, -float(i))) for i in range(3)]
    with pytest.raises(ValueError, match="the same label"):
        value(auc, outputs, samples)
    assert value(mcc, outputs, samples) == 0


def test_the_area_under_the_curve_separates_likelihoods_whose_float_probabilities_are_equal() -> None:
    samples = [Choose("x", ["no", "yes"], answer) for answer in (0, 0, 1, 1)]
    outputs = [Output(loglikelihoods=(-200.0 - extra, -1.0)) for extra in (0, 1, 2, 3)]
    assert value(auc, outputs, samples) == 1
    assert value(auc, [Output(loglikelihoods=(-1.0, -1.0))] * 4, samples) == 0.5
    assert value(auc, [Output(loglikelihoods=(-math.inf, -1.0))] * 4, samples) == 0.5


@pytest.mark.parametrize("metric", [acc, *label_metrics(2), *label_metrics(1000)], ids=lambda metric: metric.name)
def test_a_nan_log_likelihood_gives_no_score(metric: Metric) -> None:
    samples = [Choose("x", ["no", "yes"], answer) for answer in (0, 1)]
    outputs = [Output(loglikelihoods=(-1.0, -2.0)), Output(loglikelihoods=(math.nan, -2.0))]
    assert math.isnan(value(metric, outputs, samples))


def test_the_metrics_of_labels_want_one_right_answer() -> None:
    with pytest.raises(UserError, match="`mcc` needs one right label"):
        mcc.measure(Output(loglikelihoods=(-1.0, -2.0)), Choose("x", ["a", "b"], [0, 1]))
    with pytest.raises(UserError, match="scores Choose samples"):
        auc.measure(Output(texts=("a",)), Generate("x", "a"))


# qa


@pytest.mark.parametrize(
    ("written", "answers", "figures"),
    [
        ("The Cat!", ["a cat", "dog"], (1, 1)),
        ("black cat", ["a cat"], (0, 2 / 3)),
        ("U.S.A", ["USA", "America"], (1, 1)),
        ("cat cat sat", ["the cat sat"], (0, 0.8)),
        ("", ["cat"], (0, 0)),
        ("state-of-the-art", ["state of the art"], (0, 0)),
        ("ÉCOLE", ["école"], (1, 1)),
        ("1,200", ["1200"], (1, 1)),
    ],
)
def test_em_and_f1_are_those_of_the_squad_script(
    written: str, answers: list[str], figures: tuple[float, float]
) -> None:
    output, sample = Output(texts=(written,)), Generate("q", answers)
    assert (em.measure(output, sample), f1.measure(output, sample)) == pytest.approx(figures)


def test_the_questions_on_a_passage_are_one_cluster(made_up_hub: Path) -> None:
    found = items("qa")
    assert [len({item.cluster for item in part}) for part in (found, found[:3], found[3:])] == [2, 1, 1]
    assert found[1].request.contexts[0].endswith("(1920) was designed by Ada Brandt.\n"
                                                 "Question: When was the oldest lighthouse built?\nAnswer:")  # fmt: skip
    assert found[1].sample.target == ["1781", "in 1781"]  # duplicate answers of SQuAD are removed
    assert render_examples("qa", load("qa"))[0].completion == " at dawn and at dusk\n"


def test_flat_files_are_questions_too_with_and_without_a_passage(tmp_path: Path) -> None:
    data = table(tmp_path / "quiz.csv", [{"q": "Capital of Peru? ", "a": " Lima"}, {"q": "2 + 2?", "a": "4"}])
    first = items("qa", data=data, context=None, question="q", answer="a")[0]
    assert first.request.contexts == ("Question: Capital of Peru?\nAnswer:",)
    assert (first.sample.target, first.cluster) == (["Lima"], None)
    with pytest.raises(UserError, match="uses the column `context`, which row 0 does not have"):
        items("qa", data=data, question="q", answer="a")


@pytest.mark.parametrize("cell", [{"text": [], "answer_start": []}, [], "", None, [" "]])
def test_a_question_without_an_answer_is_answered_by_a_word(tmp_path: Path, cell: Any) -> None:
    data = table(tmp_path / "x.jsonl", [{"context": "c", "question": "q", "answers": cell}])
    assert items("qa", data=data, unanswerable="no answer")[0].sample.target == ["no answer"]


def test_an_answer_that_is_not_text_is_refused(tmp_path: Path) -> None:
    data = table(tmp_path / "x.jsonl", [{"context": "c", "question": "q", "answers": [4]}])
    with pytest.raises(UserError, match=r"row 0: the column `answers` is \[4\]"):
        items("qa", data=data)


# regress


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("4.5 stars", 4.5, 4.5),
        ("between 3 and 4", 3, 4),
        ("3-4", 3, 4),
        ("−2, or rather -.5e1", -2, -5),
        ("$1,234,567.25 (was 12,34)", 1234567.25, 34),
        ("50%", 50, 50),
        ("约5元", 5, 5),
        ("v2 of it", None, None),
        ("nan, inf, none", None, None),
        ("1e999 then 7", 7, 7),
        ("", None, None),
        ("Answer...5", 5, 5),
    ],
)
def test_the_number_of_a_text_is_its_first_or_last(text: str, first: float | None, last: float | None) -> None:
    assert (first_number(text), last_number(text)) == (first, last)


def scores(written: list[str], wanted: list[float], offset: float = 0.0) -> dict[str, float]:
    samples = [Generate("x", str(number + offset), meta={"center": offset}) for number in wanted]
    outputs = [Output(texts=(text,)) for text in written]
    return {metric.name: value(metric, outputs, samples) for metric in load("regress").metrics}


def test_errors_and_correlation_are_numpys_over_the_texts_that_hold_a_number(made_up_hub: Path) -> None:
    written, wanted = [1.5, 3.0, 2.0, 8.0, 4.5], [1.0, 3.5, 2.0, 6.0, 5.0]
    found = scores([*(f"about {number}" for number in written), "who knows"], [*wanted, 9.0])
    errors = np.subtract(written, wanted)
    expected = [np.abs(errors).mean(), math.sqrt((errors**2).mean()), (errors**2).mean()]
    expected += [np.corrcoef(written, wanted)[0, 1], 5 / 6]
    assert list(found) == ["mae", "rmse", "mse", "pearson", "parsed"]
    assert list(found.values()) == pytest.approx(expected)


def test_the_correlation_of_large_numbers_keeps_its_digits(made_up_hub: Path) -> None:
    written, wanted = [1.0, 2.0, 4.0, 3.0], [1.0, 2.0, 3.0, 4.0]
    found = scores([f"{int(number + 1.7e9)}" for number in written], wanted, offset=1.7e9)
    assert found["pearson"] == pytest.approx(0.8)


def test_texts_without_numbers_or_without_variance_give_nan(made_up_hub: Path) -> None:
    silent = scores(["", "?"], [1.0, 2.0])
    assert silent["parsed"] == 0 and all(math.isnan(silent[name]) for name in ("mae", "rmse", "mse", "pearson"))
    constant = scores(["0.1", "0.1", "0.1"], [1.0, 2.0, 3.0])
    assert math.isnan(constant["pearson"]) and constant["mae"] == pytest.approx(1.9)


def test_the_default_dataset_is_written_with_few_decimals(made_up_hub: Path) -> None:
    found = items("regress")
    assert found[0].sample.target == "3.8"  # the data has a 32-bit float: 3.799999952316284
    assert [item.sample.target for item in found[1:]] == ["5", "0", "2.5"]
    assert found[0].request.contexts[0].endswith("A cat is asleep.\nSimilarity from 0 to 5:")


def test_targets_keep_what_six_decimals_would_lose(tmp_path: Path) -> None:
    data = table(tmp_path / "x.jsonl", [{"t": "a", "y": number} for number in (1.23e-9, 1700000000.25, "7", -0.1)])
    found = items("regress", data=data, target="y", prompt="{t}:", number="last")
    assert [float(item.sample.target) for item in found] == [1.23e-9, 1700000000.25, 7, -0.1]
    assert found[2].sample.target == "7" and found[0].sample.meta["number"] == "last"


@pytest.mark.parametrize("bad", [math.nan, math.inf, "many", None, ""])
def test_a_target_that_is_not_a_number_is_refused_by_row_and_column(tmp_path: Path, bad: Any) -> None:
    data = table(tmp_path / "x.jsonl", [{"text": "a", "label": 1}, {"text": "b", "label": bad}])
    with pytest.raises(UserError, match=r"row 1 of .*x\.jsonl`: the column `label` is .*not a finite number"):
        items("regress", data=data, prompt="{text}")
    with pytest.raises(UserError, match="has no column `score`"):
        items("regress", data=data, target="score")
    train = table(tmp_path / "fine.jsonl", [{"text": "a", "label": 1}])
    with pytest.raises(UserError, match="row 1: the column `label`"):
        render_examples("regress", load("regress", data=train, train=data, prompt="{text}"))


def test_the_metrics_of_numbers_require_a_number_as_target() -> None:
    for metric in (mae, rmse, pearson):
        with pytest.raises(UserError, match="needs a number as the target, not 'four'"):
            metric.measure(Output(texts=("4",)), Generate("x", "four"))
