"""The difference between two variants that were scored on the same samples: its interval, its p-value, its power.

All variants are scored on the same samples, so differences are computed sample by sample. Everything here is a pure
function of its arguments and its seed.

    >>> import numpy as np
    >>> lora, base = Observations(np.repeat([1, 0], [18, 2])), Observations(np.repeat([1, 0], [9, 11]))
    >>> round(paired(lora, base).p, 4)
    0.0039
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from harness.stats.observations import Observations
from harness.stats.proportions import mcnemar_interval, mcnemar_p, smallest_shown
from harness.stats.resampling import bootstrap, jackknife_error, spread_of

SpreadTest = Literal["paired bootstrap", "clustered t", "paired jackknife"]
Test = Literal["mcnemar"] | SpreadTest


@dataclass(frozen=True)
class Difference:
    """A difference a − b, its 95 % interval, and the probability that chance alone shows one as large."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class PairedDifference(Difference):
    """A difference between two variants on the same samples, and the test that gave its p-value."""

    test: Test
    warning: str | None = None


def paired(a: Observations, b: Observations, *, seed: int = 0) -> PairedDifference | None:
    """Tests the difference a − b of two variants on the same samples.

    - 0/1 scores, no clusters: McNemar's exact test. The interval is Tango's score interval (Statistics in Medicine
      1998), extended towards 0 to the point where the exact test stops rejecting.
    - Otherwise the paired bootstrap, stratified by group and drawn by whole clusters: t distribution with the
      bootstrap's standard error. Where m samples differ, p is at least 2 × 0.5^m, the smallest p-value of a test that
      exchanges a and b at random. So fewer than six differing samples are never significant.
    - Fewer than ten clusters: the same t distribution with the jackknife's error and G − 1 degrees of freedom, without
      strata, and with a warning.
    - Metrics of the whole set: the jackknife of the difference, leaving out the same samples of both; t with one degree
      of freedom less than there are jackknife groups, and the smallest p-value of the second point.

    In all four cases, p < 0.05 exactly when 0 is outside the interval.

    Args:
        a: The variant in question.
        b: The variant it is compared with.
        seed: Seed of the resampling.

    Returns:
        None where no test is possible: a score is not finite, or scores that are not 0/1 come from a single sample or
        cluster.

    Raises:
        ValueError: The two are not about the same samples.

    Example:
        >>> worse, better = Observations(np.zeros(9)), Observations(np.ones(9))
        >>> difference = paired(better, worse)
        >>> difference.test, difference.value, round(difference.p, 4)
        ('mcnemar', 1.0, 0.0039)
    """
    _require_same_samples(a, b)
    if _is_exact(a, b):
        n, wins, losses = len(a), int(np.sum(a.values > b.values)), int(np.sum(a.values < b.values))
        low, high = mcnemar_interval(n, wins, losses)
        return PairedDifference((wins - losses) / n, low, high, mcnemar_p(wins, losses), "mcnemar")
    found = spread(a, b, seed)
    if found is None:
        return None
    value, error = found.value, found.error
    margin = -float(special.stdtrit(found.freedom, 0.025)) * error
    low, high = value - margin, value + margin
    p = 2 * float(special.stdtr(found.freedom, -abs(value) / error)) if error > 0 else 0.0
    if error == 0 or not a.few_clusters:
        p = max(p, found.p_by_exchange)
        if p >= 0.05:
            low, high = min(low, 0.0), max(high, 0.0)
    warning = f"only {found.units} clusters: a rough estimate" if a.few_clusters else None
    return PairedDifference(value, low, high, p, found.test, warning)


