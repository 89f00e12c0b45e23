"""Intervals and tests, compared with closed forms, scipy and seeded simulations."""

import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as scipy_stats

from harness.errors import UserError
from harness.results import verdict_of
from harness.stats.intervals import Interval, interval
from harness.stats.observations import GroupValue, Observations, by_group, macro
from harness.stats.paired import holm, paired
from harness.stats.power import smallest_difference
from harness.stats.proportions import mcnemar_interval, mcnemar_p, smallest_shown, wilson
from harness.stats.ranking import pareto, ranks
from harness.stats.units import Layout


def zeros_like(values):
    return np.zeros(len(values))


def against_zero(values, seed=0, **labels):
    return paired(Observations(values, **labels), Observations(zeros_like(values), **labels), seed=seed)


def perplexity(sums):
    return math.exp(-sums[0] / sums[1])


# One score


def test_wilson_equals_the_closed_form_of_scipy():
    for hits, n in [(0, 1), (1, 1), (3, 10), (0, 50), (50, 50), (412, 1000)]:
        expected = scipy_stats.binomtest(hits, n).proportion_ci(method="wilson")
        result = interval(Observations(np.repeat([1, 0], [hits, n - hits])))
        assert (result.value, result.low, result.high) == pytest.approx((hits / n, expected.low, expected.high))


def test_interval_of_a_share_widens_with_confidence():
    low, high = wilson(0.4, 60, confidence=0.99)
    assert low < wilson(0.4, 60)[0] < 0.4 < wilson(0.4, 60)[1] < high


def test_the_interval_of_symmetric_scores_is_the_t_interval():
    scores = np.random.default_rng(3).normal(0.6, 0.2, size=200)
    scores = np.concatenate([scores, 1.2 - scores])  # no skewness
    result = interval(Observations(scores))
    expected = scipy_stats.t.interval(0.95, 399, scores.mean(), scipy_stats.sem(scores))
    assert (result.low, result.high) == pytest.approx(expected)


def test_an_interval_stays_within_the_range_of_the_scores_and_allows_for_what_was_not_seen():
    result = interval(Observations(np.array([0.0] * 9 + [0.3]), bounds=(0, 1)))
    assert 0 < result.low < result.value < 0.3 < result.high < 1
    equal = interval(Observations(np.full(30, 0.4), bounds=(0, 1)))
    assert equal.low < 0.38 < 0.42 < equal.high


def test_strata_that_explain_the_scores_narrow_the_interval():
    scores = np.concatenate([np.full(50, 0.1), np.full(50, 0.9)]) + np.tile([0.01, -0.01], 50)
    groups = ("hard",) * 50 + ("easy",) * 50
    plain, stratified = interval(Observations(scores)), interval(Observations(scores, groups=groups))
    assert stratified.value == plain.value
    assert stratified.high - stratified.low < 0.1 * (plain.high - plain.low)


def test_stratified_spread_equals_the_survey_formula():
    generator = np.random.default_rng(1)
    sizes = [2, 3, 5, 40]
    differences = np.concatenate([generator.normal(index, 1 + index, size) for index, size in enumerate(sizes)])
    groups = tuple(itertools.chain.from_iterable([name] * size for name, size in zip("abcd", sizes, strict=True)))
    parts = np.split(differences, np.cumsum(sizes)[:-1])
    error = math.sqrt(sum(len(part) * part.var(ddof=1) for part in parts)) / 50
    result = against_zero(differences, groups=groups)
    assert (result.high - result.low) / 2 == pytest.approx(scipy_stats.t.ppf(0.975, 46) * error, rel=0.03)


def test_strata_of_one_sample_do_not_hide_the_spread():
    scores = np.random.default_rng(0).uniform(size=40)
    each_alone = Observations(scores, groups=tuple(f"subject {index}" for index in range(40)))
    assert interval(each_alone) == interval(Observations(scores))
    one_alone = interval(Observations(scores, groups=("a",) * 39 + ("b",)))
    assert one_alone == interval(Observations(scores))


def test_clusters_widen_the_interval_if_scores_within_them_are_similar():
    passages = np.random.default_rng(2).integers(0, 2, size=20)
    scores = np.repeat(passages, 10)
    clusters = tuple(f"passage {index // 10}" for index in range(200))
    plain, clustered = interval(Observations(scores)), interval(Observations(scores, clusters=clusters))
    assert clustered.value == plain.value
    assert clustered.high - clustered.low > 2.5 * (plain.high - plain.low)


