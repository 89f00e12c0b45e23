"""Simulates coverage and size of every interval and test, and prints them as Markdown:

    python tests/stats/coverage.py --runs 2000 > tests/stats/COVERAGE.md

It takes about five minutes of one core with 2,000 runs; --runs 100 shows the layout.
"""

# ruff: noqa: B023 -- each lambda is called before its loop continues

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from simulated_scores import GRADED, NULLS, clustered, corpus, differs

from harness.metrics import auc, bleu, macro_f1, word_ppl
from harness.stats.intervals import interval
from harness.stats.observations import Observations
from harness.stats.paired import holm, paired
from harness.stats.proportions import mcnemar_interval, mcnemar_p, wilson
from harness.stats.seeds import difference as over_seeds

SIZES = (20, 50, 200, 1000)


def covers(make: Callable[[], Observations], true: float, runs: int) -> str:
    """Percentage of intervals with the true value, without those that are unknown."""
    found = [interval(make()) for _ in range(runs)]
    known = [each.low <= true + 1e-12 and true - 1e-12 <= each.high for each in found if each.low is not None]
    return f"{100 * np.mean(known):.1f}" if known else "-"


def size(make: Callable[[], tuple[Observations, Observations]], runs: int) -> str:
    """Percentages of true nulls that are rejected: with the guard, without it, and not testable."""
    found = [each for _ in range(runs) if (each := paired(*make())) is not None]
    shown = 100 * np.mean([each.p < 0.05 for each in found])
    tentative = 100 * np.mean([each.p >= 0.05 > (each.p_unguarded or 1.0) for each in found])
    silent = 100 * np.mean([each.untestable is not None for each in found])
    return f"{shown:.1f}" + (f" (△ {tentative:.1f})" if tentative else "") + (f" (? {silent:.0f})" if silent else "")


def row(name: str, cells: list[str]) -> None:
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def head(title: str, columns: list[str]) -> None:
    print(f"\n## {title}\n\n| | {' | '.join(columns)} |\n|-|{'-|' * len(columns)}")


def bleu_rows(rng: np.random.Generator, n: int) -> np.ndarray:
    """Counts of n-grams of translations with 5 to 40 words, each word right with a probability of its own."""
    words = rng.integers(5, 41, n)
    right = rng.beta(6, 3, n)
    totals = np.maximum(words[:, None] - np.arange(4), 0)
    found = rng.binomial(totals, right[:, None] ** np.arange(1, 5))
    return np.column_stack([words, words + rng.integers(-2, 3, n), found, totals]).astype(float)


