"""Headline scores as reports show them: scale, difference from the baseline, ranks, Pareto fronts, the leading task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from harness.report.numbers import Scale
from harness.results import Delta, Run, TaskInfo, Variant
from harness.stats import ranking

RANKED_FROM = 4
"""With fewer variants, ranks add nothing to the verdicts."""


def titles(run: Run) -> dict[str, str]:
    """Returns the names under which tasks are shown: those of files without the path, if no other task has the same one.

    Example:
        >>> titles(run)  # doctest: +SKIP
        {'mmlu': 'mmlu', './tasks.py@captions': 'captions'}
    """
    found = {}
    for task in run.tasks:
        path, _, function = task.name.partition("@")
        is_file = path.endswith(".py")
        found[task.name] = (task.title or function or Path(path).stem) if is_file else task.name
    times = Counter(found.values())
    return {name: title if times[title] == 1 else name for name, title in found.items()}


def scale_of(run: Run, task: str, metric: str) -> Scale:
    """Returns the scale on which a metric is shown; it is the same for all variants of the run."""
    info = next((each for each in run.tasks if each.name == task), None)
    if info is not None and metric == info.headline and info.scale is not None and info.decimals is not None:
        return Scale.declared(info.scale, info.decimals)
    scores = (variant.score(task, metric) for variant in run.variants)
    return Scale.of(metric, [score.value for score in scores if score is not None])


def headline_delta(variant: Variant, task: TaskInfo) -> Delta | None:
    """Returns a variant's difference from the baseline on a task's headline, or None."""
    score = variant.headline(task)
    return None if score is None else score.delta


def ranks(run: Run, task: TaskInfo) -> dict[str, ranking.Rank]:
    """Ranks the scored variants on a task's headline by the verdicts of the run's comparisons.

    Returns:
        The best and the worst possible rank by variant name; empty with fewer than `RANKED_FROM` scored variants, and for
        tasks whose variants were scored on different samples (`--until-decided`).
    """
    scored = [variant.name for variant in run.variants if variant.headline(task)]
    if len(scored) < RANKED_FROM or task.until_decided:
        return {}
    return ranking.ranks(scored, shown_better(run, task))


def front(run: Run, task: TaskInfo, metric: str, costs: Mapping[str, float]) -> ranking.Front:
    """Finds the Pareto front of a metric and a cost; only headlines have verdicts, so others are `maybe` at best.

    Args:
        run: The run.
        task: One of its tasks.
        metric: One of the task's metrics.
        costs: Cost by variant name.
    """
    return ranking.pareto(costs, shown_better(run, task) if metric == task.headline else lambda a, b: False)


def shown_better(run: Run, task: TaskInfo) -> Callable[[str, str], bool]:
    """Returns whether one variant was shown to be better than another on a task's headline."""
    shown = {}
    for (a, b), found in run.headline_comparisons(task).items():
        if found.early is None:
            shown[a, b], shown[b, a] = found.verdict == "better", found.verdict == "worse"
    return lambda a, b: shown.get((a, b), False)


def has_ranks(run: Run) -> bool:
    """Whether the tables have ranks."""
    return any(ranks(run, task) for task in run.tasks)


def leading_task(run: Run) -> TaskInfo | None:
    """Chooses the task that represents quality where there is room for only one.

    Among the tasks that were trained on, it is the first with a significant difference, else the first. If no task was
    trained on, it is the first task of the run.
    """
    trained_on = [task for task in run.tasks if task.trained_on]
    for task in trained_on:
        deltas = [headline_delta(variant, task) for variant in run.variants]
        if any(delta and delta.verdict != "undecided" for delta in deltas):
            return task
    return next(iter([*trained_on, *run.tasks]), None)
