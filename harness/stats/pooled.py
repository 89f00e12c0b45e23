"""The mean of several differences, one for each task, with an interval made from those of the tasks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import NamedTuple


class Estimate(NamedTuple):
    """A difference and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Estimate:
        """Returns the difference in another unit; a negative factor exchanges the ends.

        Example:
            >>> Estimate(0.25, 0.125, 0.5).scaled(-2)
            Estimate(value=-0.5, low=-1.0, high=-0.25)
        """
        low, high = sorted((self.low * factor, self.high * factor))
        return Estimate(self.value * factor, low, high)

    def widened(self, tests: int) -> Estimate:
        """Returns the interval that is valid for `tests` differences together (Bonferroni, with the normal's quantiles).

        Example:
            >>> Estimate(1.0, 0.0, 3.0).widened(1)
            Estimate(value=1.0, low=0.0, high=3.0)
            >>> round(Estimate(1.0, 0.0, 3.0).widened(2).low, 2)
            -0.14
        """
        if tests <= 1:
            return self
        factor = NormalDist().inv_cdf(1 - 0.025 / tests) / NormalDist().inv_cdf(0.975)
        return Estimate(
            self.value, self.value - factor * (self.value - self.low), self.value + factor * (self.high - self.value)
        )


def pooled(differences: Sequence[Estimate], sources: Sequence[Hashable]) -> Estimate:
    """Computes the mean of differences and its interval by the method of variance estimates recovery (MOVER).

    Zou and Donner, "Construction of confidence limits about effect measures" (Statistics in Medicine 2008): the distances
    from the differences to the ends are added in quadrature, so uneven intervals stay uneven. That holds for independent
    differences. Those from one source of samples may depend on each other: their distances are added, which is never too
    narrow.

    Args:
        differences: One for each task, in one unit.
        sources: The source of each task's samples, in the same order.

    Raises:
        ValueError: There is no difference.

    Example:
        >>> pooled([Estimate(4.0, 1.0, 7.0), Estimate(2.0, -2.0, 6.0)], ["a", "b"])
        Estimate(value=3.0, low=0.5, high=5.5)
        >>> pooled([Estimate(4.0, 1.0, 7.0), Estimate(2.0, -2.0, 6.0)], ["a", "a"])
        Estimate(value=3.0, low=-0.5, high=6.5)
    """
    if not differences:
        raise ValueError("a mean needs at least one difference")
    below: defaultdict[Hashable, float] = defaultdict(float)
    above: defaultdict[Hashable, float] = defaultdict(float)
    for each, source in zip(differences, sources, strict=True):
        below[source] += each.value - each.low
        above[source] += each.high - each.value
    count = len(differences)
    value = sum(each.value for each in differences) / count
    return Estimate(value, value - math.hypot(*below.values()) / count, value + math.hypot(*above.values()) / count)
