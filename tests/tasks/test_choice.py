"""The log-likelihood benchmarks: prompts, answers and scores equal those of lm-evaluation-harness 0.4.13.

`goldens/choice.json` was written by lm-evaluation-harness from the rows of `tests/hub` (keys with `@hub`: from the
real dataset). For each task, number of shots and parameters, it holds a digest of every context, continuation and right
answer, and the scores for `made_up` log-likelihoods.
"""

import csv
import dataclasses
import hashlib
import itertools
import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import Choose, Output, UserError, acc_bytes, acc_norm, label, mc2, rows
from harness.jobs import Item
from harness.prompts.render import Prompting, render, render_examples
from harness.registry.find import find
from harness.registry.load import load_task

GOLDENS = json.loads((Path(__file__).parents[1] / "goldens" / "choice.json").read_text())
CATEGORIES = ("mmlu_stem", "mmlu_humanities", "mmlu_social_sciences", "mmlu_other")
TRAINABLE = ("arc_easy", "arc_challenge", "hellaswag", "winogrande", "piqa", "boolq")

pytestmark = pytest.mark.usefixtures("made_up_hub")


def task_of(name: str, **parameters):
    return load_task(find("task", name), parameters)


def rendered(name: str, shots: int = 0, groups: tuple[str, ...] = (), **parameters) -> list[Item]:
    return render(name, task_of(name, **parameters), Prompting(shots=shots), groups=groups)


def pairs(item: Item) -> list[list[str]]:
    """Returns (context, continuation) for every choice."""
    contexts, continuations = item.request.contexts, item.request.continuations
    contexts = contexts if len(contexts) == len(continuations) else contexts * len(continuations)
    return [[context, continuation] for context, continuation in zip(contexts, continuations, strict=True)]


def digest(items: list[Item]) -> str:
    asked = [[item.group, pairs(item), item.sample.answer] for item in sorted(items, key=lambda item: item.group or "")]
    return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()


def made_up(context: str, continuation: str) -> float:
    """Returns one of 16 log-likelihoods, by the text alone; with so few values, some choices tie."""
    return -float(hashlib.sha256((context + continuation).encode()).digest()[0] % 16 + 1)


def scores(task, items: list[Item]) -> dict[str, float]:
    outputs = [Output(loglikelihoods=tuple(made_up(*pair) for pair in pairs(item))) for item in items]
    return {
        metric.name: math.fsum(map(metric.measure, outputs, [item.sample for item in items])) / len(items)
        for metric in task.metrics
    }


def golden(key: str):
    """Splits a key of the golden file into task name, number of shots and parameters."""
    name, shots, *parameters = key.split(",")
    typed = {"false": False, "true": True}
    read = dict(pair.split("=") for pair in parameters)
    return name, int(shots.removeprefix("shots=")), {k: typed.get(v, v) for k, v in read.items()}


@pytest.mark.parametrize("key", [key for key in GOLDENS if "@hub" not in key])
def test_prompts_and_scores_are_those_of_lm_evaluation_harness(key):
    name, shots, parameters = golden(key)
    items = rendered(name, shots, **parameters)
    assert (len(items), digest(items)) == (GOLDENS[key]["rows"], GOLDENS[key]["sha256"])
    assert scores(task_of(name, **parameters), items) == pytest.approx(GOLDENS[key]["metrics"], abs=1e-12)


@pytest.mark.hub
@pytest.mark.parametrize("key", [key for key in GOLDENS if "@hub" in key])
def test_the_prompts_of_the_real_mmlu_are_those_of_lm_evaluation_harness(key, real_rows):
    name, shots, _ = golden(key.replace("@hub", ""))
    items = rendered(name, shots)
    assert (len(items), digest(items)) == (GOLDENS[key]["rows"], GOLDENS[key]["sha256"])
    assert scores(task_of(name), items) == pytest.approx(GOLDENS[key]["metrics"], abs=1e-12)


def test_a_prompt_of_mmlu_in_full():
    assert rendered("mmlu", shots=2, groups=("anatomy",))[0].request.contexts == (
        "The following are multiple choice questions (with answers) about anatomy.\n\n"
        "In the tale of Hasp, what does the saddle of anatomy weigh?\n"
        "A. 30 pounds\nB. 61 pounds\nC. Nothing\nD. All of these\nAnswer: A\n\n"
        "What is 23 + 11?\nA. 33\nB. 36\nC. 34\nD. 253\nAnswer: C\n\n"
        "Ünïcödé 测试 🙂: how many marks?\nA. 1\nB. 2 \nC. \\frac{1}{2}\nD. C:\\temp\\n\nAnswer:",
    )


