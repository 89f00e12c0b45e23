"""Coverage and size of every method in short simulations with fixed seeds, and closed forms computed in another way.

The full tables are in COVERAGE.md; `python tests/stats/coverage.py` makes them. Figures named "before" are those of the
methods that these replaced: percentile bootstrap, t with a bootstrap's error, McNemar's exact test.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import special
from scipy import stats as scipy_stats
from simulated_scores import GRADED, NULLS, clustered, corpus, differs

from harness.metrics import auc, macro_f1, word_ppl
from harness.stats.areas import area_difference, area_limits
from harness.stats.bounded import UNSEEN_LOSS, Guard, score_limits
from harness.stats.flips import flip_p
from harness.stats.intervals import interval
from harness.stats.observations import Observations
from harness.stats.paired import paired
from harness.stats.proportions import mcnemar_interval, mcnemar_p
from harness.stats.spread import HallLimits, cr2
from harness.stats.units import Layout


def coverage(make: Callable[[], Observations], true: float, draws: int = 300) -> float:
    found = [interval(make()) for _ in range(draws)]
    return float(np.mean([f.low is not None and f.high is not None and f.low <= true <= f.high for f in found]))


def shown(make: Callable[[], tuple[Observations, Observations]], draws: int = 400) -> float:
    """Share of draws with p < .05."""
    found = [paired(*make()) for _ in range(draws)]
    return float(np.mean([each is not None and each.p < 0.05 for each in found]))


# 0/1 scores


def test_mid_p_finds_more_than_the_exact_test_and_keeps_its_size() -> None:
    """12 of 100 samples differ, all by chance or all wins: before, six wins of six were the fewest that could be shown."""
    power, size = 0.0, 0.0
    for differing in range(61):
        chance = scipy_stats.binom.pmf(differing, 60, 0.12)
        power += chance * (mcnemar_p(60, differing, 0) < 0.05)
        wins = np.arange(differing + 1)
        rejected = [mcnemar_p(60, int(each), int(differing - each)) < 0.05 for each in wins]
        size += chance * float(np.sum(scipy_stats.binom.pmf(wins, differing, 0.5)[rejected]))
    before = 1 - scipy_stats.binom.cdf(5, 60, 0.12)
    assert power == pytest.approx(1 - scipy_stats.binom.cdf(4, 60, 0.12)) and power > before + 0.1
    assert size <= 0.05


def test_where_most_samples_differ_the_test_is_exact() -> None:
    """The mid-p of 50 differing samples of 50 rejects 6.5 % of true nulls."""
    wins = np.arange(51)
    chance = scipy_stats.binom.pmf(wins, 50, 0.5)
    assert sum(chance[[mcnemar_p(50, int(each), int(50 - each)) < 0.05 for each in wins]]) <= 0.05
    assert sum(chance[[mcnemar_p(500, int(each), int(50 - each)) < 0.05 for each in wins]]) == pytest.approx(
        0.065, abs=0.001
    )


def test_the_interval_of_a_paired_difference_covers_and_agrees_with_the_test() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(600):
        wins, losses, _ = rng.multinomial(80, [0.11, 0.05, 0.84]).tolist()
        low, high = mcnemar_interval(80, wins, losses)
        covered += low <= 0.06 <= high
        assert (mcnemar_p(80, wins, losses) < 0.05) == (low > 0 or high < 0)
    assert 0.935 <= covered / 600 <= 0.99


# Graded scores


@pytest.mark.parametrize("name", ["power, mean .02", "power, mean .98", "five marks, mean .88"])
@pytest.mark.parametrize("n", [20, 50])
def test_intervals_of_graded_scores_cover_near_the_bounds(name: str, n: int) -> None:
    """Before, 69 to 83 % of them covered."""
    draw, true = GRADED[name]
    rng = np.random.default_rng(n)
    assert coverage(lambda: Observations(draw(rng, n), bounds=(0, 1)), true) >= 0.93


def test_intervals_of_many_graded_scores_are_not_wide() -> None:
    draw, true = GRADED["word overlap, mean .22"]
    rng = np.random.default_rng(0)
    scores = draw(rng, 1000)
    found = interval(Observations(scores, bounds=(0, 1)))
    assert found.low is not None and found.high is not None
    assert (found.high - found.low) / (2 * 1.962 * scipy_stats.sem(scores)) < 1.05
    assert coverage(lambda: Observations(draw(rng, 200), bounds=(0, 1)), true) >= 0.93


def test_the_score_interval_of_zeros_and_ones_is_wilsons() -> None:
    for hits, n in ((3, 10), (199, 200), (50, 50)):
        expected = scipy_stats.binomtest(hits, n).proportion_ci(method="wilson")
        share = hits / n
        assert score_limits(share, n, n * share * (1 - share), n - 1) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("name", sorted(NULLS))
@pytest.mark.parametrize("n", [20, 100])
def test_a_difference_of_graded_scores_is_rarely_shown_if_there_is_none(name: str, n: int) -> None:
    """Before, rare large losses were shown as a gain in 52 % of cases at n = 20, and in 23 % at n = 50."""
    rng = np.random.default_rng(n)
    draw = NULLS[name]
    assert shown(lambda: differs(draw(rng, n), bounds=(0, 1)), 100) <= 0.1  # 5.5 % and two standard errors


def test_what_a_hidden_loss_would_reverse_is_tentative() -> None:
    small_gain = paired(*differs(np.full(60, 0.02) + np.linspace(-0.01, 0.01, 60), bounds=(0, 1)))
    assert small_gain is not None and small_gain.p_unguarded is not None
    assert small_gain.p_unguarded < 1e-6 and small_gain.p > 0.05 and small_gain.low <= 0
    large_gain = paired(*differs(np.full(60, 0.3) + np.linspace(-0.2, 0.2, 60), bounds=(0, 1)))
    assert large_gain is not None and large_gain.p < 0.001 and large_gain.low > 0


def test_the_guard_equals_a_simulation_of_random_weights() -> None:
    rng = np.random.default_rng(1)
    values = np.where(rng.random(40) < 0.2, -0.3, rng.uniform(0, 0.3, 40))
    weights = rng.gamma(np.append(np.ones(40), UNSEEN_LOSS), size=(40_000, 41))
    means = weights @ np.append(values, -1.0) / weights.sum(axis=1)
    guard = Guard.of(values, -1.0)
    for x in (-0.05, 0.0, 0.05, 0.1):
        assert guard.below(x) == pytest.approx(float(np.mean(means <= x)), abs=0.008)
    assert guard.limit() == pytest.approx(float(np.quantile(means, 0.025)), abs=0.003)


def test_halls_limits_and_p_value_agree() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        hall = HallLimits(float(rng.normal(0, 0.3)), 0.1, float(rng.integers(3, 50)), float(rng.normal(0, 3)), 30)
        low, high = hall.limits()
        side = low if hall.mean > 0 else high
        assert (hall.p < 0.05) == (side * hall.mean > 0)
        at_end = HallLimits(hall.mean - side, 0.1, hall.freedom, hall.skewness, 30)
        assert at_end.p == pytest.approx(0.05) or at_end.p == 1.0


def test_p_and_interval_agree_within_bounds_too() -> None:
    rng, seen = np.random.default_rng(3), set()
    for trial in range(150):
        n = int(rng.integers(8, 60))
        values = np.clip(rng.choice([0, 0.5, 1], n) * rng.uniform(0, 0.6) + rng.uniform(-0.3, 0.4), -1, 1)
        groups = tuple(rng.choice(list("abc"), n).tolist()) if trial % 2 else None
        found = paired(*differs(values, bounds=(0, 1), groups=groups))
        assert found is not None and found.p_unguarded is not None
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
        assert found.low <= found.value <= found.high and found.p >= found.p_unguarded
        seen.add((found.p < 0.05, found.p_unguarded < 0.05))
    assert seen == {(True, True), (False, True), (False, False)}


def test_skewed_differences_without_bounds_are_not_told() -> None:
    """Before, 18 % of them were shown at n = 20 and 13 % at n = 50."""
    rng = np.random.default_rng(4)

    def skewed() -> tuple[Observations, Observations]:
        return differs(rng.lognormal(0, 1.2, 50) - math.exp(0.72))

    assert shown(skewed) <= 0.075
    found = paired(*differs(np.append(np.full(49, 0.1), 9.0)))
    assert found is not None and found.p == 1.0 and found.low <= 0
    assert found.untestable is not None and "too skewed for 50 samples: about 706 are needed" in found.untestable


def test_strata_narrow_graded_scores_within_bounds() -> None:
    rng = np.random.default_rng(5)
    shifts = np.repeat([0.02, 0.5], 200) + rng.uniform(-0.02, 0.02, 400)
    groups = ("hard",) * 200 + ("easy",) * 200
    plain, stratified = (paired(*differs(shifts, bounds=(0, 1), groups=each)) for each in (None, groups))
    assert plain is not None and stratified is not None
    assert stratified.high - stratified.low < 0.5 * (plain.high - plain.low)


# Metrics of the whole set


def test_intervals_of_a_perplexity_cover_if_documents_differ_in_length() -> None:
    """Before, 91 % of them covered at 200 documents."""
    rng = np.random.default_rng(6)

    def documents() -> Observations:
        loss, words = corpus(rng, 200)
        return Observations(np.column_stack([-loss, words]), word_ppl.value)

    assert 0.93 <= coverage(documents, math.exp(2.8), 800) <= 0.985


def test_the_difference_of_two_perplexities_follows_from_the_delta_method() -> None:
    rng = np.random.default_rng(7)
    loss, words = corpus(rng, 400)
    other = loss + words * rng.normal(0.02, 0.1, 400)
    a, b = (Observations(np.column_stack([-each, words]), word_ppl.value) for each in (loss, other))
    found = paired(a, b)
    assert found is not None and found.test == "ratio t"
    values = [math.exp(each.sum() / words.sum()) for each in (loss, other)]
    influence = values[0] * (loss - np.log(values[0]) * words) - values[1] * (other - np.log(values[1]) * words)
    error = math.sqrt(float(np.sum(influence**2) / (1 - words.max() / words.sum()))) / words.sum()
    assert found.value == pytest.approx(values[0] - values[1])
    assert (found.high - found.low) / 2 == pytest.approx(2.0 * error, rel=0.05)


def rows_of(wanted: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    one = np.eye(3)
    return np.column_stack([one[wanted] * (wanted == predicted)[:, None], one[predicted], one[wanted]])


def test_intervals_of_macro_f1_cover_where_no_label_is_rare() -> None:
    """A jackknife covers 77 % here."""
    rng = np.random.default_rng(8)

    def labelled(n: int = 100) -> Observations:
        wanted = np.repeat([0, 1, 2], [n * 6 // 10, n * 3 // 10, n // 10])
        predicted = np.where(rng.random(n) < 0.97, wanted, (wanted + rng.integers(1, 3, n)) % 3)
        return Observations(rows_of(wanted, predicted), macro_f1.value, bounds=(0, 1))

    true = labelled(200_000).number
    assert true is not None and coverage(labelled, true, 300) >= 0.92
    rare = Observations(rows_of(np.array([0] * 30 + [1] * 4), np.array([0] * 34)), macro_f1.value, bounds=(0, 1))
    assert "fewer than 5 samples" in str(interval(rare).warning) and interval(labelled()).warning is None


def areas_of(rng: np.random.Generator, positives: int, negatives: int, shift: float) -> list[list[float]]:
    scores = rng.normal(np.repeat([shift, 0], [positives, negatives]), 1)
    return [[float(index < positives), score] for index, score in enumerate(scores.tolist())]


def test_intervals_of_an_area_under_a_curve_cover_near_one() -> None:
    rng, true = np.random.default_rng(9), 0.96
    shift = math.sqrt(2) * float(special.ndtri(true))

    def scored() -> Observations:
        return Observations(areas_of(rng, 30, 90, shift), whole=auc.whole, bounds=(0, 1))

    assert 0.92 <= coverage(scored, true) <= 0.99
    assert "rough" in str(interval(scored()).warning)


def test_delongs_variance_equals_the_sum_over_all_pairs() -> None:
    rng = np.random.default_rng(10)
    first, second = areas_of(rng, 12, 20, 1.0), areas_of(rng, 12, 20, 0.8)
    pairs = []
    for rows in (first, second):
        scores = np.array(rows)[:, 1]
        pairs.append((scores[:12, None] > scores[None, 12:]) + 0.5 * (scores[:12, None] == scores[None, 12:]))
    apart = pairs[0] - pairs[1]
    variance = apart.mean(axis=1).var(ddof=1) / 12 + apart.mean(axis=0).var(ddof=1) / 20
    found = area_difference(first, second)
    assert found is not None and found[:2] == pytest.approx((apart.mean(), math.sqrt(variance)))
    limits = area_limits(first)
    assert limits is not None and limits[0] < pairs[0].mean() < limits[1]
    result = paired(*(Observations(rows, whole=auc.whole, bounds=(0, 1)) for rows in (first, second)))
    assert result is not None and result.test == "delong" and result.value == pytest.approx(apart.mean())


def test_a_corpus_metric_stays_within_its_bounds_and_its_jackknife_leaves_out_every_sample() -> None:
    calls = []

    def value(sums: tuple[float, ...]) -> float:
        calls.append(sums)
        return 100 * sums[0] / sums[1]

    rng = np.random.default_rng(11)
    rows = np.column_stack([rng.binomial(20, 0.97, 60), np.full(60, 20)]).astype(float)
    found = interval(Observations(rows, value, bounds=(0, 100)))
    assert len(calls) == 61 and found.high is not None and found.value is not None and found.low is not None
    assert found.high < 100 and found.high - found.value < found.value - found.low  # the logit scale
    large = Observations(np.repeat(rows, 100, axis=0), value)
    calls.clear()
    interval(large)
    assert len(calls) == 1001
    perfect = interval(Observations(np.full((30, 2), 5.0), value, bounds=(0, 100)))
    assert perfect.high == 100 and perfect.low == pytest.approx(100 / (1 + 3.8415 / 30), abs=0.01)


# Clusters


def test_cr2_equals_the_formula_with_matrices() -> None:
    sizes = np.array([1, 2, 5, 9, 3])
    cluster = np.repeat(np.arange(5), sizes)
    y = np.random.default_rng(12).normal(size=20)
    for correlation in (0.0, 0.4, 1.0):
        hat = np.full((20, 20), 1 / 20)
        working = (cluster[:, None] == cluster) * correlation + np.eye(20) * (1 - correlation)
        residual = (np.eye(20) - hat) @ y
        parts = []  # of the quadratic form: a vector for each cluster
        for g in range(5):
            inside = cluster == g
            values, vectors = np.linalg.eigh(np.eye(sizes[g]) - hat[np.ix_(inside, inside)])
            root = vectors @ np.diag(values**-0.5) @ vectors.T
            parts.append(np.ones(sizes[g]) @ root @ (np.eye(20) - hat)[inside] / 20)
        squares = sum(float(part @ y) ** 2 for part in parts)
        inner = np.array([[p @ working @ q for q in parts] for p in parts])
        totals = np.bincount(cluster, y)
        found = cr2(totals, sizes.astype(float), Layout.of(5).strata, correlation)
        assert residual.sum() == pytest.approx(0)
        assert found.error == pytest.approx(math.sqrt(squares))
        assert found.freedom == pytest.approx(np.trace(inner) ** 2 / np.sum(inner**2))


def test_sign_flips_of_few_clusters_are_counted_completely() -> None:
    totals, sizes = np.array([3.0, -1.0, 4.0, 2.5, 0.5]), np.array([3.0, 1.0, 2.0, 4.0, 1.0])
    statistics = []
    for bits in range(32):
        flipped = totals * np.where([bits >> k & 1 for k in range(5)], -1, 1)
        mean = flipped.sum() / sizes.sum()
        statistics.append(abs(mean) / math.sqrt(float(np.sum((flipped - mean * sizes) ** 2))))
    assert flip_p(totals, sizes) == pytest.approx(np.mean(np.array(statistics) >= statistics[0] - 1e-12))
    rng = np.random.default_rng(13)
    many = rng.normal(0.3, 1, 60)
    assert flip_p(many, np.ones(60)) == pytest.approx(scipy_stats.ttest_1samp(many, 0).pvalue, abs=0.01)


@pytest.mark.parametrize("count", [6, 9, 11])
def test_unequal_clusters_are_rarely_told_apart(count: int) -> None:
    """Before, 6 to 9 % of true nulls were shown."""
    rng = np.random.default_rng(count)

    def equal() -> tuple[Observations, Observations]:
        values, labels = clustered(rng, count)
        return differs(values, clusters=labels)

    assert shown(equal, 250) <= 0.085


def test_intervals_of_clustered_zeros_and_ones_cover() -> None:
    rng = np.random.default_rng(14)

    def passages() -> Observations:
        sizes = rng.geometric(0.1, 30)
        chance = np.repeat(rng.beta(2.7, 0.3, 30), sizes)
        return Observations(
            (rng.random(len(chance)) < chance) * 1.0, clusters=tuple(np.repeat(np.arange(30), sizes).astype(str))
        )

    assert coverage(passages, 0.9) >= 0.95
