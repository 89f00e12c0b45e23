"""Ratios of times: their intervals cover the true ratio, and agree with scipy's own tests."""

import math

import numpy as np
import pytest
from scipy import stats

from harness.stats.ratios import Ratio, paired_ratio, spread_of, unpaired_ratio


def test_intervals_are_those_of_scipy() -> None:
    draw = np.random.default_rng(0)
    ours, theirs = np.exp(draw.normal(0.3, 0.2, 9)), np.exp(draw.normal(0, 0.1, 9))
    for found, test in (
        (paired_ratio(list(ours), list(theirs)), stats.ttest_1samp(np.log(ours / theirs), 0)),
        (
            unpaired_ratio(list(ours), list(theirs[:5])),
            stats.ttest_ind(np.log(ours), np.log(theirs[:5]), equal_var=False),
        ),
    ):
        low, high = test.confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)))


def test_the_ratio_of_b_to_a_is_the_reciprocal() -> None:
    ours, theirs = [1.0, 1.3, 0.9], [2.0, 2.2, 2.1, 2.4]
    for found, other in (
        (unpaired_ratio(ours, theirs), unpaired_ratio(theirs, ours)),
        (paired_ratio(ours, theirs[:3]), paired_ratio(theirs[:3], ours)),
    ):
        assert other.low is not None and other.high is not None
        assert (found.value, found.low, found.high) == pytest.approx((1 / other.value, 1 / other.high, 1 / other.low))


@pytest.mark.parametrize("pairs", [3, 10])
def test_the_interval_covers_the_true_ratio_although_the_machine_drifts(pairs: int) -> None:
    """Times of both sides are multiplied by the same factor, which wanders; each has noise of its own."""
    draw, covered, tries = np.random.default_rng(1), 0, 1000
    for _ in range(tries):
        drift = np.exp(np.cumsum(draw.normal(0, 0.3, pairs)))
        ours, theirs = 1.2 * drift * np.exp(draw.normal(0, 0.02, pairs)), drift * np.exp(draw.normal(0, 0.02, pairs))
        found = paired_ratio(list(ours), list(theirs))
        assert found.low is not None and found.high is not None and found.precision < 0.4
        covered += found.low <= 1.2 <= found.high
    assert 0.93 * tries < covered < 0.97 * tries


def test_one_measurement_has_no_interval() -> None:
    assert paired_ratio([2.0], [1.0]) == unpaired_ratio([2.0], [1.0]) == Ratio(2.0)
    assert Ratio(2.0).precision == spread_of([2.0]) == math.inf
    assert Ratio(1.0, 1 / 1.05, 1.05).precision == pytest.approx(0.05)
