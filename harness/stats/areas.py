"""Intervals and differences of `RocArea`: DeLong's error, and a score interval.

>>> low, high = area_limits([[1, 2.0], [0, 1.0], [1, 0.5], [0, 0.0]])
>>> low < 0.75 < high
True
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.stats.functions import components
from harness.stats.proportions import Z, boundary
from harness.stats.units import Array

SMOOTHING = 10.0
"""Samples of the rarer class with Hanley and McNeil's variance that join DeLong's."""
ROUGH_ABOVE, ROUGH_BELOW = 0.95, 50
"""Above this area, or with fewer samples of the rarer class, the interval covers less than it says (down to 86 %)."""


def area_limits(gathered: Sequence[Any]) -> tuple[float, float] | None:
    """Computes the 95 % interval of the area of two labels: a score interval with DeLong's variance.

    The variance at a hypothetical area is Hanley and McNeil's (Radiology 1982) times the ratio of DeLong's (Biometrics 1988)
    to it, so the interval is asymmetric near 1.

    Returns:
        None with more than two labels.
    """
    table = np.asarray(gathered, dtype=np.float64)
    if table.shape[1] != 2:
        return None
    [(_, positive, negative)] = components(table)
    p, q, area = len(positive), len(negative), float(positive.mean())
    fewer, more = min(p, q), max(p, q)

    def binormal(area: float) -> float:
        u, v = (1 - area) / (2 - area), area / (1 + area)  # of the two classes' parts, the larger variance
        return area * (1 - area) * (1 + (fewer - 1) * min(u, v) + (more - 1) * max(u, v)) / (p * q)

    variance = _variance(positive) + _variance(negative)
    inner = (area * p * q + 0.5) / (p * q + 1)
    factor = (variance / binormal(inner) * fewer + SMOOTHING) / (fewer + SMOOTHING) if variance > 0 else 1.0

    def accepted(true: float) -> bool:
        return (area - true) ** 2 <= Z**2 * factor * binormal(true)

    return boundary(area, 0.0, accepted), boundary(area, 1.0, accepted)


def is_rough(gathered: Sequence[Any], area: float) -> bool:
    """Whether the interval of an area covers less than it says."""
    counts = np.unique([row[0] for row in gathered], return_counts=True)[1]
    return area > ROUGH_ABOVE or int(counts.min()) < ROUGH_BELOW


def area_difference(a: Sequence[Any], b: Sequence[Any]) -> tuple[float, float, float] | None:
    """Computes the difference of two areas on the same samples, DeLong's error, and Satterthwaite's degrees of freedom.

    Returns:
        None with more than two labels, or with a single sample of a label.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape[1] != 2:
        return None
    [(_, *mine)], [(_, *theirs)] = components(first), components(second)
    parts = [x - y for x, y in zip(mine, theirs, strict=True)]
    if min(map(len, parts)) < 2:
        return None
    variances = [_variance(part) for part in parts]
    total = sum(variances)
    weights = sum(each**2 / (len(part) - 1) for each, part in zip(variances, parts, strict=True))
    return float(parts[0].mean()), math.sqrt(total), max(1.0, total**2 / weights) if weights > 0 else 1.0


def _variance(components: Array) -> float:
    return float(components.var(ddof=1)) / len(components) if len(components) > 1 else 0.0
