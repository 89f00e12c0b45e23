"""The difference between two variants that were scored on the same samples: its interval and its p-value.

All variants are scored on the same samples, so differences are computed sample by sample. Everything here is a pure
function of its arguments and its seed.

    >>> import numpy as np
    >>> lora, base = Observations(np.repeat([1, 0], [18, 2])), Observations(np.repeat([1, 0], [9, 11]))
    >>> round(paired(lora, base).p, 4)
    0.002
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from harness.stats.areas import area_difference
from harness.stats.bounded import Guard
from harness.stats.flips import flip_p
from harness.stats.functions import RocArea, SumRatio
from harness.stats.intervals import Interval, interval
from harness.stats.jackknife import jackknife_error
from harness.stats.observations import Observations
from harness.stats.proportions import mcnemar_interval, mcnemar_p
from harness.stats.spread import Spread, cr2, t_limits, t_p
from harness.stats.sum_ratios import ratio_difference
from harness.stats.units import Array

SpreadTest = Literal["skewness-corrected t", "clustered t and sign flips", "ratio t", "paired jackknife", "delong"]
Test = Literal["mcnemar mid-p"] | SpreadTest

FEWEST_CLUSTERS = 6
"""With fewer clusters, nothing can be shown: the exact sign-flip test has no p-value below 0.05."""
UNITS_FOR_SKEWNESS = 15
"""Samples needed for each unit of squared skewness, if the range of the scores is not known; with fewer, up to 17 % of true
nulls of lognormal differences are rejected. Of clusters, 6 are needed."""
CLUSTERS_FOR_SKEWNESS = 6


@dataclass(frozen=True)
class Difference:
    """A difference a − b, its 95 % interval, and the probability that chance alone shows one as large."""

    value: float
    low: float
    high: float
    p: float
    p_unguarded: float | None = field(default=None, kw_only=True)
    """p-value under the assumption that no rare large loss or gain is missing from the samples; None: the same as `p`."""
    untestable: str | None = field(default=None, kw_only=True)
    """Why no test is valid; then p is 1 and the interval includes 0."""


@dataclass(frozen=True)
class PairedDifference(Difference):
    """A difference between two variants on the same samples, and the test that gave its p-value."""

    test: Test


def paired(a: Observations, b: Observations, *, seed: int = 0) -> PairedDifference | None:
    """Tests the difference a − b of two variants on the same samples.

    - 0/1 scores, no clusters: McNemar's mid-p, exact where more than 80 % of the samples differ. The interval is Tango's,
      extended towards 0 to the point where the test stops rejecting.
    - Other means: the t test, and the t test corrected for skewness (Hall, 1992); the larger p-value and the union of the
      intervals count. Within known bounds, a guard against rare large losses joins them, and `p_unguarded` is the p-value
      without it. Without bounds, no test is valid if there are too few samples for the skewness.
    - Means over clusters: CR2 instead of the t test's error; the sign-flip test joins. Nothing is shown with fewer than six
      clusters.
    - `SumRatio`: CR2 over documents. `RocArea`: DeLong. Other metrics of the whole set: the jackknife of the difference.

    Where m samples (or clusters) differ, p is at least 2 × 0.5^m except for McNemar's test, the smallest p-value of a test
    that exchanges a and b at random. In all cases, p < 0.05 exactly when 0 is outside the interval.

    Args:
        a: The variant in question.
        b: The variant it is compared with.
        seed: Seed of the sign flips of more than 13 clusters; nothing else is random.

    Returns:
        None where no test is possible: a score is not finite, or scores that are not 0/1 come from a single sample or
        cluster.

    Raises:
        ValueError: The two are not about the same samples.

    Example:
        >>> worse, better = Observations(np.zeros(9)), Observations(np.ones(9))
        >>> difference = paired(better, worse)
        >>> difference.test, difference.value, round(difference.p, 4)
        ('mcnemar mid-p', 1.0, 0.0039)
    """
    require_same_samples(a, b)
    if is_mcnemar(a, b):
        n, wins, losses = len(a), int(np.sum(a.values > b.values)), int(np.sum(a.values < b.values))
        low, high = mcnemar_interval(n, wins, losses)
        return PairedDifference((wins - losses) / n, low, high, mcnemar_p(n, wins, losses), "mcnemar mid-p")
    found = spread(a, b)
    if found is None:
        return None
    value = found.value
    low, high = t_limits(value, found.error, found.freedom)
    p = max(t_p(value, found.error, found.freedom), found.p_by_exchange)
    if found.units is not None:
        hall = found.units.skewness_corrected
        low, high = min(low, hall.limits()[0]), max(high, hall.limits()[1])
        p = max(p, hall.p)
        if a.layout.clustered and len(a.layout) >= FEWEST_CLUSTERS:
            p = max(p, flip_p(*_totals(a, b), seed=seed))
    untestable = _untestable(a, b, found)
    unguarded = p = 1.0 if untestable else p
    reach = None if found.units is None or a.layout.clustered else range_of_difference(a, b)
    if found.units is not None and reach is not None:
        lower, upper = _guards(found.units, a, b, reach)
        low, high = min(low, lower.limit()), max(high, -upper.limit())
        p = max(p, (lower if value > 0 else upper).p())
    if p >= 0.05:
        low, high = min(low, 0.0), max(high, 0.0)
    return PairedDifference(
        value, low, high, p, found.test, p_unguarded=unguarded if reach is not None else None, untestable=untestable
    )


def range_of_difference(a: Observations, b: Observations) -> float | None:
    """Returns the largest possible difference on one sample; None if it is not known."""
    if a.range is None or b.range is None:
        return None
    return max(a.range[1], b.range[1]) - min(a.range[0], b.range[0])


def win_rate(a: Observations, b: Observations, higher_is_better: bool = True) -> Interval | None:
    """Computes the share of samples on which a scored better than b, with its 95 % interval; ties count half.

    By a corpus metric such as BLEU or a perplexity, the score of a sample is the metric of that sample alone. Of 0/1 scores the
    interval is that of the difference, so it excludes one half exactly where `paired` has p < 0.05.

    Args:
        a: The variant in question.
        b: The variant it is compared with, on the same samples.
        higher_is_better: Direction of the metric.

    Returns:
        None where samples have no score of their own, or one that is not finite; and where a corpus metric gives every
        sample the same score for both, although their sums differ: then it says nothing about a single sample.

    Example:
        >>> found = win_rate(Observations([0.1, 0.5, 0.2, 0.9]), Observations([0.2, 0.5, 0.1, 0.3]))
        >>> found.value, round(found.low, 2), round(found.high, 2)
        (0.625, 0.13, 0.95)
    """
    if a.own is None or b.own is None or not (np.isfinite(a.own).all() and np.isfinite(b.own).all()):
        return None
    signs = np.sign(a.own - b.own) * (1 if higher_is_better else -1)
    if not a.is_mean and not signs.any() and (a.values != b.values).any():
        return None
    if is_mcnemar(a, b):
        wins, losses = int(np.sum(signs > 0)), int(np.sum(signs < 0))
        low, high = mcnemar_interval(len(a), wins, losses)
        return Interval(0.5 + (wins - losses) / len(a) / 2, 0.5 + low / 2, 0.5 + high / 2)
    return interval(Observations((signs + 1) / 2, groups=a.groups, clusters=a.clusters, bounds=(0.0, 1.0)))


def holm(p_values: Sequence[float], others: int = 0) -> list[float]:
    """Adjusts p-values for multiple tests, so that the chance of one false positive among all of them stays below alpha.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure" (Scandinavian Journal of Statistics 1979).

    Args:
        p_values: The p-values.
        others: Number of further tests of the family, as if they rejected last.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) + others - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True)
