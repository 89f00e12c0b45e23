"""Exact answers about 0/1 scores: one share, and two shares of the same samples.

Two variants that answer the same samples differ only through the samples that one of them gets right and the other
wrong: `wins` and `losses`. Chance gives either the same odds, which is all that McNemar's test asks.

    >>> round(mcnemar_p(wins=9, losses=1), 4)
    0.0215
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import special

_Z = 1.959963984540054  # the normal distribution beyond ± this: 5 %


def wilson(share: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (JASA 1927).

    Args:
        share: Of ones among the scores.
        n: Number of scores.
        confidence: Chance that such an interval covers the true share.

    Example:
        >>> low, high = wilson(0.8, 10)
        >>> round(low, 3), round(high, 3)
        (0.49, 0.943)
    """
    z2 = float(special.ndtri((1 - confidence) / 2)) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    margin = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return min(share, max(0.0, centre - margin)), max(share, min(1.0, centre + margin))


def mcnemar_p(wins: int, losses: int) -> float:
    """How often a fair coin splits `wins + losses` throws at least as unevenly (exact McNemar, two-sided)."""
    if wins == losses:
        return 1.0
    return min(1.0, 2 * float(special.bdtr(min(wins, losses), wins + losses, 0.5)))


def mcnemar_interval(n: int, wins: int, losses: int) -> tuple[float, float]:
    """95 % interval of the difference (wins − losses) / n, which leaves out 0 exactly when `mcnemar_p` is below 0.05.

    Tango's score interval (Statistics in Medicine 1998), which covers as it should for any n and for no differing sample,
    drawn out towards 0 to where the exact test, stricter than a score test, stops rejecting. That end is Clopper and
    Pearson's limit of the share of wins among the differing samples.

    Args:
        n: Number of samples.
        wins: Samples that the first gets right and the second wrong.
        losses: Samples that the first gets wrong and the second right.

    Example:
        >>> low, high = mcnemar_interval(n=100, wins=0, losses=0)
        >>> round(low, 3), round(high, 3)
        (-0.037, 0.037)
    """
    if losses > wins:
        low, high = mcnemar_interval(n, losses, wins)
        return -high, -low

    def accepted(difference: float) -> bool:
        linear = (2 * n - wins + losses) * difference - wins - losses
        root = math.sqrt(max(0.0, linear**2 + 8 * n * losses * difference * (1 - difference)))
        share_lost = (root - linear) / (4 * n)  # the most likely share of losses if this were the true difference
        variance = n * (2 * share_lost + difference * (1 - difference))
        return (wins - losses - n * difference) ** 2 <= _Z**2 * variance

    value = (wins - losses) / n
    low, high = boundary(value, -1.0, accepted), boundary(value, 1.0, accepted)
    if wins > losses:
        least_share = float(special.betaincinv(wins, losses + 1, 0.025))
        low = min(low, (2 * least_share - 1) * (wins + losses) / n)
    return low, high


def smallest_shown(n: int, share: float, *, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """The smallest difference that McNemar's exact test at `alpha` shows with probability `power`.

    For a difference d, max(share, d) of the samples are taken to differ; the power is summed over how many of n do.

    Args:
        n: Number of samples.
        share: Of samples on which the two differed.
        power: How surely the difference would be shown.
        alpha: Level of the two-sided test.

    Returns:
        None where n is too small to show any.

    Example:
        >>> smallest_shown(5, 0.2) is None
        True
    """
    differing = np.arange(1, n + 1)
    most_losses = np.floor(special.bdtrik(alpha / 2, differing, 0.5))  # that still reject, in so many differing samples
    rejects = special.bdtr(most_losses, differing, 0.5) < alpha / 2
    differing, most_losses = differing[rejects], most_losses[rejects]

    def shown(difference: float) -> bool:
        differ = max(share, difference)
        chance = special.bdtr(differing, n, differ) - special.bdtr(differing - 1, n, differ)
        loss = (1 - difference / differ) / 2
        found = special.bdtr(most_losses, differing, loss) + special.bdtr(most_losses, differing, 1 - loss)
        return float(np.sum(chance * found)) >= power

    return boundary(1.0, 0.0, shown) if shown(1.0) else None


def boundary(inside: float, outside: float, accepted: Callable[[float], bool]) -> float:
    """Where `accepted` ends, between a point where it holds and one where it does not, by halving.

    Example:
        >>> round(boundary(0.0, 2.0, lambda x: x * x < 2), 6)
        1.414214
    """
    for _ in range(50):
        middle = (inside + outside) / 2
        if accepted(middle):
            inside = middle
        else:
            outside = middle
    return inside
