"""Simulates `--until-decided`: false positives at any stopping time, samples, power, intervals and exclusions.

    python -m tests.stats.until_decided [--runs 20000]

prints the tables of UNTIL_DECIDED.md as Markdown, in about five minutes on one core; the suite runs a few hundred runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.stats.proportions import mcnemar_p
from harness.stats.sequential import LEVEL, SequentialTest, evaluation_points
from tests.stats.many_walks import Counts, passed, reached

Array = NDArray[np.float64]
_AT_ONCE = 250
"""Runs of a family whose tests are computed together."""


class FalsePositives(NamedTuple):
    """Share of simulated nulls that were rejected after any pack, or after the last."""

    peeking: float
    fixed: float
    sequential: float


class Power(NamedTuple):
    """Results of runs with a true difference."""

    fixed: float
    decided: float
    samples: float
    covered: float
    shown: float
    """Mean difference at the stop."""


class Exclusions(NamedTuple):
    """Results of runs with a smallest difference that matters."""

    different: float
    excluded: float
    samples: float


class Family(NamedTuple):
    """Results of several comparisons that are decided together."""

    familywise: float
    power: dict[float, float]
    samples: dict[float, float]


def signs(rng: np.random.Generator, total: int, differing: float, difference: float) -> list[Array]:
    """Draws the differences of 0/1 scores, by pack."""
    better = (differing + difference) / 2
    drawn = rng.choice([1.0, -1.0, 0.0], size=total, p=[better, differing - better, 1 - differing])
    return np.split(drawn, evaluation_points(total)[:-1])


def false_positives(differing: float, *, runs: int, total: int = 1000, seed: int = 0) -> FalsePositives:
    """Counts false positives of McNemar's test after every pack, after the last, and of the sequential test."""
    rng, found = np.random.default_rng(seed), np.zeros(3)
    for _ in range(runs):
        test = SequentialTest(total, binary=True)
        n = wins = losses = 0
        p_values = []
        for pack in signs(rng, total, differing, 0.0):
            n, wins, losses = n + len(pack), wins + int(np.sum(pack > 0)), losses + int(np.sum(pack < 0))
            p_values.append(mcnemar_p(n, wins, losses))
            if not test.passed:
                test.add(pack)
        found += [min(p_values) < 0.05, p_values[-1] < 0.05, test.passed > 0]
    return FalsePositives(*(found / runs).tolist())


def power(differing: float, difference: float, *, runs: int, total: int = 1000, seed: int = 0) -> Power:
    """Measures the samples of a single comparison, and whether its interval covers the true difference."""
    rng, found = np.random.default_rng(seed), np.zeros(5)
    for _ in range(runs):
        packs = signs(rng, total, differing, difference)
        test = SequentialTest(total, binary=True)
        for pack in packs:
            test.add(pack)
            if test.passed:
                break
        low, high = test.interval()
        every = np.concatenate(packs)
        p = mcnemar_p(total, int(np.sum(every > 0)), int(np.sum(every < 0)))
        found += [p < 0.05, test.passed > 0, test.n, low <= difference <= high, test.value]
    return Power(*(found / runs).tolist())


def exclusions(
    differing: float, difference: float, *, runs: int, total: int = 2000, smallest: float = 0.05, seed: int = 0
) -> Exclusions:
    """Measures how soon a difference that matters is excluded, and how often wrongly."""
    rng, found = np.random.default_rng(seed), np.zeros(3)
    for _ in range(runs):
        test = SequentialTest(total, binary=True, smallest=smallest)
        for pack in signs(rng, total, differing, difference):
            test.add(pack)
            if test.passed or test.excluded:
                break
        found += [test.passed > 0, test.excluded and not test.passed, test.n]
    return Exclusions(*(found / runs).tolist())


def family(effects: Sequence[float], *, runs: int, total: int = 512, differing: float = 0.2, seed: int = 0) -> Family:
    """Decides several comparisons together by Holm's step-down."""
    rng, wrong = np.random.default_rng(seed), 0
    truth, ends = np.array(effects), np.array(evaluation_points(total))
    rejections, samples = np.zeros(len(truth)), np.zeros(len(truth))
    for first in range(0, runs, _AT_ONCE):
        count = min(_AT_ONCE, runs - first)
        better = np.tile((differing + truth) / 2, count)[:, None]
        drawn = rng.random((len(better), total))
        pieces = np.add.reduceat(drawn < better, [0, *ends[:-1]], axis=1, dtype=np.int64)
        either = np.add.reduceat(drawn < differing, [0, *ends[:-1]], axis=1, dtype=np.int64)
        stopped = _stops(_levels(pieces, either - pieces, total, len(truth)))
        rejected = stopped < len(ends)
        wrong += int(np.sum((rejected & (truth == 0)).any(axis=1)))
        rejections += rejected.sum(axis=0)
        samples += ends[np.minimum(stopped, len(ends) - 1)].sum(axis=0)
    distinct = sorted(set(effects), reverse=True)
    return Family(
        wrong / runs,
        {each: float(rejections[truth == each].mean() / runs) for each in distinct},
        {each: float(samples[truth == each].mean() / runs) for each in distinct},
    )


def _levels(wins: Counts, losses: Counts, total: int, tests: int) -> Counts:
    """`[runs, tests, packs]` passed levels; 0 in runs without a rejection, which need the strictest level first."""
    runs = len(wins) // tests
    strictest = reached(wins, losses, total, LEVEL / tests / 2).reshape(2, runs, -1).any(axis=(0, 2))
    levels = np.zeros((runs, tests, wins.shape[1]), dtype=np.int64)
    rows = np.repeat(strictest, tests)
    if strictest.any():
        levels[strictest] = passed(wins[rows], losses[rows], total, tests).reshape(-1, *levels.shape[1:])
    return levels