def test_clusters_of_one_size_give_the_t_interval_of_their_means():
    means = np.array([0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    clusters = tuple(np.repeat(list("abcdef"), 5).tolist())
    result = interval(Observations(np.repeat(means, 5), clusters=clusters))
    expected = scipy_stats.t.interval(0.95, 5, means.mean(), scipy_stats.sem(means))
    assert (result.low, result.high) == pytest.approx(expected)


def test_corpus_metric_is_computed_from_sums_and_not_from_the_mean_of_samples():
    obs = Observations(np.array([[-10.0, 10], [-90.0, 30]]), perplexity)
    assert interval(obs).value == pytest.approx(math.exp(100 / 40))


def test_perplexity_interval_is_close_to_the_delta_method():
    generator = np.random.default_rng(4)
    words = generator.integers(20, 200, size=300)
    losses = words * generator.normal(3, 0.3, size=300)
    result = interval(Observations(np.column_stack([-losses, words]), perplexity))
    ratio = losses.sum() / words.sum()
    error = (losses - ratio * words).std(ddof=1) * math.sqrt(300) / words.sum()
    assert result.high - result.low == pytest.approx(2 * 1.96 * error * math.exp(ratio), rel=0.08)


def test_no_samples_is_an_error_and_not_a_zero():
    with pytest.raises(UserError, match="no sample was scored"):
        Observations(np.array([]))


def test_one_sample_has_a_score_and_no_interval_unless_it_is_binary():
    assert interval(Observations(np.array([0.37]))) == Interval(0.37, None, None)
    assert interval(Observations(np.ones(3), clusters=("a",) * 3)) == Interval(1.0, None, None)
    assert interval(Observations(np.array([1.0]))).low == pytest.approx(0.2065, abs=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_gives_no_result(bad):
    scores = Observations(np.array([0.5, bad, 1.0]), groups=("a", "b", "b"))
    fine = Observations(np.array([0.5, 0.5, 1.0]), groups=("a", "b", "b"))
    corpus = Observations(np.array([[-3.0, 1], [bad, 2]]), perplexity)
    assert interval(scores) == interval(corpus) == Interval(None, None, None)
    assert paired(scores, fine) is None
    assert smallest_difference(scores, fine) is None
    assert macro(scores) is None
    assert by_group(scores) == [GroupValue("a", 0.5, 1), GroupValue("b", None, 2)]


def test_a_perplexity_that_overflows_is_none():
    assert interval(Observations(np.array([[-1e6, 1.0], [-1e6, 1.0]]), perplexity)).value is None


def test_equal_scores_have_an_interval_of_no_width():
    result = interval(Observations(np.full(30, 0.4)))
    assert (result.value, result.low, result.high) == pytest.approx((0.4, 0.4, 0.4))


# Two scores on the same samples


def test_mcnemar_counts_half_of_the_same_split_and_all_of_it_where_most_samples_differ():
    for wins, losses in itertools.product(range(15), range(15)):
        differing = wins + losses
        exact = scipy_stats.binomtest(wins, differing).pvalue if differing else 1.0
        same = scipy_stats.binom.pmf(wins, differing, 0.5) * (1 if wins != losses else 0)
        assert mcnemar_p(100, wins, losses) == pytest.approx(exact - same)
        assert mcnemar_p(max(1, differing), wins, losses) == pytest.approx(exact)


def test_pairing_shows_what_two_separate_scores_hide():
    base = np.repeat([1, 1, 0, 0], [50, 2, 14, 34])
    lora = np.repeat([1, 0, 1, 0], [50, 2, 14, 34])
    unpaired = scipy_stats.chi2_contingency([[52, 48], [64, 36]], correction=False).pvalue
    result = paired(Observations(lora), Observations(base))
    assert unpaired == pytest.approx(0.085, abs=0.001)
    assert result.test == "mcnemar mid-p"
    assert result.value == pytest.approx(0.12)
    exact, same = scipy_stats.binomtest(2, 16).pvalue, scipy_stats.binom.pmf(2, 16, 0.5)
    assert result.p == pytest.approx(exact - same) == pytest.approx(0.0024, abs=1e-4)


def test_mcnemar_interval_excludes_zero_exactly_when_p_is_below_five_percent():
    for n in (1, 3, 6, 30, 200):
        for wins, losses in itertools.product(range(min(n, 25) + 1), repeat=2):
            if wins + losses <= n:
                low, high = mcnemar_interval(n, wins, losses)
                assert -1 <= low <= (wins - losses) / n <= high <= 1
                assert (low > 0 or high < 0) == (mcnemar_p(n, wins, losses) < 0.05)


@pytest.mark.parametrize(("n", "wins", "losses"), [(21, 7, 1), (100, 30, 20), (50, 12, 0), (40, 9, 9)])
def test_mcnemar_interval_ends_where_the_score_statistic_says(n, wins, losses):
    high = mcnemar_interval(n, wins, losses)[1]

    def likelihood(lost):  # of the counts, if `high` is the true difference
        return (
            wins * math.log(lost + high) + losses * math.log(lost) + (n - wins - losses) * math.log(1 - 2 * lost - high)
        )

    lost = optimize.minimize_scalar(
        lambda share: -likelihood(share),
        bounds=(1e-9, (1 - high) / 2 - 1e-9),
        method="bounded",
        options={"xatol": 1e-10},
    ).x
    score = (wins - losses - n * high) / math.sqrt(n * (2 * lost + high - high**2))
    assert score == pytest.approx(-1.96, abs=1e-3)


def test_mcnemar_interval_of_no_differing_sample_has_tangos_closed_form():
    z2 = scipy_stats.norm.ppf(0.975) ** 2
    for n in (1, 20, 1000):
        assert mcnemar_interval(n, 0, 0) == pytest.approx((-z2 / (n + z2), z2 / (n + z2)))


def test_mcnemar_interval_covers_the_true_difference():
    generator = np.random.default_rng(0)
    counts = generator.multinomial(60, [0.2, 0.08, 0.72], size=1000)
    covered = [low <= 0.12 <= high for low, high in (mcnemar_interval(60, *pair) for *pair, _ in counts.tolist())]
    assert 0.94 <= np.mean(covered) <= 0.99


def test_a_single_sample_decides_nothing():
    assert paired(Observations(np.array([1.0])), Observations(np.array([0.0]))).p == 1.0
    assert paired(Observations(np.array([0.9])), Observations(np.array([0.2]))) is None
    one_passage = ("a", "a")
    assert against_zero(np.array([0.9, 0.8]), clusters=one_passage) is None


def test_the_difference_of_symmetric_scores_is_the_paired_t_test():
    shifts = np.random.default_rng(8).normal(0.25, 1, size=40)
    shifts = np.concatenate([shifts, 0.5 - shifts])  # no skewness
    base = np.random.default_rng(9).normal(size=80)
    result = paired(Observations(base + shifts), Observations(base))
    expected = scipy_stats.ttest_rel(base + shifts, base)
    assert (result.test, result.untestable) == ("skewness-corrected t", None)
    assert result.p == pytest.approx(max(expected.pvalue, 0.0), rel=0.02)
    assert (result.low, result.high) == pytest.approx(tuple(expected.confidence_interval()), abs=1e-3)


@pytest.mark.parametrize("n", [3, 6, 12, 40])
def test_a_paired_test_is_rarely_wrong_about_equal_variants(n):
    generator = np.random.default_rng(n)
    wrong = sum(against_zero(generator.normal(size=n), seed=seed).p < 0.05 for seed in range(300))
    assert wrong / 300 <= 0.08


def test_a_paired_test_is_rarely_wrong_where_few_samples_differ():
    generator = np.random.default_rng(7)
    wrong = 0
    for seed in range(300):
        differs = generator.random(100) < 0.05
        wrong += against_zero(differs * generator.choice([-1, -0.5, 0.5, 1], size=100), seed=seed).p < 0.05
    assert wrong / 300 <= 0.05


def test_p_and_interval_agree_in_every_test():
    generator = np.random.default_rng(11)
    seen = set()
    for trial in range(200):
        n = int(generator.integers(2, 30))
        values = generator.choice([0, 0, 0.5, 1], size=n) + generator.uniform(-0.2, 0.4)
        clusters = tuple(generator.choice(list("abcdefghijklmnop"), size=n).tolist()) if trial % 2 else None
        result = against_zero(values, clusters=clusters, seed=trial)
        if result is not None:
            seen.add((result.test, result.p < 0.05))
            assert (result.p < 0.05) == (result.low > 0 or result.high < 0)
            assert result.low <= result.value <= result.high
    assert len(seen) == 4


def test_five_differing_samples_are_never_significant_and_six_may_be():
    assert against_zero(np.full(5, 0.3)).p == pytest.approx(2 * 0.5**5)
    assert against_zero(np.full(5, 0.3)).low <= 0
    six = against_zero(np.full(6, 0.3))
    assert six.p == pytest.approx(2 * 0.5**6)
    assert six.low > 0


def test_variants_that_do_not_differ_have_p_of_one():
    scores = Observations(np.array([0.1, 0.7, 0.4]))
    result = paired(scores, scores)
    assert (result.value, result.low, result.high, result.p) == (0, 0, 0, 1)


def test_clusters_widen_a_paired_difference_and_strata_narrow_it():
    generator = np.random.default_rng(6)
    by_passage = np.repeat(generator.normal(0.1, 0.2, size=20), 10)
    clusters = tuple(np.repeat(np.arange(20).astype(str), 10).tolist())
    plain, clustered = against_zero(by_passage), against_zero(by_passage, clusters=clusters)
    stratified = against_zero(by_passage + generator.normal(0, 0.01, size=200), groups=clusters)
    assert (plain.test, clustered.test) == ("skewness-corrected t", "clustered t and sign flips")
    assert clustered.high - clustered.low > 2.5 * (plain.high - plain.low)
    assert stratified.high - stratified.low < 0.1 * (plain.high - plain.low)


def test_mcnemar_is_not_used_for_zero_one_scores_with_clusters():
    clusters = tuple(str(index // 5) for index in range(60))
    generator = np.random.default_rng(9)
    a, b = (Observations(generator.integers(0, 2, size=60), clusters=clusters) for _ in range(2))
    assert paired(a, b).test == "clustered t and sign flips"


def test_clusters_of_one_size_give_the_t_test_of_their_means_and_fewer_than_six_decide_nothing():
    means = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    clusters = tuple(np.repeat(list("abcdef"), 4).tolist())
    result = against_zero(np.repeat(means, 4), clusters=clusters)
    assert result.p == pytest.approx(2 / 2**6)  # the sign flips' smallest, above the t test's
    assert result.p > scipy_stats.ttest_1samp(means, 0).pvalue
    expected = scipy_stats.t.interval(0.95, 5, means.mean(), scipy_stats.sem(means))
    assert (result.low, result.high) == pytest.approx(expected)
    five = against_zero(np.repeat(means[1:], 4), clusters=clusters[4:])
    assert (five.p, five.untestable) == (1.0, "only 5 clusters: at least 6 are needed for a test")
    assert five.low <= 0 <= five.high


def test_clusters_within_groups_are_resampled_within_them():
    shifts = np.repeat([0.0, 1.0], 60) + np.repeat(np.random.default_rng(0).normal(0, 0.05, size=24), 5)
    clusters = tuple(str(index // 5) for index in range(120))
    within = against_zero(shifts, clusters=clusters, groups=("a",) * 60 + ("b",) * 60)
    across = against_zero(shifts, clusters=clusters, groups=("a", "b") * 60)
    assert within.high - within.low < 0.2 * (across.high - across.low)
    assert across == against_zero(shifts, clusters=clusters)


def test_pairing_narrows_the_interval_of_perplexities():
    generator = np.random.default_rng(10)
    words = generator.integers(20, 60, size=100)
    base = words * generator.normal(3, 0.5, size=100)
    lora = base - words * generator.normal(0.02, 0.02, size=100)
    a, b = (Observations(np.column_stack([-losses, words]), perplexity) for losses in (lora, base))
    result = paired(a, b)
    separate = interval(a)
    assert result.p < 1e-6
    assert result.value == pytest.approx(separate.value - interval(b).value)
    assert result.high - result.low < 0.2 * (separate.high - separate.low)


def test_variants_of_other_samples_cannot_be_paired():
    scores = np.array([0.0, 1.0])
    with pytest.raises(ValueError, match="same samples"):
        paired(Observations(scores), Observations(np.zeros(3)))
    with pytest.raises(ValueError, match="same samples"):
        paired(Observations(scores, groups=("a", "b")), Observations(scores, groups=("b", "a")))


def test_exchanging_the_variants_reverses_the_difference():
    generator = np.random.default_rng(12)
    for draw in (lambda: generator.integers(0, 2, size=40), lambda: generator.uniform(size=40)):
        a, b = Observations(draw()), Observations(draw())
        there, back = paired(a, b), paired(b, a)
        assert (there.value, there.low, there.p) == pytest.approx((-back.value, -back.high, back.p))


def test_results_depend_on_the_seed_and_on_nothing_else():
    program = (
        "import numpy as np; from harness.stats.flips import flip_p;"
        "x = np.random.default_rng(0).normal(0.2, 1, size=60); print(flip_p(x, np.ones(60), seed={seed}))"
    )

    def run(seed, hash_seed):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", program.format(seed=seed)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert run(1, "1") == run(1, "2") != run(2, "1")


# Metrics of the whole set


def mean_of(things):
    return sum(things) / len(things)


def area(pairs):
    """Computes the area under the ROC curve of (is positive, score) by counting pairs."""
    positive = np.array([score for label, score in pairs if label])[:, None]
    negative = np.array([score for label, score in pairs if not label])
    if not positive.size or not negative.size:
        raise ZeroDivisionError
    return float(np.mean((positive > negative) + (positive == negative) / 2))


def test_the_jackknife_of_a_mean_is_the_t_interval():
    scores = np.random.default_rng(0).normal(size=40)
    result = interval(Observations(scores.tolist(), whole=mean_of))
    expected = scipy_stats.t.interval(0.95, 39, scores.mean(), scipy_stats.sem(scores))
    assert (result.value, result.low, result.high) == pytest.approx((scores.mean(), *expected))


def test_the_paired_jackknife_of_a_mean_is_the_paired_t_test():
    generator = np.random.default_rng(1)
    base = generator.normal(size=25)
    lora = base + generator.normal(0.4, 1, size=25)
    result = paired(Observations(lora.tolist(), whole=mean_of), Observations(base.tolist(), whole=mean_of))
    expected = scipy_stats.ttest_rel(lora, base)
    assert (result.test, result.untestable) == ("paired jackknife", None)
    assert (result.value, result.p) == pytest.approx((np.mean(lora - base), expected.pvalue))
    assert (result.low, result.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_many_samples_form_forty_jackknife_groups_which_all_comparisons_share():
    calls = []

    def counted(things):
        calls.append(len(things))
        return mean_of(things)

    scores = np.random.default_rng(2).normal(size=1000)
    first, second = (Observations((scores + shift).tolist(), whole=counted) for shift in (0, 0.1))
    result = interval(first)
    assert calls == [1000] + [975] * 40
    assert result.high - result.low == pytest.approx(2 * 2.02 * scipy_stats.sem(scores), rel=0.35)
    for _ in range(3):
        paired(first, second)
        smallest_difference(first, second)
    assert sum(size == 975 for size in calls) == 80


def test_objects_of_any_type_are_kept_unchanged():
    texts = [[["a", 1]], [["b", 2]], [["a", 3]]]  # NumPy would make a table of them
    assert interval(Observations(texts, whole=lambda all: len({text[0][0] for text in all}))).value == 2
    assert interval(Observations([{"n": 1}, {}], whole=lambda all: sum(map(len, all)))).value == 1


def test_clusters_are_left_out_whole():
    means = np.array([0.3, 0.1, 0.4, 0.35, 0.2, 0.15, 0.3])
    clusters = tuple(np.repeat(list("abcdefg"), 4).tolist())
    a, b = (Observations(list(v), whole=mean_of, clusters=clusters) for v in (np.repeat(means, 4), np.zeros(28)))
    result = paired(a, b)
    assert result.p == pytest.approx(max(scipy_stats.ttest_1samp(means, 0).pvalue, 2 * 0.5**7))
    few = [Observations(each.values[:20].tolist(), whole=mean_of, clusters=clusters[:20]) for each in (a, b)]
    assert "5 clusters" in paired(*few).untestable


def test_each_jackknife_group_has_its_share_of_every_stratum():
    groups = ("easy",) * 400 + ("hard",) * 80 + ("rare",) * 3
    parts = Layout.of(483, groups).deal(40)
    for group, sizes in (("easy", {10}), ("hard", {2}), ("rare", {0, 1})):
        members = np.array([each == group for each in groups])
        assert set(np.bincount(parts[members], minlength=40).tolist()) == sizes
    clusters = tuple(str(index // 5) for index in range(483))
    together = Layout.of(483, groups, clusters).deal(40)
    assert len(set(zip(clusters, together.tolist(), strict=True))) == 97
    assert len(set(Layout.of(7).deal(40).tolist())) == 7


def test_strata_narrow_the_jackknife_too():
    scores = (np.concatenate([np.full(80, 0.1), np.full(80, 0.9)]) + np.tile([0.01, -0.01], 80)).tolist()
    groups = ("hard",) * 80 + ("easy",) * 80
    plain = interval(Observations(scores, whole=mean_of))
    stratified = interval(Observations(scores, whole=mean_of, groups=groups))
    assert stratified.high - stratified.low < 0.1 * (plain.high - plain.low)


def test_the_interval_of_an_area_under_a_curve_covers_the_true_one():
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        positive = generator.random(60) < 0.4
        pairs = zip(positive.tolist(), generator.normal(positive, 1).tolist(), strict=True)
        result = interval(Observations(list(pairs), whole=area))
        covered += result.low <= scipy_stats.norm.cdf(1 / math.sqrt(2)) <= result.high
    assert 0.89 <= covered / 200 <= 0.98


def test_equal_variants_are_rarely_told_apart_by_an_area_under_a_curve():
    generator = np.random.default_rng(4)
    wrong = 0
    for _ in range(150):
        positive = generator.random(50) < 0.5
        base = generator.normal(positive, 1)
        variants = [base + generator.normal(0, 0.5, size=50) for _ in range(2)]
        a, b = (Observations(list(zip(positive, scores, strict=True)), whole=area) for scores in variants)
        wrong += paired(a, b).p < 0.05
    assert wrong / 150 <= 0.09


def test_an_undefined_number_is_none_and_an_undefined_jackknife_group_gives_no_interval():
    one_class = Observations([(1, 0.3), (1, 0.4)], whole=area)
    lone_positive = Observations([(1, 0.3), (0, 0.4), (0, 0.1), (0, 0.2)], whole=area)
    assert interval(one_class) == Interval(None, None, None)
    assert interval(lone_positive) == Interval(pytest.approx(2 / 3), None, None)
    assert paired(lone_positive, lone_positive) is None
    assert smallest_difference(lone_positive, lone_positive) is None
    assert interval(Observations([0.4], whole=mean_of)) == Interval(0.4, None, None)


def test_metrics_of_the_whole_have_p_of_one_if_equal_and_a_small_p_if_clearly_different():
    same = Observations([0.1, 0.5, 0.3], whole=mean_of)
    assert (paired(same, same).value, paired(same, same).p) == (0, 1)
    ones, zeros = Observations([1.0] * 6, whole=mean_of), Observations([0.0] * 6, whole=mean_of)
    assert paired(ones, zeros).p == pytest.approx(2 * 0.5**6)
    assert smallest_difference(ones, zeros) is None


def test_smallest_difference_of_a_metric_of_the_whole_follows_from_its_error():
    base = np.random.default_rng(5).normal(size=40)
    found = smallest_difference(Observations(base.tolist(), whole=mean_of), Observations([0.0] * 40, whole=mean_of))
    factor = scipy_stats.t.ppf(0.975, 39) + scipy_stats.t.ppf(0.8, 39)
    assert found == pytest.approx(factor * scipy_stats.sem(base))


def test_metrics_of_the_whole_are_computed_within_groups():
    pairs = [(1, 0.9), (0, 0.1), (1, 0.2), (0, 0.8), (0, 0.3)]
    obs = Observations(pairs, whole=area, groups=("a", "a", "b", "b", "c"))
    assert by_group(obs) == [("a", 1.0, 2), ("b", 0.0, 2), ("c", None, 1)]
    assert macro(obs) is None
    assert macro(Observations(pairs[:4], whole=area, groups=("a", "a", "b", "b"))) == 0.5


def test_value_and_whole_exclude_each_other():
    with pytest.raises(ValueError, match="not both"):
        Observations([1.0, 2.0], perplexity, whole=mean_of)
    with pytest.raises(UserError, match="no sample was scored"):
        Observations([], whole=mean_of)


# The smallest difference


@pytest.mark.parametrize(("n", "share"), [(50, 0.2), (100, 0.0), (300, 0.3), (8, 0.5)])
def test_smallest_difference_of_zero_one_scores_is_detected_four_times_in_five(n, share):
    difference = smallest_shown(n, share)
    differ = max(share, difference)
    odds = [(differ + difference) / 2, (differ - difference) / 2, 1 - differ]
    counts = np.random.default_rng(0).multinomial(n, odds, size=3000).tolist()
    assert np.mean([mcnemar_p(n, wins, losses) < 0.05 for wins, losses, _ in counts]) == pytest.approx(0.8, abs=0.025)


def test_smallest_difference_of_other_scores_is_detected_four_times_in_five():
    generator = np.random.default_rng(0)
    pilot = scipy_stats.zscore(generator.normal(size=40), ddof=1)  # a spread of one
    difference = smallest_difference(Observations(pilot), Observations(zeros_like(pilot)))
    shown = sum(against_zero(generator.normal(difference, 1, size=40), seed=seed).p < 0.05 for seed in range(300))
    assert shown / 300 == pytest.approx(0.8, abs=0.06)


def test_smallest_difference_shrinks_with_more_samples():
    few, many = smallest_shown(100, 0.2), smallest_shown(400, 0.2)
    assert few / many == pytest.approx(2, rel=0.1)


def test_four_samples_cannot_detect_any_difference():
    assert smallest_difference(Observations(np.ones(4)), Observations(np.zeros(4))) is None


# Adjusted p-values, verdicts, ranks, fronts, groups


def test_holm_equals_the_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_never_lowers_a_p_value_and_keeps_their_order():
    p_values = np.random.default_rng(0).uniform(size=50) ** 3
    adjusted = holm(p_values.tolist())
    assert all(after >= before for before, after in zip(p_values, adjusted, strict=True))
    assert max(adjusted) <= 1
    ordered = [adjusted[index] for index in np.argsort(p_values)]
    assert ordered == sorted(ordered)


def test_holm_of_no_p_values_is_empty():
    assert holm([]) == []


def test_verdict_depends_on_sign_direction_and_p():
    assert verdict_of(0.1, 0.01, higher_is_better=True) == "better"
    assert verdict_of(0.1, 0.01, higher_is_better=False) == "worse"
    assert verdict_of(-0.1, 0.01, higher_is_better=True) == "worse"
    assert verdict_of(0.1, 0.05, higher_is_better=True) == "undecided"
    assert verdict_of(0.1, math.nan, higher_is_better=True) == "undecided"


def test_variants_that_cannot_be_told_apart_share_ranks():
    shown = {("lora", "base"), ("full", "base"), ("full", "prefix")}
    order = ["base", "lora", "full", "prefix"]
    found = ranks(order, lambda a, b: (a, b) in shown)
    assert found == {"base": (3, 4), "lora": (1, 3), "full": (1, 2), "prefix": (2, 4)}


def test_a_front_says_maybe_where_nothing_was_shown():
    costs = {"slow": 9.0, "twin": 4.0, "lora": 4.0, "base": 0.0, "worse": 0.0}
    shown = {
        ("twin", "base"),
        ("lora", "base"),
        ("slow", "base"),
        ("base", "worse"),
        ("twin", "worse"),
        ("lora", "worse"),
    }
    found = pareto(costs, lambda a, b: (a, b) in shown)
    assert found.on == ["base"]  # nothing is cheaper, and it is better than what costs as much
    assert found.maybe == ["slow", "twin", "lora"]  # the twins cost the same, and neither is shown to be better
    decided = pareto(costs, lambda a, b: (a, b) in shown | {("twin", "lora"), ("lora", "slow")})
    assert (decided.on, decided.maybe) == (["twin", "base"], [])


def test_an_unknown_cost_is_on_no_front_and_dominates_nothing():
    found = pareto({"base": math.nan, "lora": 4.0, "full": 9.0}, lambda a, b: a == "base")
    assert found == (["lora"], ["full"])


def test_macro_weighs_groups_equally_whatever_their_size():
    obs = Observations(np.array([1, 1, 1, 0]), groups=("law", "law", "law", "art"))
    assert macro(obs) == 0.5
    assert by_group(obs) == [("law", 1.0, 3), ("art", 0.0, 1)]


def test_macro_of_a_corpus_metric_is_the_mean_over_its_groups():
    obs = Observations(np.array([[-2.0, 1], [-1.0, 1], [-1.0, 1]]), perplexity, groups=("a", "b", "b"))
    assert macro(obs) == pytest.approx((math.e**2 + math.e) / 2)


def test_without_groups_there_is_no_macro():
    assert macro(Observations(np.array([1, 0]))) is None
    assert by_group(Observations(np.array([1, 0]))) == []
