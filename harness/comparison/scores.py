"""The scores of a run: intervals, differences from the baseline, comparisons of all pairs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType

from harness.api import Metric
from harness.comparison.samples import SampleRows, found_share, observations
from harness.comparison.verdicts import Pair, Tested, judge, without_verdict
from harness.prepare.tasks import ScoredTask
from harness.report.numbers import counted
from harness.results import Comparison, GroupDelta, GroupScore, Protocol, Score
from harness.stats.intervals import Interval, interval
from harness.stats.observations import Observations, group_parts, macro
from harness.stats.paired import PairedDifference, paired, win_rate
from harness.stats.power import smallest_difference


@dataclass(frozen=True)
class Scores:
    """All scores and comparisons of a run."""

    by_variant: dict[str, list[Score]]
    comparisons: list[Comparison]
    tests: int
    """Number of tests of headlines, over which p-values are adjusted."""
    smallest: dict[str, float | None]
    """By task: the smallest headline difference that is detected with probability 0.8 at the level 0.05 / `tests`."""
    truncated: dict[str, int]
    """By task: samples whose prompt was truncated to fit the model's context; the largest number of any variant."""
    shortened: dict[str, int]
    """By task: samples whose answer the end of the context cut short; the largest number of any variant."""
    warnings: list[str]


def compute_scores(
    tasks: Sequence[ScoredTask],
    rows: Mapping[str, Mapping[str, SampleRows]],
    protocols: Mapping[str, Mapping[str, Protocol]],
    baseline: str,
    seed: int,
    decided: Mapping[Pair, Comparison] = MappingProxyType({}),
    early: Collection[str] = (),
) -> Scores:
    """Computes scores, their differences from the baseline, and the comparisons of all pairs of variants on headlines.

    All comparisons of headlines are one family: marks, ranks and exports use the same adjusted p-values. Other metrics have
    intervals without verdicts.

    Args:
        tasks: The tasks, in order.
        rows: Samples by variant, then by task, without variants that failed.
        protocols: Protocols by variant, then by task.
        baseline: The variant that differences are from; if it failed, there are no differences.
        seed: Seed of the sign-flip tests of clustered scores.
        decided: Differences that sequential tests have judged.
        early: The tasks that were scored only until they were decided: variants have different samples of them, so they have
            no further differences.
    """
    whole = [task for task in tasks if task.name not in early]
    seen = {
        (name, task.name, metric.name): observations(metric, rows[name][task.name])
        for name in rows
        for task in tasks
        for metric in task.metrics
    }
    metrics = {(task.name, metric.name): metric for task in tasks for metric in task.metrics}
    headlines = {(task.name, task.metrics[0].name) for task in tasks}
    found: dict[Pair, PairedDifference] = {}
    tested: dict[Pair, Tested] = {}
    for pair in _pairs(whole, rows, baseline):
        a, b = seen[pair.a, pair.task, pair.metric], seen[pair.b, pair.task, pair.metric]
        difference = paired(a, b, seed=seed)
        if difference is not None:
            higher = metrics[pair.task, pair.metric].higher_is_better
            found[pair], tested[pair] = difference, Tested(difference, higher, win_rate(a, b, higher))

    of_headlines = {pair: each for pair, each in tested.items() if (pair.task, pair.metric) in headlines}
    judged = judge(of_headlines, others=len(decided))
    deltas = {pair: without_verdict(each) for pair, each in tested.items() if pair not in of_headlines}
    deltas |= judged | {pair: each.delta for pair, each in decided.items()}
    comparisons = [
        Comparison(**pair._asdict(), test=found[pair].test, **delta.model_dump()) for pair, delta in judged.items()
    ]
    comparisons += decided.values()
    intervals = {place: interval(obs) for place, obs in seen.items()}

    def score(name: str, task: ScoredTask, metric: Metric) -> Score:
        place = (name, task.name, metric.name)
        made = _score(task, metric, seen[place], intervals[place], protocols[name][task.name])
        if metric is task.metrics[0] and task in whole and name != baseline and baseline in rows:
            made = made.model_copy(
                update={"groups": _with_differences(made.groups, seen[place], seen[baseline, *place[1:]], seed)}
            )
        mine = rows[name][task.name]
        return made.model_copy(
            update={
                "delta": deltas.get(Pair(task.name, metric.name, name, baseline)),
                "found": found_share(metric, mine),
                "truncated": _count(mine, "truncated"),
                "shortened": _count(mine, "shortened"),
                "timed_out": sum(row.get("timed_out", 0) for row in mine),
            }
        )

    return Scores(
        by_variant={name: [score(name, task, metric) for task in tasks for metric in task.metrics] for name in rows},
        comparisons=comparisons,
        tests=len(judged) + len(decided),
        smallest=_smallest(tasks, whole, rows, seen, baseline, len(judged) + len(decided)),
        truncated={
            task.name: max((_count(rows[name][task.name], "truncated") for name in rows), default=0) for task in tasks
        },
        shortened={
            task.name: max((_count(rows[name][task.name], "shortened") for name in rows), default=0) for task in tasks
        },
        warnings=[*_untestable(found), *_rough(intervals)],
    )


