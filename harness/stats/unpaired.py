"""The difference between two scores whose samples are not known, so that nothing can be paired.

If the samples are the same, and who gets one right tends to get the other right, these intervals are wider than those of a paired
test: they show fewer differences, not more false ones.

>>> round(share_difference(0.8, 100, 0.6, 100).p, 4)
0.002
"""

from __future__ import annotations

import math

from scipy import special

from harness.stats.paired import Difference
from harness.stats.proportions import Z, wilson


def share_difference(a: float, a_n: int, b: float, b_n: int) -> Difference:
    """Tests the difference of two shares by the score test, with Newcombe's interval (Statistics in Medicine 1998, method 10).

    Args:
        a: Share of ones among the scores of the first.
        a_n: Number of its scores.
        b: Share of the second.
        b_n: Number of its scores.

    Returns:
        The difference; its interval is extended to 0 where the test does not reject, and ends at 0 where it does.

    Example:
        >>> found = share_difference(0.56, 50, 0.4, 50)
        >>> round(found.value, 2), found.low < 0 < found.high
        (0.16, True)
    """
    value = a - b
    pooled = (a * a_n + b * b_n) / (a_n + b_n)
    error = math.sqrt(pooled * (1 - pooled) * (1 / a_n + 1 / b_n))
    p = 1.0 if value == 0 or error == 0 else _p(value / error)
    (a_low, a_high), (b_low, b_high) = wilson(a, a_n), wilson(b, b_n)
    low = value - math.hypot(a - a_low, b_high - b)
    high = value + math.hypot(a_high - a, b - b_low)
    return _consistent(value, low, high, p)


def mean_difference(a: float, a_error: float, b: float, b_error: float) -> Difference | None:
    """Tests the difference of two scores with known standard errors; None if both errors are 0.

    Example:
        >>> found = mean_difference(0.5, 0.03, 0.4, 0.04)
        >>> round(found.p, 4), round(found.low, 3)
        (0.0455, 0.002)
    """
    value, error = a - b, math.hypot(a_error, b_error)
    if error == 0:
        return None
    return _consistent(value, value - Z * error, value + Z * error, _p(value / error))


def _p(z: float) -> float:
    return float(2 * special.ndtr(-abs(z)))


def _consistent(value: float, low: float, high: float, p: float) -> Difference:
    """Makes the interval exclude 0 exactly when p is below 0.05."""
    if p >= 0.05:
        return Difference(value, min(low, 0.0), max(high, 0.0), p)
    nearest = 1e-12
    return Difference(value, max(low, nearest) if value > 0 else low, min(high, -nearest) if value < 0 else high, p)
