"""Percentiles in plain Python, for parent and child processes alike."""

from __future__ import annotations

from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """Computes the value below which a share of the values lies, with linear interpolation.

    Example:
        >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5)
        2.5
    """
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def quantiles(values: Sequence[float], most: int = 100) -> tuple[float, ...]:
    """Computes at most `most` quantiles at equal distances, from the smallest value to the largest.

    Example:
        >>> quantiles([3.0, 1.0, 2.0]), quantiles([1.0, 2.0, 3.0, 4.0], most=2)
        ((1.0, 2.0, 3.0), (1.0, 4.0))
    """
    ordered = sorted(values)
    if len(ordered) <= most:
        return tuple(ordered)
    return tuple(percentile(ordered, index / (most - 1)) for index in range(most))
