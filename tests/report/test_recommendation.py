"""The recommendation: hand-made runs with known answers, and no more than the intervals show."""

from __future__ import annotations

import numpy as np
import pytest
from hand_made_run import hand_made_run

from harness.report.recommendation import MARGIN, recommendation
from harness.report.summary import summary
from harness.results import Recommendation, Run
from harness.stats.observations import Observations
from harness.stats.paired import paired
from harness.stats.pooled import Estimate, pooled

TASKS = {"ta": "acc", "other": "acc"}
MEMORY = {"lora": 900, "qlora": 300}


def advice(run: Run) -> Recommendation:
    found = recommendation(run)
    assert found is not None
    return found


def test_the_cheapest_variant_within_the_margin_is_recommended() -> None:
    run = hand_made_run({"base": (0.2, 0.5), "lora": (0.6, 0.5), "qlora": (0.595, 0.5)}, tasks=TASKS, memory=MEMORY)
    found = advice(run)
    assert (found.choices, found.tasks, found.cost, found.margin) == (("qlora",), ("ta",), "peak RSS", MARGIN)
    assert found.text == "qlora: within 2 points of the best on ta, at 0.33 × the peak memory in training of lora"
    assert dict(summary(run))["Recommendation"] == found.text


def test_the_interval_decides_and_not_the_difference() -> None:
    """Widens the interval of the same difference: it is no longer shown that qlora is within two points."""
    scores = {"base": (0.2, 0.5), "lora": (0.605, 0.5), "qlora": (0.6, 0.5)}
    for half, choices in ((0.012, ("qlora",)), (0.0145, ("lora",)), (0.03, ())):
        assert advice(hand_made_run(scores, tasks=TASKS, memory=MEMORY, half=half)).choices == choices
    assert advice(hand_made_run(scores, tasks=TASKS, memory=MEMORY, half=0.0145)).text == (
        "lora: within 2 points of the best on ta; not shown to be as good: qlora at 0.33 × its peak memory in training (up to 2.2"
        " points worse; about 1.3 times the samples would decide, if the difference stays)"
    )


def test_the_margin_holds_for_all_other_variants_together() -> None:
    """With more variants the same interval is widened, so that what was enough for two is not enough for nine."""
    few = {"base": (0.2, 0.5), "a": (0.6, 0.5), "b": (0.6, 0.5)}
    many = few | {name: (0.6, 0.5) for name in "cdefgh"}
    assert advice(hand_made_run(few, tasks=TASKS, half=0.017)).choices == ("a", "b")
    assert advice(hand_made_run(many, tasks=TASKS, half=0.017)).choices == ()


def test_everything_tied_recommends_no_training() -> None:
    found = advice(hand_made_run(dict.fromkeys(("base", "lora", "qlora"), (0.5, 0.5)), tasks=TASKS, memory=MEMORY))
    assert found.choices == ("base",)
    assert (
        found.text == "base: within 2 points of the best on ta without training; others are at most 1.1 points better"
    )


def test_everything_undecided_says_what_would_decide() -> None:
    scores = {"base": (0.5, 0.5), "lora": (0.52, 0.5)}
    found = advice(hand_made_run(scores, tasks=TASKS, half=0.08))
    assert found.choices == ()
    assert found.text == (
        "undecided: lora is best on ta, but may be 6.0 points worse than base; about 4 times the samples would decide, if the"
        " difference stays"
    )
    equal = advice(hand_made_run(dict.fromkeys(scores, (0.5, 0.5)), tasks=TASKS, half=0.08))
    assert equal.text.startswith(
        "undecided: base is as good as any on ta, but may be 8.0 points worse than lora; about 16"
    )


def test_a_gain_that_is_not_shown_is_not_recommended() -> None:
    """A trained variant is within the margin, and so may the base be: nothing speaks for training yet."""
    found = advice(hand_made_run({"base": (0.5, 0.5), "lora": (0.51, 0.5)}, tasks=TASKS, half=0.02))
    assert found.choices == ()
    assert found.text.startswith("undecided: lora is within 2 points of the best on ta, but no gain over base is shown")
    assert found.text.endswith("about 4 times the samples would decide, if the difference stays")


def test_a_gain_needs_an_adjusted_verdict_too() -> None:
    """Takes the mark of the only task away: the interval alone does not show the gain over all tests of the run."""
    run = hand_made_run({"base": (0.2, 0.5), "lora": (0.6, 0.5)}, tasks=TASKS)
    undecided = [each.model_copy(update={"verdict": "undecided"}) for each in run.comparisons]
    found = advice(run.model_copy(update={"comparisons": tuple(undecided)}))
    assert advice(run).choices == ("lora",) and found.choices == ()
    assert found.text.endswith("but no gain over base is shown (+40.0 ±1.0); no task shows it over all tests")


def test_a_variant_that_is_out_is_not_named_and_forgetting_is() -> None:
    scores = {"base": (0.2, 0.5), "lora": (0.6, 0.4), "qlora": (0.55, 0.5)}
    found = advice(hand_made_run(scores, tasks=TASKS, memory=MEMORY))
    assert found.text == "lora: within 2 points of the best on ta; lora is worse than base on other"


