"""What several trainings of one variant say together: of the method, not of one trained model.

A score then varies for two reasons, the samples that were asked and the seed (or fold) that was trained with, and both are
in its error. The part of the samples is that of the mean over trainings, sample by sample; the part of the trainings is
their variance over their number. Each part's margin is a t margin with degrees of freedom of its own, and the margins are
added in quadrature (after Cochran, "Approximate Significance Levels of the Behrens-Fisher Test", Biometrics 1964): wider
than Satterthwaite's single t, whose intervals cover 88 % where 95 % are said when there are two seeds.

Trainings on k folds share most of their rows, so that they differ less from one another than trainings on other data would.
The variance over them is therefore taken times 1/k + 1/(k - 1) instead of 1/k, the second term being the rows held out over
those trained on (Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 2003).

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
    """A score over several trainings."""

    value: float
    deviation: float
    """Standard deviation over the trainings."""
    low: float | None
    high: float | None
    """95 % interval of the method's score: other samples, other trainings."""


def mean(trainings: Sequence[Observations], *, folds: int | None = None, seed: int = 0) -> Mean | None:
    """The mean score over trainings of one variant; the margins of samples and trainings are added in quadrature.

    Args:
        trainings: The same samples, scored after each training; two at least.
        folds: Of how many parts of the data each training leaves one out; None: all are on the same data.
        seed: Of the resampling.

    Returns:
        None where a score is not finite.
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
    """The mean of one number a training (a held-out loss); t over the trainings alone, `folds` as in `mean`.

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
    """The difference of two means over trainings, a − b; one of the two may be a single model.

    Args:
        a: The samples as scored after each training of the one.
        b: Of the other.
        folds: As in `mean`.
        seed: Of the resampling.

    Returns:
        None where a score is not finite, or nothing tells how it varies.
    """
    first, second = _values(a), _values(b)
    if first is None or second is None:
        return None
    # Both repeated to one length, so that sample by sample there are as many statistics on either side.
    count = math.lcm(len(a), len(b))
    found = spread(_together([*a] * (count // len(a))), _together([*b] * (count // len(b))), seed)
    if found is None:
        return None
    parts = [(found.error, found.freedom)]
    parts += [(_error(values, folds), len(values) - 1) for values in (first, second) if len(values) > 1]
    value = float(np.mean(first) - np.mean(second))
    margin = _margin(parts, 0.05)
    if margin == 0 and found.differing == 0:  # equal on all that was seen says nothing of how far apart they may be
        return None
    p = max(_chance_of(value, parts), found.p_by_exchange)
    low, high = value - margin, value + margin
    return Difference(value, *((min(low, 0.0), max(high, 0.0)) if p >= 0.05 else (low, high)), p)


def _margin(parts: Sequence[tuple[float, int]], level: float) -> float:
    """Half an interval: of standard errors with their degrees of freedom, t margins added in quadrature."""
    return math.hypot(*(float(special.stdtrit(freedom, 1 - level / 2)) * error for error, freedom in parts))


def _chance_of(value: float, parts: Sequence[tuple[float, int]]) -> float:
    """The level whose interval ends at 0."""
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
    """One set of observations whose number is the mean of the trainings' numbers."""
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
