"""The difference between two variants while their samples are being scored: decisions that may be taken after every pack.

The probability of a false positive is at most 5 % at any stopping time, over all comparisons of a run together. 0/1 scores
have the exact test of `alpha_spending`, other scores in a known range the bets of `betting`. Each direction is tested at half
of the level, so the interval, which inverts the test, excludes 0 exactly when the level 0.05 was reached.

    >>> import numpy as np
    >>> test = SequentialTest(total=256, binary=True)
    >>> for _ in range(3):
    ...     test.add(np.repeat([1.0, -1.0, 0.0], [10, 1, 21]))
    >>> test.n, test.direction, test.passed
    (96, 1, 1)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from harness.stats.alpha_spending import WinWalk
from harness.stats.betting import Bets, growth, log_wealth
from harness.stats.proportions import wilson
from harness.stats.units import Array

LEVEL = 0.05
PACK = 32
"""Samples between two evaluations."""
_HALVINGS = 30


def evaluation_points(total: int) -> list[int]:
    """Lists the numbers of samples after which a decision is possible.

    Example:
        >>> evaluation_points(70)
        [32, 64, 70]
    """
    return [*range(PACK, total, PACK), total]


class SequentialTest:
    """The paired difference of two variants on one task, pack by pack.

    Args:
        total: All samples of the task, fixed before the first is scored.
        binary: Whether all scores are 0 or 1, and independent.
        width: Largest possible difference on one sample.
        tests: Number of comparisons that are decided together: the levels are 0.05, 0.05 / 2, … 0.05 / `tests`.
        smallest: The smallest difference that matters; smaller ones can be shown to be so.
    """

    def __init__(
        self, total: int, *, binary: bool, width: float = 1.0, tests: int = 1, smallest: float | None = None
    ) -> None:
        self.total, self.binary, self.width = total, binary, width
        self.excluded = False
        """Whether differences of `smallest` or more are excluded in both directions."""
        self.n = 0
        self._packs: list[Array] = []
        """Differences, as parts of the width."""
        self._counts: list[tuple[int, int, int]] = []
        """Samples, wins and losses at each evaluation."""
        self._levels = [LEVEL / number for number in range(1, tests + 1)]
        self._walks = [WinWalk(level / 2) for level in self._levels]
        self._bets = {1: Bets(), -1: Bets()}
        self._outer = {} if smallest is None else {sign: Bets(-smallest / width) for sign in (1, -1)}
        self._outside = dict.fromkeys(self._outer, False)
        self._reached = {sign: [False] * tests for sign in (1, -1)}

    def add(self, differences: Array) -> None:
        """Adds the differences of the next pack of samples and evaluates the tests.

        Raises:
            ValueError: A difference is larger than `width`, or there are more samples than `total`.
        """
        pack = np.asarray(differences, dtype=np.float64) / self.width
        self.n += len(pack)
        if self.n > self.total:
            raise ValueError(f"{self.n} samples of {self.total}: the number is fixed in advance")
        if not (np.abs(pack) <= 1 + 1e-9).all():
            raise ValueError(f"a difference is larger than {self.width:g}")
        self._packs.append(np.clip(pack, -1.0, 1.0))
        _, wins, losses = self._counts[-1] if self._counts else (0, 0, 0)
        self._counts.append((self.n, wins + int(np.sum(pack > 0)), losses + int(np.sum(pack < 0))))
        for sign, found in self._evaluate().items():
            self._reached[sign] = [old or new for old, new in zip(self._reached[sign], found, strict=True)]
        for sign, bets in self._outer.items():
            bets.add(sign * self._packs[-1])
            self._outside[sign] = self._outside[sign] or bets.log_wealth >= math.log(2 / LEVEL)
        self.excluded = bool(self._outside) and all(self._outside.values())

    def _evaluate(self) -> dict[int, list[bool]]:
        """By direction, for each level: whether the test rejects now."""
        if self.binary:
            _, wins, losses = self._counts[-1]
            critical = [walk.critical(wins + losses, self.n / self.total) for walk in self._walks]
            return {1: [wins >= fewest for fewest in critical], -1: [losses >= fewest for fewest in critical]}
        found = {}
        for sign, bets in self._bets.items():
            bets.add(sign * self._packs[-1])
            found[sign] = [bets.log_wealth >= math.log(2 / level) for level in self._levels]
        return found

    @property
    def value(self) -> float:
        """The mean difference so far; effects at an early stop are overestimated."""
        return self.width * math.fsum(np.concatenate(self._packs)) / self.n

    @property
    def direction(self) -> int:
        """1 or -1: the direction in which the strictest level was reached; 0 if none was."""
        up, down = (_leading(self._reached[sign]) for sign in (1, -1))
        return (up > down) - (up < down)

    @property
    def passed(self) -> int:
        """Number of levels that were reached in this direction.

        Boundaries of alpha spending are not nested by themselves: a stricter level counts only after all laxer levels.
        """
        return max(_leading(self._reached[sign]) for sign in (1, -1))

    def interval(self) -> tuple[float, float]:
        """Computes the 95 % interval of the difference, valid at any stopping time.

        It holds the differences that the test would not have rejected up to now.
        """
        limits = self._margin_limit if self.binary else self._mean_limit
        low, high = limits(1), -limits(-1)
        return min(low, self.value), max(high, self.value)

    def _mean_limit(self, sign: int) -> float:
        """The smallest mean, times the sign, that bets in this direction have not rejected."""
        samples = sign * np.concatenate(self._packs)
        ends = np.cumsum([len(pack) for pack in self._packs]) - 1

        def rejected(mean: float) -> bool:
            wealth = log_wealth(np.cumsum(growth(samples, mean), axis=0)[ends])
            return bool(wealth.max() >= math.log(2 / LEVEL))

        return self.width * _first_accepted(rejected, -1 + 1e-9, 1.0)

    def _margin_limit(self, sign: int) -> float:
        """The lower limit of the difference times the sign: that of the margin of wins, and that of the differing share.

        The margin of wins among differing samples, (wins − losses) / (wins + losses), has the exact limit. The share of
        differing samples has Wilson's. The two are combined as independent estimates of a product.
        """
        _, up, down = self._counts[-1]
        wins, losses = (up, down) if sign > 0 else (down, up)
        differing = wins + losses
        share_low, share_high = wilson(differing / self.n, self.n)
        if differing == 0:
            return -share_high
        share, margin = differing / self.n, (wins - losses) / differing
        lowest = 2 * _first_accepted(partial(self._chance_rejected, sign), 0.0, 1.0) - 1
        if lowest > 0 and margin >= lowest:  # both factors are positive: the limit of the product is
            return share * margin * math.exp(-math.hypot(math.log(margin / lowest), math.log(share / share_low)))
        of_share = margin * (share - share_low if margin > 0 else share_high - share)
        return share * margin - math.hypot(share * (margin - lowest), of_share)

    def _chance_rejected(self, sign: int, chance: float) -> bool:
        """Whether the test of a chance of a win other than 0.5 would have rejected it up to now."""
        walk = WinWalk(LEVEL / 2, chance)
        return any(
            (wins if sign > 0 else losses) >= walk.critical(wins + losses, n / self.total)
            for n, wins, losses in self._counts
        )


def step_down(tests: Sequence[SequentialTest], rejected: set[int], family: int) -> set[int]:
    """Returns the tests that reject, with Holm's step-down over a family that may have further members.

    A test rejects at the level 0.05 / (members that were not rejected). What was rejected remains so, and relaxes the level
    of the others.

    Args:
        tests: The tests so far.
        rejected: Indices of those that rejected before.
        family: Number of members, at least the number of tests.
    """
    found = set(rejected)
    while new := {
        index for index, test in enumerate(tests) if index not in found and test.passed >= family - len(found)
    }:
        found |= new
    return found


def _leading(reached: Sequence[bool]) -> int:
    return next((number for number, each in enumerate(reached) if not each), len(reached))


def _first_accepted(rejected: Callable[[float], bool], low: float, high: float) -> float:
    """The smallest accepted value, by halving; `low` if it is accepted itself."""
    if not rejected(low):
        return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return low
