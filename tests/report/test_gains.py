"""Gains and losses: means with known answers, verdicts by task, the sentence in the summary, the rows of CSV."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hand_made_run import hand_made_run

from harness.leaderboards.rows import tidy
from harness.report.gains import gains
from harness.report.summary import summary
from harness.results import Gain, Run
from harness.stats.observations import Observations
from harness.stats.paired import paired
from harness.stats.pooled import Estimate, pooled

TASKS = {"ta": "acc", "tb": "acc", "other": "acc"}


def only(run: Run) -> Gain:
    (found,) = gains(run)
    return found


def test_a_mean_is_over_the_tasks_of_one_kind_and_its_interval_is_narrower() -> None:
    found = only(hand_made_run({"base": (0.2, 0.2, 0.5), "lora": (0.5, 0.3, 0.4)}, tasks=TASKS, half=0.02))
    learned, kept = found.learned(), found.kept()
    assert learned is not None and kept is not None
    assert (learned.unit, learned.tasks) == ("points", ("ta", "tb"))
    assert (learned.value, learned.low) == (pytest.approx(20.0), pytest.approx(20.0 - 2 / 2**0.5))
    assert (kept.value, kept.low, kept.high) == tuple(map(pytest.approx, (-10.0, -12.0, -8.0)))
    assert (found.trained.better, found.other.worse) == (("ta", "tb"), ("other",))


def test_everything_tied_is_undecided() -> None:
    run = hand_made_run({"base": (0.5,) * 3, "lora": (0.5,) * 3}, tasks=TASKS)
    found = only(run)
    assert (found.trained.undecided, found.other.undecided) == (("ta", "tb"), ("other",))
    assert dict(summary(run))["lora"] == (
        "trained tasks +0.0 ±0.7 points on average: no difference from base shown on ta and tb."
        " Other tasks +0.0 ±1.0 points: no difference shown on other"
    )


def test_lower_is_better_and_metrics_without_a_maximum_keep_their_own_scale() -> None:
    run = hand_made_run(
        {"base": (0.4, 20.0, 8.0), "lora": (0.1, 25.0, 9.0)},
        tasks={"terror": "error", "tb": "bleu", "prose": "word_ppl"},
        lower_is_better=("terror", "prose"),
    )
    found = only(run)
    assert [(mean.unit, round(mean.value, 6)) for mean in found.trained.means] == [("points", 17.5)]
    assert found.kept() is None
    (own,) = found.other.means
    assert (own.unit, own.value, own.high) == ("word_ppl", -1.0, pytest.approx(-0.99)), (
        "a positive value is an improvement"
    )
    assert "Other tasks +1.000 ±0.010 word_ppl: worse on prose (forgetting)" in dict(summary(run))["lora"]


def test_an_interval_that_is_not_valid_is_left_out() -> None:
    run = hand_made_run({"base": (0.2, 0.2, 0.5), "lora": (0.5, 0.3, 0.5)}, tasks=TASKS, untestable=("tb",))
    learned = only(run).learned()
    assert learned is not None and (learned.value, learned.low, learned.high) == (pytest.approx(20.0), None, None)
    assert "trained tasks +20.0 points on average: better" in dict(summary(run))["lora"]


def test_each_variant_has_the_tasks_of_its_own_training_run() -> None:
    scores = {"base": (0.2, 0.2, 0.5), "a": (0.5, 0.1, 0.5), "b": (0.1, 0.5, 0.5)}
    first, second = gains(hand_made_run(scores, tasks=TASKS, trained_for={"a": ("ta",), "b": ("tb",)}))
    assert (first.trained.better, first.other.worse) == (("ta",), ("tb",))
    assert (second.trained.better, second.other.worse) == (("tb",), ("ta",))
    first, second = gains(hand_made_run(scores, tasks=TASKS))
    assert first.trained.worse == ("tb",), "an older document names the tasks of the whole run only"


def test_a_variant_without_training_gains_and_forgets_nothing() -> None:
    run = hand_made_run({"base": (0.2, 0.2, 0.5), "base_shots": (0.5, 0.1, 0.5)}, tasks=TASKS)
    assert only(run).learned() is None
    assert dict(summary(run)) == {
        "base_shots": "+6.7 ±0.6 points on average: better than base on ta, no difference shown on other, worse on tb"
    }


def test_a_failed_variant_a_failed_baseline_and_a_single_variant_have_no_gains() -> None:
    scores = {"base": (0.2, 0.2, 0.5), "lora": (0.5, 0.3, 0.5)}
    run = hand_made_run(scores, tasks=TASKS, failed=("lora",))
    assert gains(run) == [] and dict(summary(run))["lora"] == "failed: out of memory"
    assert gains(hand_made_run(scores, tasks=TASKS, failed=("base",))) == []
    assert gains(hand_made_run({"base": (0.2, 0.2, 0.5)}, tasks=TASKS)) == []


def test_differences_without_verdicts_give_no_sentence() -> None:
    """Documents of the first versions have no adjusted p-values, so their marks are not valid."""
    document = json.loads(hand_made_run({"base": (0.2, 0.2, 0.5), "lora": (0.5, 0.3, 0.5)}, tasks=TASKS).to_json())
    for score in document["variants"][1]["scores"]:
        score["delta"]["p_holm"] = None
    assert "lora" not in dict(summary(Run.model_validate(document)))


def test_tasks_with_the_same_samples_have_a_wider_interval() -> None:
    scores = {"base": (0.2, 0.2), "lora": (0.5, 0.3)}
    same = only(hand_made_run(scores, tasks={"t:a": "acc", "t:b": "acc"})).learned()
    apart = only(hand_made_run(scores, tasks={"ta": "acc", "tb": "acc"})).learned()
    assert same is not None and apart is not None and same.low is not None and apart.low is not None
    assert (same.value - same.low) / (apart.value - apart.low) == pytest.approx(2**0.5)


def test_csv_has_both_axes_of_a_plot() -> None:
    rows = list(tidy(hand_made_run({"base": (0.2, 0.2, 0.5), "lora": (0.5, 0.3, 0.4)}, tasks=TASKS)))
    lora = next(row for row in rows if row["variant"] == "lora")
    assert (lora["gain_trained"], lora["change_other"]) == (pytest.approx(20.0), pytest.approx(-10.0))
    assert lora["change_other_high"] == pytest.approx(-9.0)
    assert "gain_trained" not in rows[0]


def test_the_interval_of_a_mean_covers_the_truth() -> None:
    """Three 0/1 tasks of 150 samples with unequal gains, 400 times: the interval has the true mean in 93.5 to 98 %."""
    rng, covered = np.random.default_rng(0), 0
    rates = ((0.05, 0.30), (0.50, 0.55), (0.90, 0.88))
    truth = sum(b - a for a, b in rates) / 3
    for _ in range(400):
        found = []
        for a, b in rates:
            before, after = (rng.random(150) < rate for rate in (a, b))
            test = paired(Observations(after.astype(float)), Observations(before.astype(float)))
            assert test is not None
            found.append(Estimate(test.value, test.low, test.high))
        mean = pooled(found, "abc")
        covered += mean.low <= truth <= mean.high
    assert 0.935 <= covered / 400 <= 0.98
