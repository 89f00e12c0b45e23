"""Ratios of measured times with their 95 % intervals, for latencies and training times.

Times are positive and vary by factors, so means and errors are those of their logarithms: the interval of a ratio lies
between two factors, and the interval of `a / b` is the reciprocal of that of `b / a`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

_LEVEL = 0.975


@dataclass(frozen=True)
class Ratio:
    """A ratio of times and its 95 % interval, which is unknown (None) with fewer than two measurements."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def precision(self) -> float:
        """Half the width of the interval, as a share of the value; infinite if the interval is unknown."""
        if self.low is None or self.high is None:
            return math.inf
        return math.sqrt(self.high / self.low) - 1


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Computes the ratio of times that were measured in turn, by the t distribution of the logarithms of each pair's ratio.

    A change of the machine's speed affects both members of a pair, so it widens the interval little.

    Example:
        >>> paired_ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
        Ratio(value=2.0, low=2.0, high=2.0)
    """
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    mean, variance = _moments(logs)
    return _ratio(mean, math.sqrt(variance / len(logs)), len(logs) - 1)


def unpaired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Computes the ratio of times that were measured apart, by Welch's t interval of the difference of their logarithms.

    Source: Welch, "The generalization of 'Student's' problem when several different population variances are involved"
    (Biometrika 34, 1947).
    """
    (mean_a, var_a), (mean_b, var_b) = _moments([math.log(a) for a in ours]), _moments([math.log(b) for b in theirs])
    if min(len(ours), len(theirs)) < 2:
        return _ratio(mean_a - mean_b, 0.0, 0)
    part_a, part_b = var_a / len(ours), var_b / len(theirs)
    spread = part_a**2 / (len(ours) - 1) + part_b**2 / (len(theirs) - 1)
    freedom = (part_a + part_b) ** 2 / spread if spread else 1
    return _ratio(mean_a - mean_b, math.sqrt(part_a + part_b), freedom)


def spread_of(times: Sequence[float]) -> float:
    """Computes half the width of the 95 % interval of a mean time, as a share of it; infinite with fewer than two times.

    Example:
        >>> spread_of([1.0, 1.0, 1.0])
        0.0
    """
    return paired_ratio(times, [1.0] * len(times)).precision


def _ratio(mean: float, error: float, freedom: float) -> Ratio:
    if freedom < 1:
        return Ratio(math.exp(mean))
    reach = float(special.stdtrit(freedom, _LEVEL)) * error
    return Ratio(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample variance; the variance of a single value is zero."""
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
