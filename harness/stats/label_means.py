"""The interval of a `LabelMean`: precision, recall or F1 of each label, averaged over the labels that occur.

>>> from harness.stats.functions import F1
>>> always_right = np.tile([1.0, 0.0, 1.0, 0.0, 1.0, 0.0], (20, 1))  # of two labels, one occurs
>>> low, high = label_mean_limits(F1, always_right)
>>> round(low, 3), high
(0.912, 1.0)
"""

from __future__ import annotations

import math

import numpy as np

from harness.stats.bounded import score_ends
from harness.stats.functions import LabelMean
from harness.stats.proportions import Z
from harness.stats.units import Array

FEWEST_OF_LABEL = 5
"""With fewer samples of a label, the interval covers less than it says: 89 to 92 % at 20 samples."""


def label_mean_limits(metric: LabelMean, table: Array) -> tuple[float, float]:
    """Computes the 95 % interval: Wilson's of each label, added in squares with the labels' correlations.

    The share of a label is found / (found or wrong): Jaccard's for F1.

    Args:
        metric: The metric.
        table: `[n, 3k]` counts of each sample.
    """
    labels = table.shape[1] // 3
    sums = table.sum(axis=0)
    found, predicted, wanted = np.reshape(sums, (3, labels))
    of = np.maximum(metric.predicted * predicted + metric.wanted * wanted, 1)
    number = metric.weight * found / of
    occurs = np.flatnonzero(predicted + wanted > 0)
    ends = [_ends(metric, float(found[each]), float(of[each])) for each in occurs]
    down, up = np.abs(np.array(ends).T - number[occurs])
    one_found, one_predicted, one_wanted = (table[:, start : start + labels] for start in (0, labels, 2 * labels))
    influence = (
        metric.weight * one_found - (metric.predicted * one_predicted + metric.wanted * one_wanted) * number
    ) / of
    covariance = influence[:, occurs].T @ influence[:, occurs]
    deviation = np.sqrt(np.diag(covariance))
    correlation = covariance / np.maximum(np.outer(deviation, deviation), 1e-12)
    np.fill_diagonal(correlation, 1.0)
    value, count = float(number[occurs].mean()), len(occurs)
    below, above = (math.sqrt(max(0.0, float(side @ correlation @ side))) / count for side in (down, up))
    return max(0.0, value - below), min(1.0, value + above)


def has_rare_labels(table: Array) -> bool:
    """Whether a label that occurs has too few samples for the interval."""
    wanted = table.sum(axis=0)[-(table.shape[1] // 3) :]
    return bool(((wanted > 0) & (wanted < FEWEST_OF_LABEL)).any())


def _ends(metric: LabelMean, found: float, of: float) -> tuple[float, float]:
    n = max(1.0, of - (metric.weight - 1) * found)
    low, high = (metric.weight * end / (1 + (metric.weight - 1) * end) for end in score_ends(found / n, Z**2 / n))
    return low, high
