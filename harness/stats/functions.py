"""Functions of the whole set that have an interval of their own: ratios, means over labels, areas under ROC curves.

A metric uses one as its `value` or `whole`. They need no scipy, so metrics load quickly.

    >>> SumRatio()((3.0, 4.0)), RocArea()([[1, 2.0], [0, 1.0], [1, 0.5]])
    (0.75, 0.5)
    >>> F1((1.0, 1.0, 2.0, 1.0, 1.0, 2.0))  # two labels: found, predicted, wanted
    0.6666666666666666
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.stats.units import Array


def _same(mean: float) -> float:
    return mean


@dataclass(frozen=True)
class SumRatio:
    """The `value` of a metric whose sums are a total and a size; NaN for a size of 0.

    Args:
        of: Monotone function of total / size, such as the exponential of a mean loss.

    Example:
        >>> SumRatio(lambda mean: 2 * mean)((1.0, 4.0))
        0.5
    """

    of: Callable[[float], float] = _same

    def __call__(self, sums: tuple[float, ...]) -> float:
        total, size = sums
        return self.of(total / size) if size else math.nan

    def slope(self, mean: float) -> float:
        """Computes the derivative at a mean, numerically."""
        step = 1e-6 * max(1.0, abs(mean))
        return (self.of(mean + step) - self.of(mean - step)) / (2 * step)


@dataclass(frozen=True)
class LabelMean:
    """The `value` of a metric whose sums are found, predicted and wanted, each for all k labels.

    The number of a label is `weight` × found / (predicted and wanted, each as often as given).
    """

    weight: int
    predicted: int
    wanted: int

    def __call__(self, sums: tuple[float, ...]) -> float:
        if not np.isfinite(sums).all():
            return math.nan
        found, predicted, wanted = np.reshape(sums, (3, -1))
        occurs = predicted + wanted > 0
        of = self.predicted * predicted + self.wanted * wanted
        return float((self.weight * found[occurs] / np.maximum(of[occurs], 1)).mean())


F1 = LabelMean(weight=2, predicted=1, wanted=1)
PRECISION = LabelMean(weight=1, predicted=1, wanted=0)
RECALL = LabelMean(weight=1, predicted=0, wanted=1)


class RocArea:
    """The `whole` of a metric whose rows are [answer, scores of the labels]; with a single score, that of the second label.

    With several scores, the area of each label against the others is averaged over the labels that occur.
    """

    def __call__(self, gathered: Sequence[Any]) -> float:
        table = np.asarray(gathered, dtype=np.float64)
        if not np.isfinite(table[:, 1:]).all():
            return math.nan
        areas = [float(positive.mean()) for _, positive, _ in components(table)]
        if not areas:
            raise ValueError("no sample has the second label, so there is no AUC")
        return sum(areas) / len(areas)


def components(table: Array) -> list[tuple[NDArray[np.bool_], Array, Array]]:
    """By label: which samples are positive, and DeLong's components of the positive and of the negative samples.

    The component of a sample is the share of the other class on the right side of it; ties are half.
    """
    answers, scores = table[:, 0], table[:, 1:]
    columns = [(1, scores[:, 0])] if scores.shape[1] == 1 else list(enumerate(scores.T))
    found = []
    for label, score in columns:
        positive = answers == label
        if not positive.any():
            continue
        if positive.all():
            raise ValueError("all samples have the same label, so there is no AUC")
        above, below = score[positive], score[~positive]
        found.append((positive, _share_below(above, below), 1 - _share_below(below, above)))
    return found


def _share_below(scores: Array, others: Array) -> Array:
    ordered = np.sort(others)
    return (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / (2 * len(others))
