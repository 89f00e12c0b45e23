"""Exact statistics of 0/1 scores: one proportion, and two proportions on the same samples.

Two variants on the same samples differ only in samples that one gets right and the other wrong: `wins` and `losses`.
Under the null hypothesis both are equally likely; McNemar's test needs no other assumption.

    >>> round(mcnemar_p(wins=9, losses=1), 4)
    0.0215
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import special

_Z = 1.959963984540054  # 5 % of the normal distribution is outside ± this


def wilson(share: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Computes Wilson's score interval of a proportion (JASA 1927).

    Args:
        share: Proportion of ones among the scores.
        n: Number of scores.
        confidence: Probability that such an interval covers the true proportion.

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
    """Computes the p-value of McNemar's exact two-sided test.

    It is the probability that `wins + losses` tosses of a fair coin split at least as unevenly.
    """
    if wins == losses:
        return 1.0
    return min(1.0, 2 * float(special.bdtr(min(wins, losses), wins + losses, 0.5)))


def mcnemar_interval(n: int, wins: int, losses: int) -> tuple[float, float]:
    """Computes the 95 % interval of (wins − losses) / n; it excludes 0 exactly when `mcnemar_p` is below 0.05.

    It is Tango's score interval (Statistics in Medicine 1998), whose coverage is right for any n and also if no sample
    differs. The exact test is stricter than a score test, so the interval is extended towards 0 to the point where the
    exact test stops rejecting. That end is the Clopper-Pearson limit of the proportion of wins among differing samples.

    Args:
        n: Number of samples.
        wins: Number of samples that the first gets right and the second wrong.
        losses: Number of samples that the first gets wrong and the second right.

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
        share_lost = (root - linear) / (4 * n)  # maximum-likelihood share of losses under this difference
        variance = n * (2 * share_lost + difference * (1 - difference))
        return (wins - losses - n * difference) ** 2 <= _Z**2 * variance

    value = (wins - losses) / n
    low, high = boundary(value, -1.0, accepted), boundary(value, 1.0, accepted)
    if wins > losses:
        least_share = float(special.betaincinv(wins, losses + 1, 0.025))
        low = min(low, (2 * least_share - 1) * (wins + losses) / n)
    return low, high


def smallest_shown(n: int, share: float, *, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Computes the smallest difference that McNemar's exact test at `alpha` detects with probability `power`.

    For a difference d, it assumes that a share max(share, d) of the samples differs, and sums the power over the possible
    numbers of differing samples.

    Args:
        n: Number of samples.
        share: Share of samples on which the two variants differed.
        power: Probability of detecting the difference.
        alpha: Level of the two-sided test.

    Returns:
        The difference; None if n is too small to detect any.

    Example:
        >>> smallest_shown(5, 0.2) is None
        True
    """
    differing = np.arange(1, n + 1)
    most_losses = np.floor(special.bdtrik(alpha / 2, differing, 0.5))  # with which the test still rejects
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
    """Finds by bisection where `accepted` changes, between a point where it holds and one where it does not.

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
