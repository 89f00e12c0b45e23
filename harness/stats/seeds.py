"""Scores over several training runs of one variant: statistics of the method, not of one trained model.

Such a score varies for two reasons: the samples, and the seed (or fold) of the training run. Its error includes both. The
error over samples is that of the mean over training runs, computed sample by sample; the squared error over training runs
is their variance divided by their number. Each error gives a t margin with its own degrees of freedom, and the margins are
added in quadrature (after Cochran, "Approximate Significance Levels of the Behrens-Fisher Test", Biometrics 1964). This is
wider than Satterthwaite's single t, whose 95 % intervals cover only 88 % with two seeds.

Training runs on k folds share most of their rows, so they differ less than training runs on independent data would.
Therefore their variance is multiplied by 1/k + 1/(k - 1) instead of 1/k; the second term is the ratio of held-out rows to
training rows (Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 2003).

    >>> import numpy as np
    >>> seeds = [Observations(np.repeat([1.0, 0.0], [right, 100 - right])) for right in (80, 84, 82)]
    >>> base = Observations(np.repeat([1.0, 0.0], [50, 50]))
    >>> found = difference(seeds, [base])
    >>> round(found.value, 3), round(found.p, 3)
    (0.32, 0.002)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from harness.stats.intervals import interval
from harness.stats.observations import Observations
from harness.stats.paired import Difference, spread
from harness.stats.proportions import boundary


@dataclass(frozen=True)
class Mean:
    """The mean score over several training runs."""

    value: float
    deviation: float
    """Standard deviation over the training runs."""
    low: float | None
    high: float | None
    """95 % interval of the method's score, over samples and training runs."""


def mean(trainings: Sequence[Observations], *, folds: int | None = None, seed: int = 0) -> Mean | None:
    """Computes the mean score over training runs; the margins of samples and training runs are added in quadrature.

    Args:
        trainings: The same samples, scored after each of at least two training runs.
        folds: Number of folds, if each training run leaves out one; None if all use the same data.
        seed: Seed of the resampling.

    Returns:
        None if a score is not finite.
    """
    values = _values(trainings)
    if values is None:
        return None
    over_samples = interval(_together(trainings), seed=seed)
    center, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    if over_samples.low is None or over_samples.high is None:
        return Mean(center, deviation, None, None)
    margin = _margin([(_error(values, folds), len(values) - 1)], 0.05)
    low = center - math.hypot(center - over_samples.low, margin)
    high = center + math.hypot(over_samples.high - center, margin)
    return Mean(center, deviation, low, high)


def mean_of_numbers(values: Sequence[float], *, folds: int | None = None) -> Mean:
    """Computes the mean of one number per training run, such as a held-out loss; `folds` as in `mean`.

    Example:
        >>> found = mean_of_numbers([1.0, 2.0, 3.0])
        >>> found.value, found.deviation, round(found.high, 2)
        (2.0, 1.0, 4.48)
        >>> round(mean_of_numbers([1.0, 2.0, 3.0], folds=3).high, 2)
        5.93
    """
    center, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    margin = _margin([(_error(values, folds), len(values) - 1)], 0.05)
    return Mean(center, deviation, center - margin, center + margin)


def difference(
    a: Sequence[Observations], b: Sequence[Observations], *, folds: int | None = None, seed: int = 0
) -> Difference | None:
    """Tests the difference a − b of two means over training runs; one of the two may be a single model.

    Args:
        a: The samples as scored after each training run of the first variant.
        b: The same samples as scored after each training run of the second variant.
        folds: As in `mean`.
        seed: Seed of the resampling.

    Returns:
        None if a score is not finite or the spread is unknown.
    """
    first, second = _values(a), _values(b)
    if first is None or second is None:
        return None
    # Repeating both to the same length gives both the same number of statistics per sample.
    count = math.lcm(len(a), len(b))
    found = spread(_together([*a] * (count // len(a))), _together([*b] * (count // len(b))), seed)
    if found is None:
        return None
    parts = [(found.error, found.freedom)]
    parts += [(_error(values, folds), len(values) - 1) for values in (first, second) if len(values) > 1]
    value = float(np.mean(first) - np.mean(second))
    margin = _margin(parts, 0.05)
    if margin == 0 and found.differing == 0:  # no differing sample gives no information about the spread
        return None
    p = max(_p_value(value, parts), found.p_by_exchange)
    low, high = value - margin, value + margin
    return Difference(value, *((min(low, 0.0), max(high, 0.0)) if p >= 0.05 else (low, high)), p)


def _margin(parts: Sequence[tuple[float, int]], level: float) -> float:
    """Adds t margins in quadrature; each part is a standard error with its degrees of freedom."""
    return math.hypot(*(float(special.stdtrit(freedom, 1 - level / 2)) * error for error, freedom in parts))


def _p_value(value: float, parts: Sequence[tuple[float, int]]) -> float:
    """Finds the level at which the interval ends at 0."""
    if value == 0 or _margin(parts, 0.05) == 0:
        return float(value == 0)
    return boundary(0.0, 1.0, lambda level: level == 0.0 or _margin(parts, level) > abs(value))


def _error(values: Sequence[float], folds: int | None) -> float:
    shared = 0.0 if folds is None else 1 / (folds - 1)
    return float(np.std(values, ddof=1)) * math.sqrt(1 / len(values) + shared)


def _values(trainings: Sequence[Observations]) -> list[float] | None:
    known = [each.number for each in trainings if each.number is not None]
    return known if len(known) == len(trainings) else None


def _together(trainings: Sequence[Observations]) -> Observations:
    """Makes one set of observations whose number is the mean of the training runs' numbers."""
    first, count = trainings[0], len(trainings)
    if first.whole is not None:
        whole = first.whole

        def of_each(rows: Sequence[Any]) -> float:
            return math.fsum(whole([row[index] for row in rows]) for index in range(count)) / count

        rows = list(zip(*(each.values.tolist() for each in trainings), strict=True))
        return Observations(rows, groups=first.groups, clusters=first.clusters, whole=of_each)
    if first.value is None:
        return Observations(np.mean([each.values for each in trainings], axis=0), None, first.groups, first.clusters)
    value, width = first.value, first.values.shape[1]

    def of_sums(sums: tuple[float, ...]) -> float:
        return math.fsum(value(sums[start : start + width]) for start in range(0, len(sums), width)) / count

    return Observations(np.hstack([each.values for each in trainings]), of_sums, first.groups, first.clusters)
