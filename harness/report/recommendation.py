"""The recommendation of a run: the cheapest variant that is shown to be within two points of the best.

It says no more than the intervals of the run's comparisons do. A variant is within the margin if the low end of its mean
difference from every other variant is above minus the margin, so it does not matter which of them is truly the best.
Intervals are widened for the number of variants, so that a variant which is worse by more than the margin is recommended in
at most 2.5 % of runs.

Example:
    >>> recommendation(run).text  # doctest: +SKIP
    'qlora: within 2 points of the best on average over 5 trained tasks, at 0.61 × the peak GPU memory in training of lora'
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations

from harness.report.costs import Measure, measures, training_time_ratio
from harness.report.gains import POINTS, gains, mean_change, trained_for, units
from harness.report.numbers import Scale, counted, listing
from harness.report.scores import titles
from harness.results import Comparison, Recommendation, Run, TaskInfo, Variant, Verdict
from harness.stats.pooled import Estimate
from harness.stats.ratios import Ratio

MARGIN = 2.0
"""Points by which a recommended variant may be worse than the best."""

EQUAL_COST = 1.05
"""Peaks of memory whose ratio is smaller do not decide between two variants."""

MOST_SAMPLES = 100
"""A larger factor of samples is shown as `more than 100 times`."""

_POINTS = Scale(1, 1)


def recommendation(run: Run) -> Recommendation | None:
    """Recommends variants, or says what would decide; None if nothing was trained or there is nothing to compare with."""
    alive = _candidates(run)
    if len(alive) < 2 or not any(variant.train for variant in alive):
        return None
    tasks, kind = _judged_tasks(run, alive)
    if not tasks:
        return _made(
            run, (), "undecided: no trained task has a headline in points (of 100), to which the margin could apply"
        )
    scales, compared_on = units(run), _comparisons(run)
    found: dict[tuple[str, str], Estimate] = {}
    for a, b in permutations(alive, 2):
        compared = [(task, compared_on.get((task.name, a.name, b.name))) for task in tasks]
        unknown = [titles(run)[task.name] for task, each in compared if each is None or each.untestable]
        mean = mean_change(scales, [(task, each) for task, each in compared if each is not None])
        if unknown or mean is None:
            text = f"undecided: the difference of {a.name} from {b.name} on {listing(unknown)} cannot be told"
            return _made(run, (), text, tasks)
        found[a.name, b.name] = mean.widened(len(alive) - 1)
    verdicts = {place: each.verdict for place, each in compared_on.items()}
    return _Field(run, alive, tasks, kind, found, verdicts).decide()


@dataclass(frozen=True)
class _Field:
    """The variants that can be recommended, with the mean difference of each pair."""

    run: Run
    variants: Sequence[Variant]
    tasks: Sequence[TaskInfo]
    kind: str
    differences: dict[tuple[str, str], Estimate]
    verdicts: dict[tuple[str, str, str], Verdict]
    """By task and pair: whether the first is better or worse than the second."""

    def decide(self) -> Recommendation:
        within = [each for each in self.variants if self._worst(each).low >= -MARGIN]
        if not within:
            return self._undecided_best()
        untrained = [each for each in within if each.train is None]
        if untrained:
            most = max(self._against(other, each).high for each in untrained for other in self._others(each))
            others = f"are at most {most:.1f} points better" if most > 0 else "are shown to be worse"
            names = " or ".join(each.name for each in untrained)
            return self._made(
                untrained,
                f"{names}: within {MARGIN:g} points of the best {self._where} without training; others {others}",
            )
        worth = [each for each in within if self._least_gain(each) is None]
        if not worth:
            return self._undecided_gain(max(within, key=self._standing))
        choices, cost = cheapest(self.run, worth)
        names = " or ".join(each.name for each in choices)
        text = f"{names}: within {MARGIN:g} points of the best {self._where}"
        if cost is not None:
            text += self._cost_words(choices, worth, cost)
        elif len(worth) > 1:
            text += "; no cost of all of them was measured on a quiet machine"
        return self._made(
            choices, text + self._cheaper_undecided(choices[0], within, cost) + self._forgotten(choices), cost
        )

    @property
    def _where(self) -> str:
        return f"on average over {self.kind}" if len(self.tasks) > 1 else f"on {titles(self.run)[self.tasks[0].name]}"

    def _others(self, variant: Variant) -> list[Variant]:
        return [each for each in self.variants if each.name != variant.name]

    def _against(self, variant: Variant, other: Variant) -> Estimate:
        return self.differences[variant.name, other.name]

    def _standing(self, variant: Variant) -> float:
        """The mean difference from all others: the order of the scores themselves."""
        return sum(self._against(variant, other).value for other in self._others(variant))

    def _worst(self, variant: Variant) -> Estimate:
        """The difference from the variant that may be better by the most."""
        return min((self._against(variant, other) for other in self._others(variant)), key=lambda each: each.low)

    def _least_gain(self, variant: Variant) -> tuple[Variant, Estimate] | None:
        """An untrained variant over which no gain is shown, with the difference.

        A gain needs the interval of the mean and the adjusted verdict of at least one task.
        """
        for other in self.variants:
            better = any(self.verdicts.get((task.name, variant.name, other.name)) == "better" for task in self.tasks)
            if other.train is None and not (better and self._against(variant, other).low > 0):
                return other, self._against(variant, other)
        return None

    def _undecided_best(self) -> Recommendation:
        best = max(self.variants, key=self._standing)
        rival, gap = min(
            ((other, self._against(best, other)) for other in self._others(best)), key=lambda pair: pair[1].low
        )
        more = _more_samples(gap.value - gap.low, gap.value + MARGIN)
        leads = all(self._against(best, other).value > 0 for other in self._others(best))
        standing = f"{best.name} {'is best' if leads else 'is as good as any'} {self._where}"
        text = f"undecided: {standing}, but may be {-gap.low:.1f} points worse than {rival.name}; {more}"
        return self._made([], text)

    def _undecided_gain(self, best: Variant) -> Recommendation:
        least = self._least_gain(best)
        assert least is not None
        base, gap = least
        shown = _POINTS.difference(gap.value, gap.low, gap.high)
        more = _more_samples(gap.value - gap.low, gap.value) if gap.low <= 0 else "no task shows it over all tests"
        text = (
            f"undecided: {best.name} is within {MARGIN:g} points of the best {self._where}, but no gain over {base.name} is"
            f" shown ({shown}); {more}"
        )
        return self._made([], text)

    def _cost_words(self, choices: Sequence[Variant], worth: Sequence[Variant], cost: Measure) -> str:
        best = max(self.variants, key=self._standing)
        ratio = None if best in choices else _ratio(cost, choices[0], best)
        if ratio is not None:
            return f", at {_shown(ratio)} the {cost.words} of {best.name}"
        return f", with the least {cost.words} among {listing(each.name for each in worth)}" if len(worth) > 1 else ""

    def _cheaper_undecided(self, choice: Variant, within: Sequence[Variant], cost: Measure | None) -> str:
        """Names the trained variants that may be as good, unless they are known to be no cheaper than the choice."""
        words = []
        for each in self.variants:
            ratio = _ratio(cost, each, choice) if cost else None
            dearer = ratio is not None and ratio.low is not None and ratio.low >= 1
            if each.train is None or each in within or self._is_out(each) or dearer:
                continue
            gap = self._worst(each)
            at = f" at {_shown(ratio)} its {cost.words}" if cost and ratio else ""
            needed = gap.value + MARGIN
            more = f"; {_more_samples(gap.value - gap.low, needed)}" if needed > 0 else ""
            words.append(f"{each.name}{at} (up to {-gap.low:.1f} points worse{more})")
        return f"; not shown to be as good: {listing(words)}" if words else ""

    def _is_out(self, variant: Variant) -> bool:
        """Whether a variant is shown to be worse than another one by more than the margin."""
        return any(self._against(variant, other).high < -MARGIN for other in self._others(variant))

    def _forgotten(self, choices: Sequence[Variant]) -> str:
        names, run = titles(self.run), self.run
        lost = {gain.variant: gain.other.worse for gain in gains(run)}
        words = [
            f"; {each.name} is worse than {run.baseline} on {listing(names[task] for task in lost[each.name])}"
            for each in choices
            if lost.get(each.name)
        ]
        return "".join(words)

    def _made(self, choices: Sequence[Variant], text: str, cost: Measure | None = None) -> Recommendation:
        return _made(self.run, [each.name for each in choices], text, self.tasks, cost)


def cheapest(run: Run, variants: Sequence[Variant]) -> tuple[list[Variant], Measure | None]:
    """Chooses the variants with the lowest cost that is known for all: peak memory in training, else training time.

    Args:
        run: Their run.
        variants: At least one.

    Returns:
        The cheapest, and those that are not shown to be more expensive; and the cost, None if none is known for all.
    """
    known = {measure.name: measure for measure in measures(run)}
    for measure in (known[name] for name in ("peak GPU", "peak RSS", "train") if name in known):
        costs = [(cost, each) for each in variants if (cost := measure.comparable(each)) is not None]
        if len(costs) < len(variants):
            continue
        least = min(costs, key=lambda pair: pair[0])[1]
        ratios = [_ratio(measure, each, least) for each in variants]
        if all(ratio is not None or each is least for ratio, each in zip(ratios, variants, strict=True)):
            chosen = [
                each
                for ratio, each in zip(ratios, variants, strict=True)
                if each is least or (ratio and (ratio.low or 0.0) <= EQUAL_COST)
            ]
            return chosen, measure
    return list(variants), None


def _made(
    run: Run, choices: Iterable[str], text: str, tasks: Sequence[TaskInfo] = (), cost: Measure | None = None
) -> Recommendation:
    failed = [variant.name for variant in run.variants if variant.status == "failed"]
    if failed:
        text += f"; without {listing(failed)}, which failed"
    if run.replicated:
        text += "; of the first training run of each variant"
    return Recommendation(
        choices=tuple(choices),
        margin=MARGIN,
        tasks=tuple(task.name for task in tasks),
        cost=None if cost is None else cost.name,
        text=text,
    )


def _candidates(run: Run) -> list[Variant]:
    """The variants with comparisons, without those that failed and without repeated training runs of a variant."""
    repeated = {name for each in run.replicated for name in each.trainings[1:]}
    compared = {name for each in run.comparisons for name in (each.a, each.b)}
    return [each for each in run.variants if each.status != "failed" and each.name in compared - repeated]


def _comparisons(run: Run) -> dict[tuple[str, str, str], Comparison]:
    """The comparisons of headlines a − b by task, a and b, in both orders."""
    headlines = {(task.name, task.headline) for task in run.tasks}
    return {
        (each.task, each.a, each.b): each
        for given in run.comparisons
        if (given.task, given.metric) in headlines
        for each in (given, given.reversed())
    }


def _judged_tasks(run: Run, variants: Iterable[Variant]) -> tuple[list[TaskInfo], str]:
    """The tasks in points that decide, and their name in a sentence: those trained for, or all if there are none."""
    mine = set[str]().union(*(trained_for(run, variant) for variant in variants))
    scales = units(run)
    in_points = [task for task in run.tasks if scales[task.name][0] == POINTS]
    trained = [task for task in in_points if task.name in mine]
    found = trained or ([] if mine else in_points)
    return found, counted(len(found), "trained task" if trained else "task")


def _ratio(measure: Measure, variant: Variant, other: Variant) -> Ratio | None:
    """The ratio of two costs; None if it is not known. That of times has an interval."""
    if measure.name == "train":
        return training_time_ratio(variant, other)
    mine, theirs = measure.comparable(variant), measure.comparable(other)
    if mine is None or not theirs:
        return None
    return Ratio(mine / theirs, mine / theirs, mine / theirs)


def _shown(ratio: Ratio) -> str:
    """Formats a ratio: `0.61 ×`, or with its interval: `0.61 × (0.58–0.64)`."""
    interval = f" ({ratio.low:.2f}–{ratio.high:.2f})" if ratio.low != ratio.high else ""
    return f"{ratio.value:.2f} ×{interval}"


def _more_samples(half: float, needed: float) -> str:
    """Says how many times the samples would decide: the interval's low side, now `half`, must be at most `needed`."""
    if needed <= 0:
        return "more samples may show which of them is better"
    ratio = half / needed
    if not ratio <= math.sqrt(MOST_SAMPLES):  # also for what is not a number
        return f"it would take more than {MOST_SAMPLES} times the samples to decide, if the difference stays"
    return f"about {max(1.1, math.ceil(ratio**2 * 10) / 10):g} times the samples would decide, if the difference stays"
