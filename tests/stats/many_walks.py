"""The levels that many sequential tests of 0/1 scores have reached, for all of them at once: for simulations of families.

`SequentialTest` evaluates one test; this computes the same boundaries for thousands of rows in one array.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.stats.alpha_spending import _ROUNDING, RHO
from harness.stats.sequential import LEVEL, evaluation_points

Counts = NDArray[np.int64]


def passed(wins: Counts, losses: Counts, total: int, tests: int) -> Counts:
    """Counts the levels that tests have passed after every pack, as `SequentialTest.passed` does.

    Args:
        wins: `[rows, packs]` wins in each pack.
        losses: Its losses.
        total: All samples.
        tests: Number of levels: 0.05, 0.05 / 2, … 0.05 / `tests`.

    Returns:
        `[rows, packs]` passed levels, of the direction that passed more.
    """
    levels = np.stack([reached(wins, losses, total, LEVEL / number / 2) for number in range(1, tests + 1)])
    leading = np.cumprod(np.maximum.accumulate(levels, axis=-1), axis=0).sum(axis=0)  # by direction, row and pack
    return leading.max(axis=0)


def reached(wins: Counts, losses: Counts, total: int, level: float) -> NDArray[np.bool_]:
    """`[direction, rows, packs]`: whether the boundary of a level is reached after a pack."""
    differing = wins + losses
    width = int(differing.sum(axis=1).max()) + 1
    tosses = np.arange(differing.max() + 1)
    chances = special.comb(tosses[:, None], tosses) * 0.5 ** tosses[:, None]  # of each number of wins, by tosses
    probabilities = np.zeros((len(wins), width))
    probabilities[:, 0] = 1
    spent = np.zeros(len(wins))
    found, used = [], 1
    for pack, n in enumerate(evaluation_points(total)):
        most = int(differing[:, pack].max())
        after = np.zeros_like(probabilities)
        for step in range(most + 1):
            held = min(used, width - step)
            after[:, step : step + held] += chances[differing[:, pack], step][:, None] * probabilities[:, :held]
        used = min(used + most, width)
        tails = np.cumsum(after[:, ::-1], axis=1)[:, ::-1]
        left = level * (n / total) ** RHO - spent
        critical = np.sum(tails > (left * (1 + _ROUNDING))[:, None], axis=1)
        spent += np.take_along_axis(np.pad(tails, ((0, 0), (0, 1))), critical[:, None], axis=1)[:, 0]
        probabilities = np.where(np.arange(width) < critical[:, None], after, 0.0)
        found.append([counts[:, : pack + 1].sum(axis=1) >= critical for counts in (wins, losses)])
    return np.moveaxis(np.array(found), 0, -1)
