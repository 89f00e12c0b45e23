"""Reads a loss curve in a word or two."""

from __future__ import annotations

import math
from collections.abc import Sequence


def read_curve(losses: Sequence[float]) -> str:
    """One word or two that read a loss curve.

    Diverged when a loss is no finite number. Else the last quarter against the one before it: still falling when it is
    lower by more than 5 %, oscillating when it is higher by more than 5 % or its steps scatter by more than half of
    their mean, else converged.

    Example:
        >>> read_curve([4.0, 2.0, 1.0, 0.5])
        'still falling'
        >>> read_curve([4.0] + [1.0] * 40)
        'converged'
    """
    if not all(map(math.isfinite, losses)):
        return "diverged"
    if len(losses) < 4:
        return "too short to tell"
    quarter = max(1, len(losses) // 4)
    last, before = losses[-quarter:], losses[-2 * quarter : -quarter]
    mean, earlier = sum(last) / len(last), sum(before) / len(before)
    spread = (sum((x - mean) ** 2 for x in last) / len(last)) ** 0.5
    if mean < 0.95 * earlier:
        return "still falling"
    if mean > 1.05 * earlier or spread > 0.5 * mean:
        return "oscillating"
    return "converged"
