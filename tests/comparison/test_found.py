"""Scores of metrics that extract an answer say in how many texts they found one."""

from typing import Any

import pytest
from scored_rows import lines, scored

from harness import Generate, Metric, Output, Task, UserError, matching
from harness.comparison.document import missing_answers
from harness.comparison.samples import found_share, sample_row
from harness.comparison.scores import compute_scores
from harness.jobs import Raw
from harness.metrics import find
from harness.prompts.render import render
from harness.results import Protocol

PROTOCOL = Protocol(
    version=1,
    shots=0,
    mode="generate",
    numerics="fp32",
    engine="plain",
    dtype="float32",
    chat_template=None,
    token_budget=8,
    prompt_sha256="0",
)
CHOICES: dict[str, Any] = {"choices": ["Rome", "Paris"]}


@pytest.mark.parametrize(
    ("metric", "text", "found"),
    [
        (find("strict"), "#### 41", True),
        (find("strict"), "41", False),
        (find("flexible"), "about 41", True),
        (find("flexible"), "no idea", False),
        (find("choice_letter"), "It is (A)", True),
        (find("choice_letter"), "no idea", False),
        (find("mae"), "about 41", True),
        (find("pearson"), "no idea", False),
        (find("call"), '{"name": "f", "arguments": {}}', True),
        (find("call"), "f()", False),
        (Metric("own", score=matching(r"answer is (\w)")), "the answer is B", True),
        (Metric("own", score=matching(r"answer is (\w?)")), "the answer is ", False),
        (Metric("own", score=matching()), "B", None),
        (find("exact_match"), "B", None),
        (find("f1"), "B", None),
    ],
)
def test_a_metric_says_whether_it_found_an_answer(metric: Metric, text: str, found: bool | None) -> None:
    assert metric.found(Output(texts=(text,)), Generate("", "42", meta=CHOICES)) is found


def test_a_line_of_a_samples_file_has_it_and_the_score_is_unchanged() -> None:
    task = scored("qa", find("strict"), find("exact_match"))
    (item,) = render("t", Task([{}], lambda row: Generate("q", "#### 42"), [find("strict")]))
    for text, found, score in (("#### 42", True, 1.0), ("#### 41", True, 0.0), ("42", False, 0.0)):
        row = sample_row(task, item, Raw(0, prompt_tokens=1, truncated=False, tokens=1, texts=(text,)), "k")
        assert (row["found"], row["metrics"]["strict"]) == ({"strict": found}, score)


def test_the_score_has_the_share_and_a_note_names_the_variant_below_95_percent() -> None:
    task = scored("qa", find("strict"))
    rows = {}
    for name, count in (("base", 37), ("lora", 38), ("old", None)):
        made = lines("strict", [0.0] * 40)
        if count is not None:
            made = [{**row, "found": {"strict": number < count}} for number, row in enumerate(made)]
        rows[name] = {"qa": made}
    scores = compute_scores([task], rows, {name: {"qa": PROTOCOL} for name in rows}, "base", seed=0)
    assert [scores.by_variant[name][0].found for name in rows] == [37 / 40, 38 / 40, None]
    assert missing_answers(scores) == ["base: on qa, `strict` found an answer in 37 of 40 texts (92%)"]
    assert found_share(find("strict"), []) is None


def test_more_choices_than_letters_are_refused() -> None:
    sample = Generate("", "(A)", meta={"choices": [str(n) for n in range(27)]})
    with pytest.raises(UserError, match="has letters for 26 choices, and a sample has 27"):
        find("choice_letter").measure(Output(texts=("(A)",)), sample)