def smallest_difference(
    a: Observations, b: Observations, *, power: float = 0.8, alpha: float = 0.05, seed: int = 0
) -> float | None:
    """Computes the smallest true difference that a test on these samples would detect.

    0/1 scores: the smallest d that McNemar's exact test at `alpha` detects with probability `power`, when a share
    max(s, d) of the samples differs; s is the share that differed here. Other scores: (t_{1 − alpha/2} + t_power) × the
    standard error of the paired difference.

    Args:
        a: The scores of one variant.
        b: The scores of the other, on the same samples.
        power: Probability of detecting the difference.
        alpha: Level of the two-sided test.
        seed: Seed of the resampling.

    Returns:
        The difference in the metric's own scale; None where no difference could be detected or the spread is unknown.

    Example:
        >>> round(smallest_difference(Observations(np.ones(100)), Observations(np.ones(100))), 3)
        0.078
    """
    _require_same_samples(a, b)
    if _is_exact(a, b):
        return smallest_shown(len(a), float(np.mean(a.values != b.values)), power=power, alpha=alpha)
    found = spread(a, b, seed)
    if found is None or found.error == 0:
        return None
    return float(special.stdtrit(found.freedom, 1 - alpha / 2) + special.stdtrit(found.freedom, power)) * found.error


def win_rate(a: Observations, b: Observations, higher_is_better: bool = True) -> float | None:
    """Computes the share of samples on which a scored better than b; ties count half.

    Args:
        a: The variant in question.
        b: The variant it is compared with, on the same samples.
        higher_is_better: Direction of the metric.

    Returns:
        None where samples have no score of their own, or one that is not finite.

    Example:
        >>> win_rate(Observations([0.1, 0.5, 0.2, 0.9]), Observations([0.2, 0.5, 0.1, 0.3]))
        0.625
    """
    if a.value is not None or a.whole is not None or not np.isfinite([*a.values, *b.values]).all():
        return None
    won = np.sign(a.values - b.values) * (1 if higher_is_better else -1)
    return float(np.mean((won + 1) / 2))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values for multiple tests, so that the chance of one false positive among all of them stays below alpha.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure" (Scandinavian Journal of Statistics 1979).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True)
class Spread:
    """A paired difference and its standard error."""

    test: SpreadTest
    value: float
    error: float
    freedom: int
    """Degrees of freedom of the error."""
    units: int
    differing: int
    """Number of samples, or clusters, on which the two variants are not equal."""

    @property
    def p_by_exchange(self) -> float:
        """The smallest two-sided p-value of a test that exchanges a and b at random on the differing units."""
        return min(1.0, 2.0 ** (1 - self.differing))


def spread(a: Observations, b: Observations, seed: int) -> Spread | None:
    """Computes a − b and its standard error over samples; None where a score or the error is not finite."""
    if a.number is None or b.number is None:
        return None
    test: SpreadTest
    if a.whole is not None:
        left = a.left_out - b.left_out  # both have the same labels, so the same jackknife groups
        test, count, freedom, error = "paired jackknife", len(left), len(left) - 1, spread_of(left)
    else:
        units = a.units_of_difference(b)
        count = len(units)
        if a.few_clusters:
            test, freedom, error = "clustered t", count - 1, jackknife_error(units)
        elif count > 1:
            draws = bootstrap(units, seed=seed, resamples=a.resamples)
            test, freedom, error = "paired bootstrap", units.freedom, float(np.std(draws, ddof=1))
        else:
            return None
    if count < 2 or not math.isfinite(error):
        return None
    value = a.number - b.number
    error = 0.0 if error <= 1e-12 * abs(value) else error  # such an error is only rounding
    return Spread(test, value, error, freedom, count, _differing(a, b))


def _differing(a: Observations, b: Observations) -> int:
    unequal = (a.values != b.values).reshape(len(a), -1).any(axis=1)
    if a.clusters is None:
        return int(unequal.sum())
    return len({cluster for cluster, differs in zip(a.clusters, unequal.tolist(), strict=True) if differs})


def _is_exact(a: Observations, b: Observations) -> bool:
    return a.binary and b.binary and a.clusters is None


def _require_same_samples(a: Observations, b: Observations) -> None:
    if a.values.shape != b.values.shape or a.groups != b.groups or a.clusters != b.clusters:
        raise ValueError("a paired difference needs the same samples in the same order, with equal groups and clusters")