class PairedSpread:
    """A paired difference and its standard error."""

    test: SpreadTest
    value: float
    error: float
    freedom: float
    """Degrees of freedom of the error."""
    differing: int
    """Number of samples, or clusters, on which the two variants are not equal."""
    units: Spread | None = None
    """Of a difference of means: the differences of the units."""

    @property
    def p_by_exchange(self) -> float:
        """The smallest two-sided p-value of a test that exchanges a and b at random on the differing units."""
        return min(1.0, 2.0 ** (1 - self.differing))


def spread(a: Observations, b: Observations) -> PairedSpread | None:
    """Computes a − b and its standard error over samples; None where a score or the error is not finite."""
    if a.number is None or b.number is None:
        return None
    test: SpreadTest
    units = None
    value, layout = a.number - b.number, a.layout
    if len(layout) < 2:
        return None
    areas = isinstance(a.whole, RocArea) and not layout.clustered
    if a.is_mean:
        test, units = (
            "clustered t and sign flips" if layout.clustered else "skewness-corrected t",
            cr2(*_totals(a, b), layout.strata),
        )
        value, error, freedom = units.mean, units.error, units.freedom
    elif isinstance(a.value, SumRatio) and isinstance(b.value, SumRatio):
        test, (_, found) = "ratio t", ratio_difference(a.values, b.values, a.value, b.value, layout)
        error, freedom = found.error, found.freedom
    elif areas and (delong := area_difference(a.values.tolist(), b.values.tolist())):
        test, (value, error, freedom) = "delong", delong
    else:
        left = a.left_out - b.left_out  # both have the same layout, so the same jackknife groups
        test, error, freedom = "paired jackknife", jackknife_error(left), len(left) - 1
    if not math.isfinite(error):
        return None
    error = 0.0 if error <= 1e-12 * abs(value) else error  # such an error is only rounding
    if units is not None and error == 0:
        units = Spread(units.mean, 0.0, units.freedom, np.zeros_like(units.residuals))
    return PairedSpread(test, value, error, freedom, _differing(a, b), units)


