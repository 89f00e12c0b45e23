"""Scores over several training runs of one variant: statistics of the method, not of one trained model.

Such a score varies for two reasons: the samples, and the seed (or fold) of the training run. Its error includes both. The
error over samples is that of the mean over training runs, computed sample by sample; it contains the noise of sample × seed
once. So the variance of a training run's number is taken without that noise, never below 0, and divided by their number.
Each error gives a t margin with its own degrees of freedom, and the margins are added in quadrature (after Cochran,
"Approximate Significance Levels of the Behrens-Fisher Test", Biometrics 1964). Two training runs decide nothing: the
intervals of true methods with k = 2 cover 91 to 98 %.

Training runs on k folds share most of their rows, so they differ less than training runs on independent data would.
Therefore their variance is multiplied by 1/k + 1/(k - 1) instead of 1/k; the second term is the ratio of held-out rows to
training rows (Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 2003).

    >>> import numpy as np
    >>> seeds = [Observations(np.repeat([1.0, 0.0], [right, 100 - right])) for right in (80, 84, 82)]
    >>> base = Observations(np.repeat([1.0, 0.0], [50, 50]))
    >>> found = difference(seeds, [base])
    >>> round(found.value, 3), round(found.p, 3)
    (0.32, 0.001)
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
from harness.stats.paired import Difference, PairedSpread, spread
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


def mean(trainings: Sequence[Observations], *, folds: int | None = None) -> Mean | None:
    """Computes the mean score over training runs; the margins of samples and training runs are added in quadrature.

    Args:
        trainings: The same samples, scored after each of at least two training runs.
        folds: Number of folds, if each training run leaves out one; None if all use the same data.

    Returns:
        None if a score is not finite.
    """
    values = _values(trainings)
    if values is None:
        return None
    together = _together(trainings)
    over_samples = interval(together)
    center, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    if over_samples.low is None or over_samples.high is None:
        return Mean(center, deviation, None, None)
    margin = _margin([_of_seeds(trainings, values, folds)], 0.05)
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
    margin = _margin([(deviation * math.sqrt(_factor(len(values), folds)), len(values) - 1)], 0.05)
    return Mean(center, deviation, center - margin, center + margin)


def difference(a: Sequence[Observations], b: Sequence[Observations], *, folds: int | None = None) -> Difference | None:
    """Tests the difference a − b of two means over training runs; one of the two may be a single model.

    Args:
        a: The samples as scored after each training run of the first variant.
        b: The same samples as scored after each training run of the second variant.
        folds: As in `mean`.

    Returns:
        None if a score is not finite or the spread is unknown.
    """
    first, second = _values(a), _values(b)
    if first is None or second is None:
        return None
    # Repeating both to the same length gives both the same number of statistics per sample.
    count = math.lcm(len(a), len(b))
    found = spread(_together([*a] * (count // len(a))), _together([*b] * (count // len(b))))
    if found is None:
        return None
    parts = [(found.error, found.freedom)]
    parts += [_of_seeds(runs, values, folds) for runs, values in ((a, first), (b, second)) if len(values) > 1]
    value = float(np.mean(first) - np.mean(second))
    margin = _margin(parts, 0.05)
    if margin == 0 and found.differing == 0:  # no differing sample gives no information about the spread
        return None
    untestable = "two training runs decide nothing: at least three are needed" if 2 in (len(a), len(b)) else None
    p = 1.0 if untestable else max(_p_value(value, parts), found.p_by_exchange)
    low, high = value - margin, value + margin
    if p >= 0.05:
        low, high = min(low, 0.0), max(high, 0.0)
    return Difference(value, low, high, p, untestable=untestable)


def _margin(parts: Sequence[tuple[float, float]], level: float) -> float:
    """Adds t margins in quadrature; each part is a standard error with its degrees of freedom."""
    return math.hypot(*(float(special.stdtrit(freedom, 1 - level / 2)) * error for error, freedom in parts))


def _p_value(value: float, parts: Sequence[tuple[float, float]]) -> float:
    """Finds the level at which the interval ends at 0."""
    if value == 0 or _margin(parts, 0.05) == 0:
        return float(value == 0)
    return boundary(0.0, 1.0, lambda level: level == 0.0 or _margin(parts, level) > abs(value))


def _of_seeds(trainings: Sequence[Observations], values: Sequence[float], folds: int | None) -> tuple[float, float]:
    """Computes the error that the seeds add to the mean, and its degrees of freedom."""
    count, together = len(trainings), _together(trainings)
    # The runs' errors around their mean, squared and summed, are (k - 1) times the variance of the sample × seed noise.
    apart = [_around(each, together, count) for each in trainings]
    noise = sum(each.error**2 for each in apart if each is not None) / (count - 1)
    variance = max(0.0, float(np.var(values, ddof=1)) - noise)
    return math.sqrt(variance * _factor(count, folds)), count - 1


def _around(training: Observations, together: Observations, count: int) -> PairedSpread | None:
    """Computes the spread of one training run around the mean of all."""
    return spread(_together([training] * count), together)


def _factor(count: int, folds: int | None) -> float:
    return 1 / count + (0.0 if folds is None else 1 / (folds - 1))


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
        return Observations(rows, groups=first.groups, clusters=first.clusters, whole=of_each, bounds=first.bounds)
    if first.value is None:
        averaged = np.mean([each.values for each in trainings], axis=0)
        return Observations(averaged, None, first.groups, first.clusters, bounds=first.range or first.bounds)
    value, width = first.value, first.values.shape[1]

    def of_sums(sums: tuple[float, ...]) -> float:
        return math.fsum(value(sums[start : start + width]) for start in range(0, len(sums), width)) / count

    table = np.hstack([each.values for each in trainings])
    return Observations(table, of_sums, first.groups, first.clusters, bounds=first.bounds)
