"""A test of a mean in a known range that may end after any sample: bets against the null hypothesis.

A gambler starts with 1 and bets on every sample that the mean is above a margin. If it is not, the expected wealth never
grows, so the probability that it ever reaches 1 / level is at most the level (Ville). The wealth is the mean over bets of many
sizes: Waudby-Smith and Ramdas, "Estimating Means of Bounded Random Variables by Betting" (JRSS B 2024).

    >>> bets = Bets()
    >>> bets.add(np.full(32, 0.5))
    >>> bets.log_wealth > 3
    True
"""

from __future__ import annotations

import numpy as np
from scipy import special

from harness.stats.units import Array

SIZES = np.geomspace(0.02, 0.95, 24)
"""Bets, as shares of the largest that cannot lose more than everything."""


class Bets:
    """The wealth of a gambler who bets that the mean of samples in [-1, 1] is above a margin.

    Args:
        margin: Largest mean of the null hypothesis, above -1.
    """

    def __init__(self, margin: float = 0.0) -> None:
        self.margin = margin
        self._growth = np.zeros(len(SIZES))

    def add(self, samples: Array) -> None:
        """Bets on further samples."""
        self._growth = self._growth + growth(samples, self.margin).sum(axis=0)

    @property
    def log_wealth(self) -> float:
        """The logarithm of the wealth."""
        return float(log_wealth(self._growth))


def growth(samples: Array, margin: float = 0.0) -> Array:
    """Computes the `[..., bets]` logarithmic growth of every bet on `[...]` samples in [-1, 1]."""
    return np.log1p(np.multiply.outer((np.asarray(samples) - margin) / (1 + margin), SIZES))


def log_wealth(growths: Array) -> Array:
    """Computes the `[...]` logarithm of the mean wealth from `[..., bets]` sums of growth."""
    return np.asarray(special.logsumexp(growths, axis=-1) - np.log(len(SIZES)))
