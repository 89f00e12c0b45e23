"""Statistics over several training runs, compared with simulations and with calculations by hand."""

import math
from typing import Any

import numpy as np
import pytest
from example_run import example_run
from scipy import stats as scipy_stats
from scored_rows import ACC, QA, RATIO, SUMS, lines, ones

from harness.comparison.replicas import HELD_OUT, replicated
from harness.leaderboards import latex, markdown, page
from harness.report.footnotes import footnotes
from harness.report.numbers import Scale
from harness.report.screen import screen
from harness.report.tables import tables
from harness.results import Delta, Replicated
from harness.stats import seeds as spread
from harness.stats.observations import Observations


def simulated(generator: np.random.Generator, samples: int, seeds: int, gain: float) -> tuple[list[Any], Any]:
    """Simulates scores of a method after several training runs, and of the base; samples and seeds have random effects."""
    ease = generator.normal(0, 1, samples)
    base = ease + generator.normal(0, 0.5, samples)
    luck = generator.normal(0, 0.2, seeds)
    trained = [ease + gain + luck[s] + generator.normal(0, 0.5, samples) for s in range(seeds)]
    return [Observations(scores) for scores in trained], Observations(base)


def test_the_mean_and_deviation_are_over_training_runs() -> None:
    found = spread.mean([Observations(np.array(ones(right))) for right in (20, 24, 28)])
    assert found is not None and found.value == pytest.approx(0.6) and found.deviation == pytest.approx(0.1)
    assert found.low is not None and found.high is not None
    margin = scipy_stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert found.high - 0.6 > margin and 0.6 - found.low > margin  # the samples vary, too


def test_the_variance_over_folds_has_a_larger_factor() -> None:
    values = [1.0, 2.0, 4.0, 5.0]
    margin = scipy_stats.t.ppf(0.975, 3) * math.sqrt(10 / 3 * (1 / 4 + 1 / 3))  # variance 10/3; 1/k + 1/(k - 1)
    assert margin == pytest.approx(4.4376, abs=1e-3)
    found = spread.mean_of_numbers(values, folds=4)
    assert found.high == pytest.approx(3 + margin) and found.low == pytest.approx(3 - margin)
    assert found.deviation == pytest.approx(math.sqrt(10 / 3))
    steady = [Observations(np.full(20, value)) for value in values]  # samples that do not vary
    over_samples = spread.mean(steady, folds=4)
    assert over_samples is not None and over_samples.high == pytest.approx(3 + margin)
    apart = spread.difference(steady, [Observations(np.zeros(20))], folds=4)
    assert apart is not None and apart.high == pytest.approx(3 + margin)


def test_noise_of_sample_and_seed_counts_once() -> None:
    """Three training runs whose seeds change nothing, but which answer 12 % of the samples again: 95 %, not 98.6 %, cover."""
    generator, covered, trials = np.random.default_rng(3), 0, 400
    for _ in range(trials):
        ease = generator.normal(0, 1, 200)
        again = generator.random((4, 200)) < 0.12
        answers = [Observations((np.where(each, generator.normal(0, 1, 200), ease) > 0) * 1.0) for each in again]
        found = spread.difference(answers[:3], answers[3:])
        assert found is not None
        covered += found.low <= 0 <= found.high
    assert 0.93 <= covered / trials <= 0.975


def test_two_training_runs_decide_nothing() -> None:
    found = spread.difference([Observations(np.ones(10))] * 2, [Observations(np.zeros(10))])
    assert found is not None and found.untestable == "two training runs decide nothing: at least three are needed"
    assert (found.value, found.p) == (1.0, 1.0) and found.low <= 0
    three = spread.difference([Observations(np.ones(10))] * 3, [Observations(np.zeros(10))])
    assert three is not None and three.untestable is None and 0 < three.p < 0.01


def test_with_equal_training_runs_only_the_samples_vary() -> None:
    generator = np.random.default_rng(0)
    a, b = Observations(generator.normal(0.3, 1, 200)), Observations(generator.normal(0, 1, 200))
    once = spread.difference([a], [b])
    thrice = spread.difference([a, a, a], [b])
    assert once is not None and thrice is not None
    assert thrice.value == pytest.approx(once.value)
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=1e-6)


def test_a_method_that_is_better_with_one_seed_only_is_not_shown_better() -> None:
    lucky = [Observations(np.array(ones(right))) for right in (40, 20, 21)]
    base = Observations(np.array(ones(20)))
    found = spread.difference(lucky, [base])
    assert found is not None and found.p > 0.05 and found.low < 0 < found.high


def test_corpus_metrics_are_averaged_as_numbers_not_as_sums() -> None:
    def of(table: list[list[float]]) -> Observations:
        return Observations(np.array(table), lambda sums: sums[0] / sums[1])

    first, second = of([[1, 1], [2, 1]]), of([[1, 4], [3, 4]])  # 1.5 and 0.5
    found = spread.mean([first, second])
    assert found is not None and found.value == pytest.approx(1.0)
    apart = spread.difference([first, second], [of([[1, 2], [1, 2]])])
    assert apart is not None and apart.value == pytest.approx(0.5)