def single_scores(task: ScoredTask, rows: SampleRows, protocol: Protocol) -> list[Score]:
    """Scores of one variant on one task, each with its own interval and without differences."""
    seen = [(metric, observations(metric, rows)) for metric in task.metrics]
    return [_score(task, metric, obs, interval(obs), protocol) for metric, obs in seen]


def _untestable(found: Mapping[Pair, PairedDifference]) -> list[str]:
    """Says once for each metric why differences cannot be tested."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for pair, each in found.items():
        if each.untestable:
            reasons.setdefault((pair.task, pair.metric), []).append(f"{pair.a} and {pair.b}: {each.untestable}")
    return [
        f"{task}: `{metric}`: {first}" + (f"; the same of {counted(len(others), 'other pair')}" if others else "")
        for (task, metric), (first, *others) in reasons.items()
    ]


def _rough(intervals: Mapping[tuple[str, str, str], Interval]) -> list[str]:
    """Says once for each metric why intervals are rough."""
    return sorted(
        {f"{task}: `{metric}`: {each.warning}" for (_, task, metric), each in intervals.items() if each.warning}
    )


def _count(rows: SampleRows, column: str) -> int:
    """Counts the samples that a column marks; older files lack `shortened`."""
    return sum(bool(row.get(column)) for row in rows)


def _pairs(tasks: Sequence[ScoredTask], names: Iterable[str], baseline: str) -> list[Pair]:
    """Lists what is compared: all pairs of variants on headlines, pairs with the baseline on other metrics."""
    baseline_first = sorted(names, key=lambda name: name != baseline)
    return [
        Pair(task.name, metric.name, a, b)
        for task in tasks
        for number, metric in enumerate(task.metrics)
        for b, a in combinations(baseline_first, 2)
        if number == 0 or b == baseline
    ]


def _smallest(
    tasks: Sequence[ScoredTask],
    whole: Sequence[ScoredTask],
    names: Collection[str],
    seen: Mapping[tuple[str, str, str], Observations],
    baseline: str,
    tests: int,
) -> dict[str, float | None]:
    """Computes the smallest detectable difference of each task: the largest over all variants, so it holds for each."""
    others = [name for name in names if name != baseline] if baseline in names else []
    smallest: dict[str, float | None] = dict.fromkeys(task.name for task in tasks)
    for task in whole:
        headline = task.metrics[0].name
        against = seen.get((baseline, task.name, headline))
        alpha = 0.05 / max(1, tests)
        found = [
            smallest_difference(seen[name, task.name, headline], against, alpha=alpha) for name in others if against
        ]
        smallest[task.name] = max((value for value in found if value is not None), default=None)
    return smallest


def _score(task: ScoredTask, metric: Metric, obs: Observations, found: Interval, protocol: Protocol) -> Score:
    least, most = metric.bounds or (-math.inf, math.inf)
    return Score(
        task=task.name,
        metric=metric.name,
        value=found.value,
        low=None if found.low is None else max(found.low, least),
        high=None if found.high is None else min(found.high, most),
        n=len(obs),
        macro=macro(obs),
        groups=tuple(_group_score(name, part) for name, part in group_parts(obs).items()),
        protocol=protocol,
    )


def _group_score(name: str, part: Observations) -> GroupScore:
    found = interval(part)
    return GroupScore(name=name, value=found.value, n=len(part), low=found.low, high=found.high)


def _with_differences(
    groups: Sequence[GroupScore], own: Observations, base: Observations, seed: int
) -> tuple[GroupScore, ...]:
    """Adds to each group its paired difference from the baseline, as far as there is one."""
    mine, theirs = group_parts(own), group_parts(base)
    found = {name: paired(part, theirs[name], seed=seed) for name, part in mine.items() if name in theirs}
    deltas = {
        name: GroupDelta(value=each.value, low=each.low, high=each.high)
        for name, each in found.items()
        if each and not each.untestable
    }
    return tuple(each.model_copy(update={"delta": deltas.get(each.name)}) for each in groups)
