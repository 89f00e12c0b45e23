"""Gates: judged by the interval of the difference, not by the difference itself."""

from __future__ import annotations

import pytest
from example_run import example_run

from harness.config.gates import Flag, Judgement, parse_gate
from harness.results import Run

TASK = "mini_mmlu"
"""The difference of lora from base is −0.07, its interval −0.117 to −0.023; that of qlora from lora is undecided."""


def judged(text: str, flag: Flag = "--fail-if", run: Run | None = None) -> Judgement:
    run = run or example_run("base", "lora", "qlora", tasks=2)
    return parse_gate(text, [each.name for each in run.variants], [task.name for task in run.tasks], flag).judge(run)


@pytest.mark.parametrize(
    ("text", "outcome", "unless"),
    [
        ("lora.mini_mmlu < base.mini_mmlu - 0.02", "FAIL", "PASS"),  # a loss of more than 2 points is shown
        ("lora.mini_mmlu < base.mini_mmlu - 0.05", "UNDECIDED", "UNDECIDED"),  # -0.07 is lower, but -0.023 is not
        ("lora.mini_mmlu < base.mini_mmlu - 0.2", "PASS", "FAIL"),  # a loss of 20 points is excluded
        ("base.mini_mmlu - lora.mini_mmlu > 0.02", "FAIL", "PASS"),
        ("lora.mini_mmlu >= base.mini_mmlu - 0.2", "FAIL", "PASS"),
        ("lora.mini_mmlu > base.mini_mmlu", "PASS", "FAIL"),
        ("qlora.mini_mmlu < lora.mini_mmlu", "UNDECIDED", "UNDECIDED"),
        ("lora.mini_gsm8k > 0.8", "FAIL", "PASS"),  # one score: its own interval
        ("lora.mini_gsm8k > 0.93", "UNDECIDED", "UNDECIDED"),
        ("lora.mini_mmlu < 1.1 * base.mini_mmlu - 0.02", "FAIL", "PASS"),
        ("1 > 2", "PASS", "FAIL"),
    ],
)
def test_a_condition_is_shown_excluded_or_undecided(text: str, outcome: str, unless: str) -> None:
    fail_if, fail_unless = judged(text), judged(text, "--fail-unless")
    assert (fail_if.outcome, fail_unless.outcome) == (outcome, unless)
    assert fail_if.fails == (outcome == "FAIL")
    assert fail_unless.fails == (unless != "PASS")


def test_the_outcome_says_the_difference_and_its_interval_in_words() -> None:
    assert str(judged("lora.mini_mmlu < base.mini_mmlu - 0.05")) == (
        "UNDECIDED --fail-if lora.mini_mmlu < base.mini_mmlu - 0.05  (left - right is -0.02, 95 % -0.06732 to +0.02732)"
    )


def test_the_paired_interval_is_used_as_far_as_scores_are_paired() -> None:
    run = example_run("base", "lora", tasks=2)
    pair = run.comparison(run.tasks[0], "lora", "base")
    single = run.variant("lora").headline(run.tasks[0])
    assert pair is not None and single is not None and single.low is not None and single.high is not None
    found = judged("2 * lora.mini_mmlu > 0.9 * base.mini_mmlu + lora.mini_mmlu", run=run)
    assert found.low == pytest.approx(0.9 * pair.low + 0.1 * single.low)
    assert found.high == pytest.approx(0.9 * pair.high + 0.1 * single.high)


def test_what_cannot_be_told_is_undecided_and_a_missing_score_fails() -> None:
    run = example_run("base", "lora", tasks=1)
    untold = run.comparisons[0].model_copy(update={"untestable": "only 4 clusters"})
    run = run.model_copy(update={"comparisons": (untold,)})
    found = judged("lora.mini_mmlu < base.mini_mmlu - 0.02", run=run)
    assert found.outcome == "UNDECIDED" and "only 4 clusters" in str(found)
    failed = judged("lora.mini_mmlu < base.mini_mmlu", run=example_run("base", "lora", tasks=1, fail="lora"))
    assert failed.fails and str(failed).startswith("FAIL") and "lora.mini_mmlu has no score" in str(failed)
