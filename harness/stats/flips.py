"""The sign-flip test of clustered differences: if two variants are equal, each cluster's total is as likely reversed.

>>> import numpy as np
>>> flip_p(np.ones(6), np.ones(6))
0.03125
"""

from __future__ import annotations

import numpy as np

from harness.stats.units import Array

EXACT_UP_TO = 13
"""With more clusters, flips are drawn at random instead of all 2^G being computed."""
FLIPS = 9_999
"""Random flips: the smallest p-value, 0.0001, can be shown among 500 tests."""
_AT_ONCE = 2_000_000


def flip_p(totals: Array, sizes: Array, *, seed: int = 0) -> float:
    """Computes the two-sided p-value of a mean of 0: the share of flips with a studentised mean as far from 0.

    Args:
        totals: `[G]` sums of the differences in each cluster.
        sizes: `[G]` numbers of samples.
        seed: Seed of the random flips.
    """
    count, whole = len(totals), float(sizes.sum())
    squares, crossed, own = totals @ totals, totals * sizes, sizes @ sizes

    def statistic(signs: Array) -> Array:
        mean = signs @ totals / whole
        spread = squares - 2 * mean * (signs @ crossed) + mean**2 * own  # of the flipped totals around their mean
        return np.abs(mean) / np.sqrt(np.maximum(spread, 0) + 1e-300)

    observed = float(statistic(np.ones((1, count)))[0]) * (1 - 1e-9)
    if count <= EXACT_UP_TO:
        bits = np.arange(2**count)[:, None] >> np.arange(count) & 1
        return float(np.mean(statistic(np.where(bits, -1.0, 1.0)) >= observed))
    generator, reached, done = np.random.default_rng(seed), 1, 0
    step = max(1, _AT_ONCE // count)
    while done < FLIPS:
        rows = min(step, FLIPS - done)
        signs = np.where(generator.integers(0, 2, (rows, count), dtype=np.int8), 1.0, -1.0)
        reached += int(np.sum(statistic(signs) >= observed))
        done += rows
    return reached / (FLIPS + 1)