def test_the_highest_score_does_not_hide_one_that_may_be_as_good_for_less() -> None:
    scores = {"base": (0.2, 0.5), "lora": (0.612, 0.5), "qlora": (0.6, 0.5)}
    found = advice(hand_made_run(scores, tasks=TASKS, memory=MEMORY))
    assert found.choices == ("lora",)
    assert "not shown to be as good: qlora at 0.33 × its peak memory in training (up to 2.3 points worse;" in found.text


def test_without_costs_all_variants_within_the_margin_are_named() -> None:
    scores = {"base": (0.2, 0.5), "lora": (0.6, 0.5), "qlora": (0.6, 0.5)}
    found = advice(hand_made_run(scores, tasks=TASKS))
    assert (found.choices, found.cost) == (("lora", "qlora"), None)
    assert found.text.endswith("; no cost of all of them was measured on a quiet machine")


def test_equal_memory_decides_nothing() -> None:
    scores = {"base": (0.2, 0.5), "lora": (0.6, 0.5), "qlora": (0.6, 0.5)}
    found = advice(hand_made_run(scores, tasks=TASKS, memory={"lora": 900, "qlora": 880}))
    assert found.choices == ("lora", "qlora")


def test_training_times_count_where_no_memory_is_known_unless_the_machine_was_busy() -> None:
    scores = {"base": (0.2, 0.5), "lora": (0.6, 0.5), "qlora": (0.6, 0.5)}
    slow = {"train_seconds": 30.0, "block_seconds": (9.9, 10.0, 10.1)}
    quick = {"train_seconds": 15.0, "block_seconds": (4.9, 5.0, 5.1)}
    found = advice(hand_made_run(scores, tasks=TASKS, train={"lora": slow, "qlora": quick}))
    assert (found.choices, found.cost) == (("qlora",), "train")
    busy = quick | {"waited_share": 0.4}
    found = advice(hand_made_run(scores, tasks=TASKS, train={"lora": slow, "qlora": busy}))
    assert (found.choices, found.cost) == (("lora", "qlora"), None)


def test_failed_variants_are_named_and_not_recommended() -> None:
    scores = {"base": (0.2, 0.5), "lora": (0.6, 0.5), "qlora": (0.6, 0.5)}
    found = advice(hand_made_run(scores, tasks=TASKS, memory=MEMORY, failed=("qlora",)))
    assert found.choices == ("lora",) and found.text.endswith("; without qlora, which failed")
    found = advice(hand_made_run(scores, tasks=TASKS, memory=MEMORY, failed=("base",)))
    assert found.choices == ("qlora",) and found.text.endswith("; without base, which failed")


def test_runs_without_training_or_without_a_rival_have_none() -> None:
    assert recommendation(hand_made_run({"lora": (0.6, 0.5)}, tasks=TASKS)) is None
    assert recommendation(hand_made_run({"base": (0.2, 0.5), "base2": (0.6, 0.5)}, tasks=TASKS)) is None
    assert recommendation(hand_made_run({"base": (0.2, 0.5), "lora": (0.6, 0.5)}, tasks=TASKS, comparisons=[])) is None


def test_a_run_without_a_baseline_model_compares_the_trained_variants() -> None:
    found = advice(hand_made_run({"lora": (0.6, 0.5), "qlora": (0.6, 0.5)}, tasks=TASKS, memory=MEMORY))
    assert found.choices == ("qlora",)


@pytest.mark.parametrize(
    ("tasks", "options", "why"),
    [
        ({"ta": "acc", "tb": "acc"}, {"untestable": ("tb",)}, "undecided: the difference of base from lora on tb cannot be told"),
        ({"ta": "word_ppl", "other": "acc"}, {"lower_is_better": ("ta",)}, "undecided: no trained task has a headline in points"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_undecided(
    tasks: dict[str, str], options: dict[str, tuple[str, ...]], why: str
) -> None:
    found = advice(hand_made_run({"base": (0.2, 0.5), "lora": (0.6, 0.5)}, tasks=tasks, **options))  # type: ignore[arg-type]
    assert found.choices == () and found.text.startswith(why)


def test_without_a_trained_task_all_tasks_in_points_count() -> None:
    scores = {"base": (0.2, 0.2), "lora": (0.6, 0.4), "qlora": (0.6, 0.4)}
    found = advice(hand_made_run(scores, tasks={"x": "acc", "y": "acc"}, memory=MEMORY))
    assert found.text == (
        "qlora: within 2 points of the best on average over 2 tasks, at 0.33 × the peak memory in training of lora"
    )


def test_a_variant_that_is_worse_by_the_margin_is_rarely_within_it() -> None:
    """Two 0/1 tasks of 400 samples, three variants, one exactly two points worse: at most 2.5 % of 600 simulated runs."""
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(600):
        found = []
        for rate in (0.8, 0.6):
            first = rng.random(400)
            second = np.where(rng.random(400) < 0.3, rng.random(400), first)
            test = paired(Observations((second < rate - 0.02) * 1.0), Observations((first < rate) * 1.0))
            assert test is not None
            found.append(Estimate(test.value, test.low, test.high).scaled(100))
        wrong += pooled(found, "ab").widened(2).low >= -MARGIN
    assert wrong / 600 <= 0.025