def _stops(levels: Counts) -> Counts:
    """`[runs, tests]`: the pack after which Holm's step-down rejects a test; the number of packs if it never does.

    Args:
        levels: `[runs, tests, packs]` passed levels.
    """
    runs, tests, packs = levels.shape
    stopped = np.full((runs, tests), packs)
    for pack in range(packs):
        while True:
            rejected = stopped < packs
            needed = tests - rejected.sum(axis=1, keepdims=True)
            new = ~rejected & (levels[:, :, pack] >= needed)
            if not new.any():
                break
            stopped[new] = pack
    return stopped


def graded(kind: str, rng: np.random.Generator, total: int) -> Array:
    """Draws the differences of graded scores, with mean 0."""
    if kind == "rare large losses":
        return np.where(rng.random(total) < 0.05, -0.475, 0.025)
    if kind == "30 % ties":
        return np.where(rng.random(total) < 0.3, 0.0, rng.normal(0, 0.2, total)).clip(-1, 1)
    return (rng.standard_t(3, total) * 0.08).clip(-1, 1)


def graded_nulls(kind: str, *, runs: int, total: int = 1000, difference: float = 0.0, seed: int = 0) -> float:
    """Measures the share of runs in which a graded difference is shown after any pack."""
    return graded_power(kind, runs=runs, total=total, difference=difference, seed=seed)[0]


def graded_power(
    kind: str, *, runs: int, total: int = 1000, difference: float = 0.0, seed: int = 0
) -> tuple[float, float]:
    """Measures the share of runs in which a graded difference is shown, and the mean number of samples."""
    rng, found = np.random.default_rng(seed), np.zeros(2)
    for _ in range(runs):
        test = SequentialTest(total, binary=False)
        drawn = (graded(kind, rng, total) + difference).clip(-1, 1)
        for pack in np.split(drawn, evaluation_points(total)[:-1]):
            test.add(pack)
            if test.passed:
                break
        found += [test.passed > 0, test.n]
    shown, samples = (found / runs).tolist()
    return shown, samples


def tables(runs: int) -> Iterator[str]:
    """Yields the lines of the tables."""
    yield f"False positives in {runs:,} true nulls, % (N = 1000)\n"
    yield "| samples that differ | a p-value read after every pack | fixed size | `--until-decided` |"
    yield "|-|-|-|-|"
    for differing in (0.02, 0.1, 0.3):
        found = false_positives(differing, runs=runs, seed=1)
        yield f"| {differing:.0%} | " + " | ".join(f"{share:.1%}" for share in found) + " |"
    few = runs // 20
    yield f"\nPower and samples in {few:,} runs (N = 1000)\n"
    yield "| samples that differ | true difference | power at fixed size | power | mean samples | interval covers | mean difference shown |"
    yield "|-|-|-|-|-|-|-|"
    places = ((0.1, 0.05), (0.2, 0.02), (0.2, 0.05), (0.2, 0.1), (0.2, 0.2), (0.3, 0.05), (0.3, 0.1))
    for differing, difference in places:
        each = power(differing, difference, runs=few, seed=2)
        yield (
            f"| {differing:.0%} | {100 * difference:.0f} points | {each.fixed:.0%} | {each.decided:.0%} |"
            f" {each.samples:.0f} | {each.covered:.1%} | {100 * each.shown:.1f} points |"
        )
    yield f"\n`--smallest 5pts` in {few:,} runs (N = 2000)\n"
    yield "| samples that differ | true difference | difference shown | 5 points excluded | mean samples |"
    yield "|-|-|-|-|-|"
    for differing in (0.1, 0.2, 0.3):
        for difference in (0.0, 0.02, 0.05):
            ended = exclusions(differing, difference, runs=few, seed=3)
            yield (
                f"| {differing:.0%} | {100 * difference:.0f} points | {ended.different:.1%} | {ended.excluded:.1%} |"
                f" {ended.samples:.0f} |"
            )
    yield "\nFourteen comparisons decided together (N = 512, 20 % of the samples differ)\n"
    yield "| true differences | runs | any false positive | power | mean samples |"
    yield "|-|-|-|-|-|"
    mixed, nulls = (0.1,) * 4 + (0.05,) * 4 + (0.0,) * 6, (0.0,) * 14
    for name, effects, count in (("4 × 10, 4 × 5, 6 × 0 points", mixed, runs // 4), ("14 × 0 points", nulls, runs)):
        together = family(effects, runs=count, seed=4)
        shown = ", ".join(f"{100 * size:.0f}: {share:.0%}" for size, share in together.power.items() if size)
        used = ", ".join(f"{100 * size:.0f}: {samples:.0f}" for size, samples in together.samples.items())
        yield f"| {name} | {count:,} | {together.familywise:.1%} | {shown} | {used} |"
    yield f"\nGraded scores in {runs // 5:,} nulls and {few:,} runs with 2 points (N = 1000)\n"
    yield "| differences | false positives | power at 2 points | mean samples |"
    yield "|-|-|-|-|"
    for kind in ("30 % ties", "rare large losses", "heavy tails"):
        shown, samples = graded_power(kind, runs=few, difference=0.02, seed=6)
        yield f"| {kind} | {graded_nulls(kind, runs=runs // 5, seed=7):.1%} | {shown:.0%} | {samples:.0f} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000)
    for line in tables(parser.parse_args().runs):
        print(line, flush=True)