def labels_of(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.choice(3, size=n, p=[0.6, 0.3, 0.1])


def label_rows(rng: np.random.Generator, wanted: np.ndarray, accuracy: float) -> np.ndarray:
    """Counts of three labels with shares .6, .3, .1; wrong predictions are of either other label."""
    n = len(wanted)
    predicted = np.where(rng.random(n) < accuracy, wanted, (wanted + rng.integers(1, 3, n)) % 3)
    one = np.eye(3)
    return np.column_stack([one[wanted] * (wanted == predicted)[:, None], one[predicted], one[wanted]])


def two_labels(rng: np.random.Generator, n: int, area: float, heavy: bool) -> list[list[float]]:
    positive = np.arange(n) < n // 4
    noise = rng.logistic(0, 1, n) if heavy else rng.normal(0, 1, n)
    shift = logistic_shift(area) if heavy else math.sqrt(2) * float(special.ndtri(area))
    return [[float(each), score] for each, score in zip(positive, (noise + shift * positive).tolist(), strict=True)]


def logistic_shift(area: float) -> float:
    """The shift of a logistic score that gives this area: (1 − s/(e^s − 1)) / (1 − e^−s)."""
    low, high = 1e-6, 50.0
    for _ in range(100):
        s = (low + high) / 2
        e = math.exp(-s)
        low, high = (s, high) if (1 - e - s * e) / (1 - e) ** 2 < area else (low, s)
    return low


def main(runs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    began = time.process_time()
    error = 100 * math.sqrt(0.05 * 0.95 / runs)
    print(f"# Coverage of intervals and size of tests\n\nMade by `tests/stats/coverage.py --runs {runs} --seed {seed}`;"
          f" the standard error of a percentage near 5 or 95 is {error:.1f}.")  # fmt: skip
    columns = [f"n = {n}" for n in SIZES]

    head("Single scores: percentage of 95 % intervals that cover", columns)
    shares = np.linspace(0.02, 0.98, 49)
    exact = {n: [coverage_of_wilson(n, p) for p in shares] for n in SIZES}
    row("0/1 (exact), mean over p", [f"{100 * np.mean(exact[n]):.1f}" for n in SIZES])
    row("0/1 (exact), least", [f"{100 * min(exact[n]):.1f}" for n in SIZES])
    for name, (draw, true) in GRADED.items():
        row(f"graded: {name}", [covers(lambda: Observations(draw(rng, n), bounds=(0, 1)), true, runs) for n in SIZES])
    true = bleu.value(tuple(bleu_rows(np.random.default_rng(1), 400_000).sum(axis=0)))  # type: ignore[misc]
    row(
        "BLEU",
        [
            covers(lambda: Observations(bleu_rows(rng, n), bleu.value, bounds=(0, 100)), true, max(200, runs // 5))
            for n in SIZES
        ],
    )

    def documents(n: int) -> Observations:
        loss, words = corpus(rng, n)
        return Observations(np.column_stack([-loss, words]), word_ppl.value)

    row("perplexity, documents of uneven length", [covers(lambda: documents(n), math.exp(2.8), runs) for n in SIZES])
    for accuracy in (0.8, 0.97):
        true = macro_f1.value(tuple(label_rows(rng, labels_of(rng, 2_000_000), accuracy).sum(axis=0)))  # type: ignore[misc]
        row(
            f"macro-F1, accuracy {accuracy}",
            [
                covers(
                    lambda: Observations(label_rows(rng, labels_of(rng, n), accuracy), macro_f1.value, bounds=(0, 1)),
                    true,
                    runs,
                )
                for n in SIZES
            ],
        )
    for area in (0.7, 0.9, 0.97):
        for heavy in (False, True):
            row(f"AUC {area}, {'logistic' if heavy else 'normal'}, a quarter positive",
                [covers(lambda: Observations(two_labels(rng, n, area, heavy), whole=auc.whole, bounds=(0, 1)), area, max(200, runs // 5)) for n in SIZES])  # fmt: skip
    groups = (6, 12, 30, 100)
    head("Clustered scores: percentage of 95 % intervals that cover", [f"{g} clusters" for g in groups])
    for p in (0.5, 0.9):

        def passages(g: int) -> Observations:
            sizes = rng.geometric(0.1, g)
            chance = np.repeat(rng.beta(3 * p, 3 * (1 - p), g), sizes)
            labels = tuple(np.repeat(np.arange(g).astype(str), sizes).tolist())
            return Observations((rng.random(len(chance)) < chance).astype(float), clusters=labels)

        row(f"0/1, share {p}", [covers(lambda: passages(g), p, runs) for g in groups])

    head(
        "Paired tests: percentage of true nulls that are shown at .05 (△: unless rare losses hide; ?: cannot be told)",
        columns,
    )
    for share in (0.05, 0.3, 0.8):
        row(
            f"0/1, {share:.0%} differ",
            [
                f"{100 * np.mean([mcnemar_p(n, *split(rng, n, share)) < 0.05 for _ in range(5 * runs)]):.1f}"
                for n in SIZES
            ],
        )
    for name, difference in NULLS.items():
        row(
            name,
            [size(lambda: differs(difference(rng, n), bounds=(0, 1)), runs if n < 1000 else runs // 2) for n in SIZES],
        )
    row("lognormal, unbounded", [size(lambda: differs(rng.lognormal(0, 1.2, n) - math.exp(0.72)), runs) for n in SIZES])
    row("t₃, unbounded", [size(lambda: differs(rng.standard_t(3, n)), runs) for n in SIZES])

    def translations(n: int) -> tuple[Observations, Observations]:
        first, second = bleu_rows(rng, n), bleu_rows(rng, n)
        second[:, [1]] = first[:, [1]]
        return Observations(first, bleu.value, bounds=(0, 100)), Observations(second, bleu.value, bounds=(0, 100))

    row("BLEU", [size(lambda: translations(n), max(200, runs // 5)) for n in SIZES])

    def perplexities(n: int) -> tuple[Observations, Observations]:
        loss, words = corpus(rng, n)
        a, b = (loss + words * rng.normal(0, 0.2, n) for _ in range(2))
        return Observations(np.column_stack([-a, words]), word_ppl.value), Observations(
            np.column_stack([-b, words]), word_ppl.value
        )

    row("perplexity, documents of uneven length", [size(lambda: perplexities(n), runs) for n in SIZES])

    def areas(n: int) -> tuple[Observations, Observations]:
        base = np.array(two_labels(rng, n, 0.85, heavy=True))
        a, b = (np.column_stack([base[:, 0], base[:, 1] + rng.normal(0, 1, n)]).tolist() for _ in range(2))
        return Observations(a, whole=auc.whole, bounds=(0, 1)), Observations(b, whole=auc.whole, bounds=(0, 1))

    row("AUC", [size(lambda: areas(n), max(200, runs // 5)) for n in SIZES])

    def labelled(n: int) -> tuple[Observations, Observations]:
        wanted = labels_of(rng, n)
        first, second = (Observations(label_rows(rng, wanted, 0.8), macro_f1.value, bounds=(0, 1)) for _ in range(2))
        return first, second

    row("macro-F1", [size(lambda: labelled(n), runs // 2) for n in SIZES])
    head("Clustered paired tests: percentage of true nulls that are shown", [f"{g} clusters" for g in (5, *groups)])

    def passages_differ(g: int, skewed: bool) -> tuple[Observations, Observations]:
        values, labels = clustered(rng, g, 0.0 if skewed else 1.0)
        if skewed:
            sizes = np.bincount(np.array(labels, dtype=int))
            values = values + np.repeat(rng.exponential(1, g) - 1, sizes)
        return differs(values, clusters=labels)

    for skewed in (False, True):
        row(
            "effects exponential" if skewed else "effects normal",
            [size(lambda: passages_differ(g, skewed), runs // 2) for g in (5, *groups)],
        )

    head(
        "Paired 0/1: percentage of 95 % intervals that cover (5 to 60 % differ, true difference 0 to 5 points)", columns
    )
    row("mean", [f"{paired_coverage(rng, n, runs):.1f}" for n in SIZES])

    head("Familywise error and seeds", ["percentage"])
    row("7 tasks × 3 variants (21 tests), n = 200: any null shown", [f"{familywise(rng, runs // 2):.1f}"])
    for k, sd, trained in (
        (2, 0.02, False),
        (3, 0.0, False),
        (3, 0.02, False),
        (3, 0.05, False),
        (3, 0.02, True),
        (5, 0.02, True),
    ):
        row(
            f"{k} seeds, sd {sd}, against {'a trained variant' if trained else 'base'}, n = 200: covers, shown",
            [seeds(rng, k, sd, trained, runs // 2)],
        )
    print(f"\n{time.process_time() - began:.0f} seconds of one core.")


def coverage_of_wilson(n: int, p: float) -> float:
    hits = np.arange(n + 1)
    ends = [wilson(h / n, n) for h in hits.tolist()]
    inside = np.array([low <= p <= high for low, high in ends])
    chance = special.bdtr(hits, n, p) - np.where(hits > 0, special.bdtr(np.maximum(hits - 1, 0), n, p), 0)
    return float(np.sum(chance[inside]))


def split(rng: np.random.Generator, n: int, share: float, difference: float = 0.0) -> tuple[int, int]:
    wins, losses, _ = rng.multinomial(n, [(share + difference) / 2, (share - difference) / 2, 1 - share])
    return int(wins), int(losses)


def paired_coverage(rng: np.random.Generator, n: int, runs: int) -> float:
    covered = []
    for _ in range(runs):
        share = rng.uniform(0.05, 0.6)
        true = rng.uniform(0, 0.05)
        low, high = mcnemar_interval(n, *split(rng, n, share, true))
        covered.append(low <= true <= high)
    return 100 * float(np.mean(covered))


def familywise(rng: np.random.Generator, runs: int) -> float:
    wrong = 0
    for _ in range(runs):
        p_values = []
        for _ in range(7):
            ease = rng.random(200)
            scores = [(rng.random(200) * 0.4 + 0.3 < ease).astype(float) for _ in range(3)]
            for a, b in ((0, 1), (0, 2), (1, 2)):
                wins, losses = int(np.sum(scores[a] > scores[b])), int(np.sum(scores[a] < scores[b]))
                p_values.append(mcnemar_p(200, wins, losses))
        wrong += min(holm(p_values)) < 0.05
    return 100 * wrong / runs


def seeds(rng: np.random.Generator, k: int, sd: float, trained: bool, runs: int, n: int = 200) -> str:
    """A 0/1 score of which 8 % of the answers change between trainings; seeds move the share by about `sd`."""

    def trainings(count: int, deviation: float, ease: Any) -> list[Observations]:
        table = np.where(rng.random((count, n)) < 0.08, rng.normal(0, 1, (count, n)), ease)
        return [Observations((each > 0).astype(float)) for each in table + 2.5 * rng.normal(0, deviation, (count, 1))]

    found = []
    for _ in range(runs):
        ease = rng.normal(0, 1, n)
        found.append(over_seeds(trainings(k, sd, ease), trainings(k if trained else 1, sd if trained else 0.0, ease)))
    known = [each for each in found if each is not None]
    covered = 100 * np.mean([each.low <= 0 <= each.high for each in known])
    return f"{covered:.1f}, {100 * np.mean([each.p < 0.05 for each in known]):.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=20)
    given: dict[str, Any] = vars(parser.parse_args())
    main(**given)