def test_numbers_of_the_whole_set_are_averaged_too() -> None:
    def of(values: list[float]) -> Observations:
        return Observations(values, whole=lambda rows: float(max(rows)))

    generator = np.random.default_rng(0)
    trainings = [of(generator.normal(size=30).tolist()) for _ in range(3)]
    found = spread.mean(trainings)
    assert found is not None
    assert found.value == pytest.approx(np.mean([max(each.values) for each in trainings]))


def test_without_any_difference_there_is_no_test() -> None:
    wrong = Observations(np.zeros(10))
    assert spread.difference([wrong] * 3, [wrong]) is None


def test_a_score_that_is_not_finite_gives_no_result() -> None:
    broken = Observations(np.array([1.0, math.nan]))
    assert spread.mean([broken, broken]) is None
    assert spread.difference([broken], [Observations(np.ones(2))]) is None


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover_the_methods_gain_in_95_percent_of_cases(seeds: int) -> None:
    generator, covered, trials = np.random.default_rng(seeds), 0, 400
    for _ in range(trials):
        trained, base = simulated(generator, 100, seeds, gain=0.5)
        found = spread.difference(trained, [base])
        assert found is not None
        covered += found.low <= 0.5 <= found.high
    assert covered / trials >= 0.92


def test_training_runs_of_one_variant_are_combined_and_judged() -> None:
    rows = {
        "base": {"qa": lines("acc", ones(5), length=ones(5)), "sums": lines("ratio", [[1.0, 2.0]] * 4)},
        "lora": {"qa": lines("acc", ones(36), length=ones(5)), "sums": lines("ratio", [[1.0, 2.0]] * 4)},
        "lora.seed1": {"qa": lines("acc", ones(38), length=ones(5)), "sums": lines("ratio", [[3.0, 2.0]] * 4)},
        "lora.seed2": {"qa": lines("acc", ones(37), length=ones(5)), "sums": lines("ratio", [[1.0, 2.0]] * 4)},
    }
    members = {"lora": ["lora", "lora.seed1", "lora.seed2", "lora.seed3"], "full": ["full"]}  # the fourth failed
    losses = {"lora": 1.0, "lora.seed1": 3.0, "lora.seed2": 2.0}
    found = replicated([QA, SUMS], rows, members, "base", losses)
    assert [(each.task, each.metric) for each in found] == [("qa", ACC.name), ("sums", RATIO.name), (HELD_OUT, "loss")]
    assert found[0].trainings == ("lora", "lora.seed1", "lora.seed2") and found[0].value == pytest.approx(37 / 40)
    assert found[0].delta is not None and found[0].delta.verdict == "better"
    assert found[1].delta is not None and found[1].delta.verdict == "undecided"
    assert found[2].value == 2.0 and found[2].delta is None
    folds = replicated([QA, SUMS], rows, members, "base", losses, folds=4)
    for wide, narrow in zip(folds[1:], found[1:], strict=True):
        assert wide.high is not None and narrow.high is not None and wide.high > narrow.high
    two = replicated([QA, SUMS], rows, members | {"lora": ["lora", "lora.seed1"]}, "base", losses)
    assert two[0].delta is not None and two[0].delta.verdict == "undecided" and two[0].delta.mark == "untestable"
    notes = footnotes(example_run(replicated=[each.model_dump() for each in two[:1]]))
    assert "? over seeds: two training runs decide nothing: at least three are needed" in notes
    assert any("? cannot be told" in note for note in notes)


def test_the_table_shows_mean_and_deviation_and_the_difference() -> None:
    delta = Delta(value=0.2, low=0.1, high=0.3, p=0.001, p_holm=0.002, verdict="better")
    qa = Replicated(
        variant="lora", trainings=("lora", "lora.seed1", "lora.seed2"), task="mini_gsm8k", metric="strict",
        value=0.4, deviation=0.05, low=0.3, high=0.5, delta=delta,
    )  # fmt: skip
    held_out = qa.model_copy(update={"task": HELD_OUT, "metric": "loss", "value": 1.25, "delta": None})
    run = example_run(config={"seeds": 3}, replicated=[qa.model_dump(), held_out.model_dump()])
    [table] = [table for table in tables(run) if table.title == "Over 3 seeds"]
    assert [cell.text for cell in table.rows[0].cells] == ["40.0 ±5.0", "+20.0 ±10.0 ▲", "1.250 ±0.050"]
    for written in (page.render([run]), markdown.render([run]), latex.render([run])):
        assert "Over 3 seeds" in written and HELD_OUT in written and "1.250" in written
    notes = "\n".join(footnotes(run))
    assert "this table compares methods" in notes and "one training seed" not in notes
    for width in (80, 120):
        lines_ = [line.plain for line in screen(run, width=width)]
        assert any(line.startswith("Over 3 seeds") for line in lines_)
        assert max(map(len, lines_)) <= width


def test_a_deviation_is_shown_on_the_scale_of_its_score() -> None:
    assert Scale.of("acc", [0.4]).spread(0.412, 0.008) == "41.2 ±0.8"


def test_a_loss_is_shown_unchanged() -> None:
    assert Scale.of("loss", [0.146]).spread(0.146, 0.006) == "0.146 ±0.006"