def test_a_prompt_of_winogrande_in_full():
    shots = (
        "The lantern of Ambrel did not fit the box because the lantern was too large.\n\n"
        "Ann thanked Bea for the 6 letters, as Bea had written them.\n\n"
        "Zoë gave Žan \"8\" coins because Žan didn't have any; it's a snake_case name.\n\n"
    )
    assert pairs(rendered("winogrande", shots=3)[3]) == [
        [shots + 'Zoë gave Žan "23" coins because Zoë', " didn't have any; it's a snake_case name."],
        [shots + 'Zoë gave Žan "23" coins because Žan', " didn't have any; it's a snake_case name."],
    ]


# MMLU, C-Eval, CMMLU


def test_the_four_categories_cover_all_subjects_of_mmlu():
    subjects = [sorted({item.group for item in rendered(name)}) for name in CATEGORIES]
    assert [len(each) for each in subjects] == [19, 13, 12, 13]
    assert sorted(itertools.chain(*subjects)) == sorted({item.group for item in rendered("mmlu")})


def test_single_subjects_of_mmlu_are_asked_by_group():
    few = rendered("mmlu", shots=5, groups=("anatomy", "virology"))
    assert {item.group for item in few} == {"anatomy", "virology"}
    everything = {item.request.id: item.request for item in rendered("mmlu", shots=5)}
    assert all(everything[item.request.id] == item.request for item in few)


def test_every_subject_of_ceval_and_cmmlu_has_a_name_of_its_own_in_the_prompt():
    for name, subjects in (("ceval", 52), ("cmmlu", 67)):
        first = {item.group: item.request.contexts[0].partition("\n")[0] for item in rendered(name)}
        assert len(first) == subjects
        assert len(set(first.values())) == subjects


def test_the_space_before_the_letter_can_be_left_out():
    assert rendered("ceval", space=True)[0].request.continuations == (" A", " B", " C", " D")
    item = rendered("ceval", shots=1, space=False)[0]
    assert item.request.continuations == ("A", "B", "C", "D")
    assert "答案：A\n\n" in item.request.contexts[0]


def test_cmmlu_is_read_from_the_unpacked_archive_too(tmp_path):
    for split in ("test", "dev"):
        (tmp_path / split).mkdir()
        for subject in task_of("cmmlu").data.name:
            with (tmp_path / split / f"{subject}.csv").open("w", encoding="utf-8-sig", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["", "Question", "A", "B", "C", "D", "Answer"])
                writer.writerow([0, f"{split}，{subject}？", "甲", '“乙", 丙', "1", "2", "B"])
    item = rendered("cmmlu", shots=1, folder=str(tmp_path))[0]
    assert item.group == "agronomy"
    assert item.request.contexts[0] == (
        "以下是关于农学的单项选择题，请直接给出正确答案的选项。\n\n"
        'dev，agronomy？\nA. 甲\nB. “乙", 丙\nC. 1\nD. 2\n答案： B\n\n'
        'test，agronomy？\nA. 甲\nB. “乙", 丙\nC. 1\nD. 2\n答案：'
    )


def test_a_folder_without_a_subject_names_the_file(tmp_path):
    with pytest.raises(UserError, match=r"agronomy\.csv"):
        task_of("cmmlu", folder=str(tmp_path))


# GPQA


def choices_of(item: Item) -> list[str]:
    return [line[4:] for line in item.sample.prompt.split("Choices:\n")[1].split("\n")[:-1]]


def test_the_order_of_gpqas_choices_is_the_one_that_its_question_names():
    columns = ["Correct Answer", *(f"Incorrect Answer {number}" for number in (1, 2, 3))]
    task = task_of("gpqa_extended")
    for row, item in zip(rows(task.data), rendered("gpqa_extended"), strict=True):
        number = int(hashlib.sha256(row["Question"].encode()).hexdigest(), 16) % 24
        wanted = sorted(itertools.permutations(range(4)))[number]
        assert [choice.split() for choice in choices_of(item)] == [
            (row[columns[place]] or "").replace(" [title]", ". ").split() for place in wanted
        ]


def test_gpqas_order_of_choices_does_not_depend_on_other_rows():
    every = {item.sample.prompt for item in rendered("gpqa_extended")}
    assert {item.sample.prompt for item in rendered("gpqa_diamond")} <= every


@pytest.mark.parametrize("order", ["question", "lm-eval"])
def test_gpqas_right_answer_stays_right(order):
    task = task_of("gpqa_extended", order=order)
    for row, item in zip(rows(task.data), rendered("gpqa_extended", order=order), strict=True):
        right = choices_of(item)[item.sample.answer]
        assert right.split() == row["Correct Answer"].replace(" [title]", ". ").split()