def is_mcnemar(a: Observations, b: Observations) -> bool:
    """Whether the difference is tested by McNemar's test."""
    return a.binary and b.binary and a.clusters is None


def require_same_samples(a: Observations, b: Observations) -> None:
    """Checks that two variants were scored on the same samples.

    Raises:
        ValueError: They were not.
    """
    if a.values.shape != b.values.shape or a.groups != b.groups or a.clusters != b.clusters:
        raise ValueError("a paired difference needs the same samples in the same order, with equal groups and clusters")


def _totals(a: Observations, b: Observations) -> tuple[Array, Array]:
    """Returns the sum of the differences and the number of samples of each unit."""
    return a.layout.sums(a.values - b.values), a.layout.sums(np.ones(len(a)))


def _guards(units: Spread, a: Observations, b: Observations, reach: float) -> tuple[Guard, Guard]:
    """Makes the guards of the difference and of its reverse, as if the mean of every stratum were the overall mean."""
    differences = a.values - b.values
    shifts = [units.mean - float(differences[members].mean()) for members in a.layout.strata]
    as_one = units.mean + units.residuals
    return Guard.of(as_one, -reach + min(shifts)), Guard.of(-as_one, -reach - max(shifts))


def _untestable(a: Observations, b: Observations, found: PairedSpread) -> str | None:
    count = len(a.layout)
    if a.layout.clustered and count < FEWEST_CLUSTERS:
        return f"only {count} clusters: at least {FEWEST_CLUSTERS} are needed for a test"
    if found.units is None or (not a.layout.clustered and range_of_difference(a, b) is not None):
        return None
    needed, what = (CLUSTERS_FOR_SKEWNESS, "clusters") if a.layout.clustered else (UNITS_FOR_SKEWNESS, "samples")
    least = math.ceil(needed * found.units.skewness**2)
    if count >= least:
        return None
    return f"the differences are too skewed for {count} {what}: about {least:,} are needed for a test"


def _differing(a: Observations, b: Observations) -> int:
    unequal = (a.values != b.values).reshape(len(a), -1).any(axis=1)
    return int(np.count_nonzero(a.layout.sums(unequal.astype(np.float64))))
