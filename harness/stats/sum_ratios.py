"""Intervals and differences of `SumRatio`: means per word or token, perplexities, shares of instructions.

The units are documents (or clusters of them), which may differ in size by orders of magnitude.

    >>> table = np.array([[3.0, 4.0], [2.0, 4.0], [9.0, 12.0]])
    >>> low, high = ratio_limits(table, Layout.of(3), SumRatio(), bounds=None)
    >>> low < 0.7 < high
    True
"""

from __future__ import annotations

import numpy as np

from harness.stats.bounded import score_limits
from harness.stats.functions import SumRatio
from harness.stats.spread import Spread, cr2, t_limits
from harness.stats.units import Array, Layout


def ratio_limits(
    table: Array, layout: Layout, ratio: SumRatio, bounds: tuple[float, float] | None
) -> tuple[float, float] | None:
    """Computes the 95 % interval of a ratio; None if it is not known.

    Without bounds it is a t interval of total / size, of which `ratio.of` is taken. With bounds it is the score interval of
    units as graded scores.

    Args:
        table: `[n, 2]` total and size of each sample.
        layout: The independent units.
        ratio: The metric.
        bounds: Ends of the scale of total / size.
    """
    totals, sizes = layout.sums(table).T
    if len(totals) < 2:
        return None
    if bounds is not None:
        return mean_limits(totals, sizes, layout, bounds, clustered=True)
    found = cr2(totals, sizes, layout.strata, 1.0)
    low, high = sorted(map(ratio.of, t_limits(found.mean, found.error, found.freedom)))
    return low, high


def mean_limits(
    totals: Array, sizes: Array, layout: Layout, bounds: tuple[float, float], *, clustered: bool
) -> tuple[float, float]:
    """Computes the score interval of totals / sizes of units, each within bounds.

    Args:
        totals: `[units]` sums over each unit.
        sizes: `[units]` sizes.
        layout: The independent units.
        bounds: Ends of the scale.
        clustered: Whether units have several samples each.
    """
    least, span = bounds[0], bounds[1] - bounds[0]
    found = cr2((totals - least * sizes) / span, sizes, layout.strata, 0.5 if clustered else 0.0)
    units = float(sizes.sum() ** 2 / (sizes**2).sum())  # the effective number
    squares = found.error**2 * units * (units if clustered else units - 1)
    low, high = score_limits(min(1.0, max(0.0, found.mean)), units, squares, found.freedom, clustered=clustered)
    return least + span * low, least + span * high


def ratio_difference(a: Array, b: Array, first: SumRatio, second: SumRatio, layout: Layout) -> tuple[float, Spread]:
    """Computes the difference of two ratios on the same samples and its error, by the delta method.

    Args:
        a: `[n, 2]` totals and sizes of the first.
        b: `[n, 2]` totals and sizes of the second.
        first: The metric of the first.
        second: The metric of the second.
        layout: The independent units.
    """
    value, influence, share = 0.0, np.zeros(len(layout)), np.zeros(len(layout))
    for table, ratio, sign in ((a, first, 1), (b, second, -1)):
        totals, sizes = layout.sums(table).T
        mean, whole = float(totals.sum() / sizes.sum()), float(sizes.sum())
        value += sign * ratio.of(mean)
        influence = influence + sign * ratio.slope(mean) * (totals - mean * sizes) / whole
        share = share + sizes / whole / 2
    return value, cr2(influence, share, layout.strata, 1.0)
