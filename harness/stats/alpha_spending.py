"""An exact test of 0/1 scores that may end after any evaluation: alpha spending over a number of samples fixed in advance.

Given which samples differ, wins and losses are tosses of a fair coin if both variants are equally good. The boundary at each
evaluation therefore follows exactly, from the distribution of wins among the paths that no earlier boundary has stopped. Up
to a share t of all samples, the probability of a false positive is at most level × t²: Kim and DeMets, "Design and Analysis
of Group Sequential Tests Based on the Type I Error Spending Rate Function" (Biometrika 1987), with rho = 2.

    >>> walk = WinWalk(level=0.025)
    >>> walk.critical(differing=20, share=0.5), walk.critical(differing=40, share=1.0)
    (16, 27)
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import special

from harness.stats.units import Array

RHO = 2.0
"""Power of the share of samples: at 2, half of the samples may spend a quarter of the level."""
_ROUNDING = 1e-12


class WinWalk:
    """The boundaries of a one-sided test, evaluation by evaluation: are wins likelier than `chance`?

    Args:
        level: Largest probability, over all evaluations together, that the test rejects a true null hypothesis.
        chance: Probability of a win on a differing sample under the null hypothesis; 0.5 if no variant is better.
    """

    def __init__(self, level: float, chance: float = 0.5) -> None:
        self.level, self.chance = level, chance
        self.spent = 0.0
        """Probability of a false positive so far, under the null hypothesis."""
        self._probabilities = np.ones(1)
        self._differing = 0

    def critical(self, differing: int, share: float) -> int:
        """Advances to the next evaluation, and returns the fewest wins that reject there.

        Args:
            differing: Number of differing samples so far.
            share: Share of all samples that were scored so far.
        """
        reached = np.convolve(self._probabilities, _binomial(differing - self._differing, self.chance))
        self._differing = differing
        tails = np.cumsum(reached[::-1])
        left = self.level * share**RHO - self.spent
        rejecting = int(np.searchsorted(tails, left * (1 + _ROUNDING), side="right"))
        if rejecting:
            self.spent += float(tails[rejecting - 1])
        self._probabilities = reached[: len(reached) - rejecting]
        return len(reached) - rejecting


@lru_cache(4096)
def _binomial(tosses: int, chance: float) -> Array:
    """Returns the `[tosses + 1]` probabilities of each number of wins."""
    wins = np.arange(tosses + 1)
    return np.asarray(special.comb(tosses, wins) * chance**wins * (1 - chance) ** (tosses - wins), dtype=np.float64)
