"""The standard error of a mean of units, and t intervals that are corrected for skewness.

A mean is the sum of the units' totals, divided by the sum of their sizes. The error is CR2 (Bell and McCaffrey, "Bias
Reduction in Standard Errors for Linear Regression With Multi-Stage Samples", Survey Methodology 2002), which is unbiased
for few units and for units of unequal sizes; its degrees of freedom are Satterthwaite's under a working variance. With
units of one size it is the error of the t test.

    >>> import numpy as np
    >>> from harness.stats.units import Layout
    >>> found = cr2(np.array([1.0, 2.0, 6.0]), np.ones(3), Layout.of(3).strata)
    >>> found.mean, round(found.error, 4), round(found.freedom, 6)
    (3.0, 1.5275, 2.0)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.stats.units import Array


@dataclass(frozen=True, eq=False)
class Spread:
    """A mean and its standard error over units."""

    mean: float
    error: float
    """Standard error; NaN for a single unit."""
    freedom: float
    """Degrees of freedom of the error."""
    residuals: Array
    """`[units]` totals, less the size of the unit times the mean of its stratum."""

    @property
    def skewness(self) -> float:
        """Skewness of the residuals; 0 if they do not vary."""
        variance = float(np.mean(self.residuals**2))
        return float(np.mean(self.residuals**3)) / variance**1.5 if variance > 1e-24 else 0.0

    @property
    def skewness_corrected(self) -> HallLimits:
        """Hall's limits of the mean."""
        return HallLimits(self.mean, self.error, self.freedom, self.skewness, len(self.residuals))


def cr2(totals: Array, sizes: Array, strata: Sequence[NDArray[np.intp]], correlation: float = 0.0) -> Spread:
    """Computes a mean, its CR2 error and the error's degrees of freedom.

    Args:
        totals: `[units]` sums over each unit.
        sizes: `[units]` number of samples, or of words, of each unit.
        strata: Indices of the units in each stratum.
        correlation: Correlation ρ of two samples of a unit in the working variance of a total: size × (1 − ρ) + size² × ρ.
            It decides the degrees of freedom only.
    """
    squares = trace = square = 0.0
    residuals = np.zeros(len(totals))
    for members in strata:
        total, size = totals[members], sizes[members]
        share = size / size.sum()
        residual = total - share * total.sum()
        adjustment = 1 / np.sqrt(np.maximum(1 - share, 1e-12))
        residuals[members] = residual
        squares += float(np.sum((adjustment * residual) ** 2))
        variance = size * (1 - correlation) + size**2 * correlation
        # Moments of the quadratic form above under the working variance; d, u, w: its diagonal and rank-one parts.
        d, u, w, whole = adjustment**2 * variance, adjustment * share, adjustment * variance, variance.sum()
        uu, uw = u @ u, u @ w
        trace += float(d.sum() - 2 * uw + whole * uu)
        square += float(
            d @ d + 2 * (uu * (w @ w) + uw**2) + (whole * uu) ** 2 - 4 * (d * u) @ w + 2 * whole * (d * u) @ u
            - 4 * whole * uu * uw
        )  # fmt: skip
    whole_size = float(sizes.sum())
    error = math.sqrt(squares) / whole_size if len(totals) > 1 else math.nan
    freedom = max(1.0, trace**2 / square) if square > 0 else 1.0
    return Spread(math.fsum(totals) / whole_size, error, freedom, residuals)


def t_limits(value: float, error: float, freedom: float, tail: float = 0.025) -> tuple[float, float]:
    """Computes the ends of a t interval with this probability outside of either end."""
    margin = -float(special.stdtrit(freedom, tail)) * error
    return value - margin, value + margin


def t_p(value: float, error: float, freedom: float) -> float:
    """Computes the two-sided p-value of a t test; 0 without an error, unless the value is 0, too."""
    if error == 0:
        return float(value == 0)
    return 2 * float(special.stdtr(freedom, -abs(value) / error))


@dataclass(frozen=True)
class HallLimits:
    """A t interval corrected for skewness: Hall, "On the Removal of Skewness by Transformation" (JRSS B 1992)."""

    mean: float
    error: float
    freedom: float
    skewness: float
    units: int

    def limits(self, tail: float = 0.025) -> tuple[float, float]:
        """Computes the ends of the interval with this probability outside of either end."""
        quantile = -float(special.stdtrit(self.freedom, tail))
        return self.mean - self._back(quantile) * self.error, self.mean - self._back(-quantile) * self.error

    @property
    def p(self) -> float:
        """The two-sided p-value; 1 if the correction reverses the sign of the mean."""
        if self.error == 0:
            return float(self.mean == 0)
        t, root = self.mean / self.error, math.sqrt(self.units)
        g = self.skewness
        corrected = t + g / (3 * root) * t**2 + g**2 / (27 * self.units) * t**3 + g / (6 * root)
        return min(1.0, 2 * float(special.stdtr(self.freedom, -corrected * math.copysign(1, t))))

    def _back(self, corrected: float) -> float:
        """Inverts the correction, which grows with t."""
        scale, shift = self.skewness / 3 / math.sqrt(self.units), self.skewness / 6 / math.sqrt(self.units)
        if abs(scale) < 1e-9:
            return corrected - shift
        return (float(np.cbrt(1 + 3 * scale * (corrected - shift))) - 1) / scale
