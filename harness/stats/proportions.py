"""Statistics of 0/1 scores: one proportion, and two proportions on the same samples.

Two variants on the same samples differ only in samples that one gets right and the other wrong: `wins` and `losses`.
Under the null hypothesis both are equally likely; McNemar's test needs no other assumption.

    >>> round(mcnemar_p(n=40, wins=9, losses=1), 4)
    0.0117
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

Z = 1.959963984540054  # 5 % of the normal distribution is outside ± this

EXACT_ABOVE = 0.8
"""With a larger share of differing samples, McNemar's test is exact: there the mid-p rejects up to 6.5 % of true nulls."""


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


def mcnemar_p(n: int, wins: int, losses: int) -> float:
    """Computes the two-sided mid-p of McNemar's test (Fagerland, Lydersen and Laake, BMC Medical Research Methodology 2013).

    It is the probability that `wins + losses` tosses of a fair coin split more unevenly, plus half the probability of the
    same split. If more than `EXACT_ABOVE` of the n samples differ, the whole probability of the same split is added.
    """
    if wins == losses:
        return 1.0
    return min(1.0, 2 * _tail(n, min(wins, losses), wins + losses, 0.5))


def _tail(n: int, fewest: int, differing: int, share: float) -> float:
    """Probability of at most `fewest` of the differing samples; of exactly as many, only half counts in the mid-p."""
    up_to = float(special.bdtr(fewest, differing, share))
    if differing > EXACT_ABOVE * n:
        return up_to
    return (up_to + (float(special.bdtr(fewest - 1, differing, share)) if fewest else 0.0)) / 2


def mcnemar_interval(n: int, wins: int, losses: int) -> tuple[float, float]:
    """Computes the 95 % interval of (wins − losses) / n; it excludes 0 exactly when `mcnemar_p` is below 0.05.

    It is Tango's score interval (Statistics in Medicine 1998), whose coverage is right for any n and also if no sample
    differs. It is extended towards 0 to the point where `mcnemar_p` stops rejecting. That end is the limit of the proportion
    of wins among differing samples at the same tail: mid-p, or Clopper and Pearson's where the test is exact.

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
        return (wins - losses - n * difference) ** 2 <= Z**2 * variance

    value = (wins - losses) / n
    low, high = boundary(value, -1.0, accepted), boundary(value, 1.0, accepted)
    if wins > losses:
        differing = wins + losses
        most_lost = boundary(0.0, 1.0, lambda share: _tail(n, losses, differing, share) >= 0.025)
        low = min(low, (1 - 2 * most_lost) * differing / n)
    return low, high


def smallest_shown(n: int, share: float, *, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Computes the smallest difference that McNemar's test at `alpha` detects with probability `power`.

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
        >>> smallest_shown(4, 0.2) is None
        True
    """
    most_losses = _most_losses(n, alpha)

    def shown(difference: float) -> bool:
        differ = max(share, difference)
        reach = 8 * math.sqrt(n * differ * (1 - differ)) + 8  # beyond, the number of differing samples is improbable
        likely = np.arange(max(0, math.floor(n * differ - reach)), min(n, math.ceil(n * differ + reach)) + 1)
        likely = likely[most_losses[likely] >= 0]
        most, loss = most_losses[likely], (1 - difference / differ) / 2
        chance = special.bdtr(likely, n, differ) - special.bdtr(likely - 1, n, differ)
        found = special.bdtr(most, likely, loss) + special.bdtr(most, likely, 1 - loss)
        return float(np.sum(chance * found)) >= power

    return boundary(1.0, 0.0, shown, steps=25) if shown(1.0) else None


@lru_cache(maxsize=64)
def _most_losses(n: int, alpha: float) -> NDArray[np.float64]:
    """By number of differing samples from 0 to n: the most losses with which the test rejects; −1: it never does."""
    differing = np.arange(n + 1)
    exact = np.floor(special.bdtrik(alpha / 2, differing, 0.5))
    most = np.full(n + 1, -1.0)
    for step in (-1, 0, 1, 2):
        losses = exact + step
        rejects = (losses >= 0) & (2 * losses < differing)
        up_to, below = (special.bdtr(np.maximum(each, 0), differing, 0.5) for each in (losses, losses - 1))
        tail = np.where(differing > EXACT_ABOVE * n, up_to, (up_to + np.where(losses > 0, below, 0)) / 2)
        most = np.where(rejects & (tail < alpha / 2), losses, most)
    most.setflags(write=False)
    return most


def boundary(inside: float, outside: float, accepted: Callable[[float], bool], steps: int = 50) -> float:
    """Finds by bisection where `accepted` changes, between a point where it holds and one where it does not.

    Example:
        >>> round(boundary(0.0, 2.0, lambda x: x * x < 2), 6)
        1.414214
    """
    for _ in range(steps):
        middle = (inside + outside) / 2
        if accepted(middle):
            inside = middle
        else:
            outside = middle
    return inside