def test_an_unknown_order_of_gpqa_is_refused():
    with pytest.raises(UserError, match="unknown order of choices `random`"):
        task_of("gpqa_main", order="random")


# Bad rows


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mmlu", {"answer": 4}, "`answer` is 4, not one of 0, 1, 2, 3"),
        ("mmlu", {"answer": None}, "`answer` is None"),
        ("ceval", {"answer": "E"}, "`answer` is 'E', not one of A, B, C, D"),
        ("ceval", {"answer": ""}, "`answer` is ''"),
        ("cmmlu", {"Answer": "AB"}, "`Answer` is 'AB'"),
        ("arc_easy", {"answerKey": "9"}, "`answerKey` is '9'"),
        ("hellaswag", {"label": ""}, "`label` is ''"),
        ("truthfulqa_mc1", {"mc1_targets": {"choices": ["a", "b"], "labels": [0, 0]}}, r"answer \[\] with 2 choices"),
        ("truthfulqa_mc2", {"mc2_targets": {"choices": ["a"], "labels": [0, 1]}}, r"answer \[1\] with 1 choices"),
        ("winogrande", {"answer": ""}, "`answer` is '', not one of 1, 2"),
        ("winogrande", {"sentence": "no gap here"}, "`sentence` has no gap"),
        ("piqa", {"label": -1}, "`label` is -1"),
        ("boolq", {"label": -1}, "`label` is -1, not one of 0, 1"),
    ],
)
def test_a_bad_row_is_named_with_its_column(name, change, message):
    task = task_of(name)
    good = rows(task.data)[0]
    with pytest.raises(UserError, match=f"task `{name}`, row 1: .*{message}"):
        render(name, dataclasses.replace(task, data=[good, {**good, **change}]))


def test_a_missing_column_is_named():
    task = task_of("piqa")
    with pytest.raises(UserError, match="`sol2`, which row 0 does not have"):
        render("piqa", dataclasses.replace(task, data=[{"goal": "open a jar", "sol1": "turn it", "label": 0}]))


def test_a_task_without_solved_examples_says_so():
    for name in ("gpqa_diamond", "truthfulqa_mc1"):
        with pytest.raises(UserError, match="no solved examples"):
            rendered(name, shots=5)


def test_more_solved_examples_than_there_are_is_an_error():
    with pytest.raises(UserError, match="5 solved examples in group `abstract_algebra`, but 6 shots"):
        rendered("mmlu", shots=6)


# Training


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_variant_trains_on_the_prompt_and_the_right_choice(name):
    task = task_of(name)
    examples = render_examples(name, task)
    assert len(examples) == len(rows(task.train))
    asked = render(name, dataclasses.replace(task, data=task.train))
    for example, item in zip(examples, asked, strict=True):
        assert [example.prompt, example.completion] == pairs(item)[item.sample.answer]


# Metrics and labels


@given(st.lists(st.floats(-700, 0), min_size=2, max_size=6), st.randoms())
def test_mc2_is_the_share_of_probability_of_the_right_choices(logs: list[float], generator: random.Random):
    right = generator.sample(range(len(logs)), generator.randint(1, len(logs)))
    shares = [math.exp(log) for log in logs]
    wanted = sum(shares[index] for index in right) / sum(shares)
    sample = Choose("prompt", [str(index) for index in range(len(logs))], right)
    assert mc2.measure(Output(loglikelihoods=tuple(logs)), sample) == pytest.approx(wanted, abs=1e-12)


def test_mc2_of_choices_too_long_for_exp_is_still_a_number():
    sample = Choose("prompt", ["a", "b"], [0])
    assert mc2.measure(Output(loglikelihoods=(-2000.0, -2000.0 - math.log(3))), sample) == pytest.approx(0.75)
    assert math.isnan(mc2.measure(Output(loglikelihoods=(math.nan, -1.0)), sample))


def test_acc_bytes_divides_by_bytes_where_acc_norm_divides_by_characters():
    sample, output = Choose("prompt", ["四个汉字", "abcdef"], 0), Output(loglikelihoods=(-4.0, -5.0))
    assert (acc_bytes.measure(output, sample), acc_norm.measure(output, sample)) == (1.0, 0.0)


def test_a_label_is_found_whether_it_is_a_number_or_its_digits():
    assert [label({"x": value}, "x", "012") for value in (2, "2", 0, "0")] == [2, 2, 0, 0]
    assert label({"x": "maybe"}, "x", ["no", "maybe"]) == 1
    with pytest.raises(UserError, match="`x` is 'AB', not one of A, B, C"):
        label({"x": "AB"}, "x", "ABC")
