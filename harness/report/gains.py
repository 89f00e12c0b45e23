"""Gains and losses: each variant's changes on the tasks that it was trained for, and on all others (forgetting).

Example:
    >>> for gain in gains(run):  # doctest: +SKIP
    ...     print(gain.variant, gain.trained.better, gain.other.worse)
    lora ('gsm8k',) ('wikitext',)
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from harness.report import numbers
from harness.report.scores import headline_delta, scale_of
from harness.results import Change, Changes, Comparison, Delta, Gain, Run, TaskInfo, Variant, Verdict
from harness.stats.pooled import Estimate, pooled

POINTS = "points"
"""The unit of metrics with a maximum of 1 or 100: accuracy, F1, ROUGE, BLEU, chrF. Their mean has a meaning."""

Improvement = Delta | Comparison
"""A difference of two variants on a task's headline."""

Units = Mapping[str, tuple[str, float]]
"""By task: the unit of its headline, and the factor from a difference to an improvement in that unit."""


def gains(run: Run) -> list[Gain]:
    """Computes the gains of every scored variant besides the baseline, from the differences that the tables show."""
    found, scales = [], units(run)
    for variant in run.variants:
        deltas = [(task, delta) for task in run.tasks if (delta := headline_delta(variant, task)) is not None]
        if variant.status == "failed" or not deltas:
            continue
        mine = trained_for(run, variant)
        found.append(
            Gain(
                variant=variant.name,
                trained=_changes(scales, [each for each in deltas if each[0].name in mine]),
                other=_changes(scales, [each for each in deltas if each[0].name not in mine]),
            )
        )
    return found


def trained_for(run: Run, variant: Variant) -> set[str]:
    """Returns the tasks that a variant was trained for; in documents of earlier versions, those of all variants."""
    if variant.train is None:
        return set()
    data = variant.train.data
    if data is None or data.tasks is None:
        return {task.name for task in run.tasks if task.trained_on}
    return {task.name for task in run.tasks} & set(data.tasks)


def units(run: Run) -> Units:
    """Returns for each task the unit of its headline, and the factor from a difference to an improvement in that unit.

    The factor is negative if lower values are better.
    """
    found: dict[str, tuple[str, float]] = {}
    for task in run.tasks:
        scale = scale_of(run, task.name, task.headline)
        sign = 1 if task.higher_is_better(task.headline) else -1
        if scale.factor == 100 or task.headline.startswith(numbers.CUSTOMARY):
            found[task.name] = POINTS, sign * scale.factor
        else:
            found[task.name] = task.headline, sign
    return found


def mean_change(scales: Units, found: Sequence[tuple[TaskInfo, Improvement]]) -> Estimate | None:
    """Computes the mean improvement over tasks with one unit; None if one of the differences has no valid interval."""
    if not found or any(each.untestable for _, each in found):
        return None
    limits = [Estimate(each.value, each.low, each.high).scaled(scales[task.name][1]) for task, each in found]
    return pooled(limits, [_source(task) for task, _ in found])


def _source(task: TaskInfo) -> Hashable:
    """The source of a task's samples; tasks with the same one may share samples."""
    return task.data or task.name.partition(":")[0]


def _changes(scales: Units, deltas: Sequence[tuple[TaskInfo, Delta]]) -> Changes:
    def with_verdict(verdict: Verdict) -> tuple[str, ...]:
        return tuple(task.name for task, delta in deltas if delta.verdict == verdict)

    by_unit: dict[str, list[tuple[TaskInfo, Delta]]] = {}
    for task, delta in sorted(deltas, key=lambda each: scales[each[0].name][0] != POINTS):
        by_unit.setdefault(scales[task.name][0], []).append((task, delta))
    return Changes(
        better=with_verdict("better"),
        undecided=with_verdict("undecided"),
        worse=with_verdict("worse"),
        means=tuple(_mean(scales, name, members) for name, members in by_unit.items()),
    )


def _mean(scales: Units, name: str, members: Sequence[tuple[TaskInfo, Delta]]) -> Change:
    limits = mean_change(scales, members)
    values = [delta.value * scales[task.name][1] for task, delta in members]
    return Change(
        unit=name,
        tasks=tuple(task.name for task, _ in members),
        value=sum(values) / len(values),
        low=None if limits is None else limits.low,
        high=None if limits is None else limits.high,
    )
