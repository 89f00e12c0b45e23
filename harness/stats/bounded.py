"""Graded scores within a known range: the score interval of a mean, and a guard against rare large losses.

>>> import numpy as np
>>> low, high = score_limits(0.8, units=10, squares=1.6, freedom=9)  # eight ones and two zeros: Wilson's interval
>>> round(low, 3), round(high, 3)
(0.49, 0.943)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from harness.stats.proportions import Z
from harness.stats.units import Array

UNSEEN = 2.0
"""Samples, half at either end of the range, that join the variance of a score interval. Values from 0 to 2 were tried in
simulations: with ¼, an interval of 50 scores covered 76 % on shapes that the value was not chosen on; with 2, 95 %."""

UNSEEN_LOSS = 0.6
"""Weight of the unseen largest loss in the guard, relative to a sample. Values from 0.1 to 0.8 were tried; with 1 the guard
of 0/1 scores would be Clopper and Pearson's limit."""


def score_limits(
    mean: float, units: float, squares: float, freedom: float, *, clustered: bool = False
) -> tuple[float, float]:
    """Computes the 95 % interval of a mean of scores from 0 to 1.

    It is Wilson's interval with a variance factor: the ratio of the scores' variance, with `UNSEEN` more samples, to that of
    0/1 scores with the same mean. For 0/1 scores the factor is 1.

    Args:
        mean: The mean.
        units: Number of independent units; of clusters, their effective number.
        squares: Sum of the squared differences of the units from the mean.
        freedom: Degrees of freedom of the variance.
        clustered: Whether a unit is a cluster; then the scores of units are estimates even if all samples score 0 or 1.
    """
    factor = 1.0
    if mean not in (0.0, 1.0):
        joined = (units * mean + UNSEEN / 2) / (units + UNSEEN)
        spread = squares + units * (mean - joined) ** 2 + UNSEEN / 2 * (joined**2 + (1 - joined) ** 2)
        factor = min(1.0, spread / ((units + UNSEEN) * joined * (1 - joined)))
    known = factor > 1 - 1e-9 and not clustered  # 0/1 scores: the mean determines the variance
    quantile = Z if known else float(special.stdtrit(freedom, 0.975))
    return score_ends(mean, quantile**2 * factor / units)


def score_ends(mean: float, squared: float) -> tuple[float, float]:
    """Solves (mean − x)² = squared × x × (1 − x) for x."""
    center = (mean + squared / 2) / (1 + squared)
    half = math.sqrt(squared * (mean * (1 - mean) + squared / 4)) / (1 + squared)
    return min(mean, max(0.0, center - half)), max(mean, min(1.0, center + half))


@dataclass(frozen=True, eq=False)
class Guard:
    """A lower limit of a mean that allows for one sample with the worst value, which was not seen.

    If 2 % of the samples lose much and none of them was drawn, the others seem to show a gain. The guard gives the samples
    random weights (a Dirichlet distribution), and the worst value a smaller random weight: the p-value is the probability
    that the weighted mean is not above 0, by the saddlepoint approximation of Lugannani and Rice ("Saddle Point
    Approximation for the Distribution of the Sum of Independent Random Variables", 1980).

    Args:
        values: Distinct values of the samples.
        counts: How often each occurs.
        worst: The smallest possible value.

    Example:
        >>> Guard.of(np.full(100, 0.01), -1.0).p() > 0.2  # a small gain on every sample does not exclude large losses
        True
    """

    values: Array
    counts: Array
    worst: float

    @classmethod
    def of(cls, values: Array, worst: float) -> Guard:
        """Makes the guard of `[n]` values."""
        distinct, counts = np.unique(values, return_counts=True)
        return cls(distinct, counts.astype(np.float64), worst)

    def p(self) -> float:
        """The two-sided p-value of a mean above 0."""
        return min(1.0, 2 * float(self.below(0.0)))

    def limit(self, tail: float = 0.025) -> float:
        """Computes the value that the weighted mean is below with probability `tail`."""
        mean = float(self.values @ self.counts / self.counts.sum())
        if self.worst >= mean:
            return mean
        span = mean - self.worst
        return float(
            optimize.brentq(lambda x: self.below(x) - tail, self.worst, mean, xtol=1e-7 * span, disp=False)
        )  # the probability is 0 at the worst value, and at least a half at the mean

    def below(self, x: float) -> float:
        """Computes the probability that the weighted mean is at most x."""
        v = np.append(self.values - x, self.worst - x)
        w = np.append(self.counts, UNSEEN_LOSS)
        t = 0.0
        least, most = float(v.min()), float(v.max())
        if most <= 0 or least >= 0:
            return 1.0 if most <= 0 else 0.0
        low, high = (1 - 1e-12) / least, (1 - 1e-12) / most
        for _ in range(60):  # Newton's method, kept between the poles of the cumulant generating function
            r = v / (1 - t * v)
            slope, curve = float(w @ r), float(w @ (r * r))
            low, high = (t, high) if slope < 0 else (low, t)
            new = t - slope / curve
            new = new if low < new < high else (low + high) / 2
            if abs(new - t) < 1e-10 * (1 + abs(t)):
                break
            t = new
        root = math.copysign(math.sqrt(max(0.0, 2 * float(w @ np.log1p(-t * v)))), t)
        if abs(root) < 1e-4:  # the limit of the formula below at the mean
            skewness: float = 2 * float(w @ v**3) / float(w @ v**2) ** 1.5
            return 0.5 + skewness / (6 * math.sqrt(2 * math.pi))
        scaled = t * math.sqrt(float(w @ (v / (1 - t * v)) ** 2))
        density = math.exp(-root * root / 2) / math.sqrt(2 * math.pi)
        below = float(special.ndtr(root) + density * (1 / root - 1 / scaled))
        return min(1.0, max(0.0, below))
