"""The order of variants over several tasks: mean win rate, Borda points and ranks, with their uncertainty over tasks.

The tasks are resampled, so an interval says how far another choice of tasks would move a number. It says nothing of the
samples of a task: for these, see the ranks of each task (`harness.stats.ranking`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from harness.stats.flips import EXACT_UP_TO
from harness.stats.ranking import Rank, ranks
from harness.stats.units import Array

FEWEST_TASKS = 6
"""With fewer tasks there is no interval, and no order can be shown: the smallest two-sided p-value of 5 tasks is 2 / 2^5 = 0.06."""
DRAWS = 2_000
"""Resampled sets of tasks, and random flips above `EXACT_UP_TO` tasks."""
_ALPHA = 0.05
_PAIRS_AT_ONCE = 500


class TaskMean(NamedTuple):
    """A mean over tasks with its 95 % interval; None for the ends with fewer than `FEWEST_TASKS` tasks."""

    value: float
    low: float | None
    high: float | None


class TaskPlace(NamedTuple):
    """The place of a variant among others."""

    rank: Rank | None
    """The best and the worst possible rank; None for a variant without a score on every task."""
    win_rate: TaskMean | None
    """TaskMean over tasks of the share of other variants with a worse score; equal scores count half. None without another variant."""
    borda: TaskMean | None
    """TaskMean points per task: one for each variant with a worse score, half a point for each with the same."""
    tasks: int
    """Tasks with a score."""


def places(names: Sequence[str], scores: Array, *, seed: int = 0) -> dict[str, TaskPlace]:
    """Orders variants over tasks.

    One variant is shown to be better than another if a sign-flip test of the differences of their win rates over tasks has
    p < .05, not adjusted for the number of pairs.

    Args:
        names: The variants.
        scores: `[variants, tasks]`, higher is better; NaN where a variant has no score.
        seed: Seed of the draws.

    Example:
        >>> found = places(["lora", "base"], np.array([[0.9] * 6, [0.1] * 6]))
        >>> found["lora"].rank, found["base"].rank, found["lora"].win_rate.value
        (Rank(best=1, worst=1), Rank(best=2, worst=2), 1.0)
    """
    points = borda_points(scores)
    others = np.maximum(np.sum(~np.isnan(scores), axis=0) - 1, 0)
    points[:, others == 0] = np.nan
    shares = points / np.where(others == 0, np.nan, others)
    known = ~np.isnan(scores)
    counts = _draws(scores.shape[1], seed)
    won, earned = _means(shares, counts), _means(points, counts)
    complete = [name for name, row in zip(names, known, strict=True) if len(row) and row.all()]
    shown = _shown(complete, shares[[names.index(name) for name in complete]], seed) if complete else set()
    ranked = ranks(complete, lambda a, b: (a, b) in shown)
    return {
        name: TaskPlace(ranked.get(name), won[index], earned[index], int(known[index].sum()))
        for index, name in enumerate(names)
    }


def borda_points(scores: Array) -> Array:
    """`[variants, tasks]` variants with a worse score, equal ones counted half; NaN where there is no score."""
    with np.errstate(invalid="ignore"):
        worse = np.stack([np.nansum(scores < row, axis=0) for row in scores])
        same = np.stack([np.nansum(scores == row, axis=0) - 1 for row in scores])
    return np.where(np.isnan(scores), np.nan, worse + 0.5 * same)


def _draws(tasks: int, seed: int) -> Array:
    """`[draws, tasks]` how often each task is in each resampled set."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(tasks, np.full(tasks, 1 / tasks), DRAWS).astype(float) if tasks else np.zeros((0, 0))


def _means(values: Array, counts: Array) -> list[TaskMean | None]:
    """The mean of each row with its interval over resampled columns."""
    found: list[TaskMean | None] = []
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    for row, there in zip(filled, known, strict=True):
        if not there.any():
            found.append(None)
            continue
        low = high = None
        if there.sum() >= FEWEST_TASKS:
            weights = counts[:, there]
            sizes = weights.sum(axis=1)
            means = (weights @ row[there])[sizes > 0] / sizes[sizes > 0]
            low, high = (float(end) for end in np.percentile(means, [2.5, 97.5]))
        found.append(TaskMean(float(row[there].mean()), low, high))
    return found


def _shown(names: Sequence[str], shares: Array, seed: int) -> set[tuple[str, str]]:
    """Pairs of which the first was shown to be better than the second."""
    tasks = shares.shape[1]
    pairs = list(combinations(range(len(names)), 2))
    if tasks < FEWEST_TASKS or not pairs:
        return set()
    if tasks <= EXACT_UP_TO:
        signs = np.where(np.arange(2**tasks)[:, None] >> np.arange(tasks) & 1, -1.0, 1.0)
    else:
        drawn = np.random.default_rng(seed).integers(0, 2, (DRAWS, tasks)) * 2.0 - 1
        signs = np.concatenate([np.ones((1, tasks)), drawn])
    found = set()
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        part = np.array(pairs[start : start + _PAIRS_AT_ONCE])
        differences = shares[part[:, 0]] - shares[part[:, 1]]
        sums = differences.sum(axis=1)
        p = np.mean(np.abs(differences @ signs.T) >= np.abs(sums)[:, None] * (1 - 1e-9) - 1e-12, axis=1)
        for (one, other), total, value in zip(part, sums, p, strict=True):
            if value < _ALPHA:
                found.add((names[one], names[other]) if total > 0 else (names[other], names[one]))
    return found
