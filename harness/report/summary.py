"""The summary of a run in sentences: gains and losses, trained variants compared, Pareto fronts, a recommendation.

Example:
    >>> for subject, text in summary(run):  # doctest: +SKIP
    ...     print(subject, "·", text)
    lora · trained tasks +8.8 ±2.7 points: better than base on gsm8k. Other tasks -0.3 ±1.9 points: no difference shown on mmlu
    qlora vs lora · 0.61 × the peak GPU memory in training, 1.43 × the training time; gsm8k: no difference shown (-1.6 ±2.4)
    Pareto front (gsm8k, peak GPU) · lora, qlora
"""

from __future__ import annotations

from typing import NamedTuple

from harness.report import numbers, scores
from harness.report.costs import Measure, measures, training_time_ratio
from harness.report.gains import POINTS, gains
from harness.report.recommendation import recommendation
from harness.report.scores import leading_task, scale_of, titles
from harness.results import Change, Changes, Gain, Run, TaskInfo, Variant, Verdict
from harness.stats import ranking
from harness.stats.pooled import Estimate


class SummaryLine(NamedTuple):
    """One line of the summary: its subject, such as a variant, and a sentence about it."""

    subject: str
    text: str


def summary(run: Run) -> list[SummaryLine]:
    """Summarizes a run: gains and losses, trained variants compared with the first of them, fronts, the recommendation."""
    found = {gain.variant: gain for gain in gains(run)}
    lines = [_gained(run, variant, found.get(variant.name)) for variant in run.variants]
    trained = [variant for variant in run.variants if variant.train is not None]
    lines += [_compared(run, variant, trained[0]) for variant in trained[1:]]
    lines += _fronts(run)
    if advice := recommendation(run):
        lines.append(SummaryLine("Recommendation", advice.text))
    return [line for line in lines if line is not None]


def failure(variant: Variant) -> str:
    """Says in one line why a variant failed."""
    return f"failed: {numbers.one_line(variant.error or 'no reason was recorded')}"


def _gained(run: Run, variant: Variant, gain: Gain | None) -> SummaryLine | None:
    """Says what a variant gained on the tasks that it was trained for, and what it lost on others."""
    if variant.status == "failed":
        return SummaryLine(variant.name, failure(variant))
    if gain is None:
        return None
    trained = _changed(run, gain.trained, run.baseline)
    if not trained:
        other = _changed(run, gain.other, run.baseline, forgets=bool(variant.train))
        return SummaryLine(variant.name, other) if other else None
    other = _changed(run, gain.other, forgets=True)
    return SummaryLine(variant.name, f"trained tasks {trained}" + (f". Other tasks {other}" if other else ""))


def _changed(run: Run, changes: Changes, baseline: str = "", *, forgets: bool = False) -> str:
    """Says the mean changes over some tasks, then their verdicts; empty without tasks.

    Args:
        run: The run.
        changes: The changes.
        baseline: Its name, to say it with the first verdict.
        forgets: Whether worse scores are marked as forgetting.
    """
    count = len(changes.better) + len(changes.undecided) + len(changes.worse)
    against_baseline: dict[Verdict, str] = {
        "better": f"better than {baseline}",
        "undecided": f"no difference from {baseline} shown",
        "worse": f"worse than {baseline}",
    }
    clauses: list[str] = []
    listed: dict[Verdict, tuple[str, ...]] = {
        "better": changes.better,
        "undecided": changes.undecided,
        "worse": changes.worse,
    }
    for verdict, tasks in listed.items():
        if not tasks:
            continue
        mark = " (forgetting)" if forgets and verdict == "worse" else ""
        everywhere = len(tasks) == count > 3 and not mark
        on = f"all {count} tasks" if everywhere else numbers.listing(titles(run)[task] + mark for task in tasks)
        words = against_baseline[verdict] if baseline and not clauses else numbers.VERDICTS[verdict]
        clauses.append(f"{words} on {on}")
    separator = "; " if any(" and " in clause for clause in clauses) else ", "
    return (
        f"{', '.join(change_words(run, mean) for mean in changes.means)}: {separator.join(clauses)}" if clauses else ""
    )


def change_words(run: Run, mean: Change) -> str:
    """Formats a mean change: in points of improvement, or on the metric's own scale as in the table."""
    scale, sign = numbers.Scale(1, 1), 1
    if mean.unit != POINTS:
        task = next(task for task in run.tasks if task.name == mean.tasks[0])
        scale, sign = scale_of(run, task.name, mean.unit), 1 if task.higher_is_better(mean.unit) else -1
    if mean.low is None or mean.high is None:
        text = scale.signed(sign * mean.value)
    else:
        text = scale.difference(*Estimate(mean.value, mean.low, mean.high).scaled(sign))
    named = f"{text} points" if mean.unit == POINTS else f"{text} {mean.unit}"
    return f"{named} on average" if len(mean.tasks) > 1 else named


def _compared(run: Run, variant: Variant, reference: Variant) -> SummaryLine | None:
    """Compares two trained variants: costs as ratios, and the difference on the leading task's headline."""
    parts = []
    for measure in measures(run):
        if measure.name in ("peak GPU", "peak RSS"):
            mine, theirs = measure.comparable(variant), measure.comparable(reference)
            if mine is not None and theirs:
                parts.append(f"{mine / theirs:.2f} × the {measure.words}")
    if slower := training_time_ratio(variant, reference):
        parts.append(f"{slower.value:.2f} × ({slower.low:.2f}–{slower.high:.2f}) the training time")
    clauses = [", ".join(parts)] if parts else []
    task = leading_task(run)
    if task and (found := run.comparison(task, variant.name, reference.name)):
        shown = scale_of(run, task.name, task.headline).difference(found.value, found.low, found.high)
        clauses.append(f"{titles(run)[task.name]}: {numbers.MARK_WORDS[found.mark or found.verdict]} ({shown})")
    return SummaryLine(f"{variant.name} vs {reference.name}", "; ".join(clauses)) if clauses else None


def _fronts(run: Run) -> list[SummaryLine]:
    """Pareto fronts of the leading task's headline against the cost of training and of inference."""
    found = []
    by_name = {measure.name: measure for measure in measures(run)}
    task = leading_task(run)
    for name in ("peak GPU", "peak RSS", "decode/token"):
        if task and name in by_name and (front := front_of(run, task, task.headline, by_name[name])[1]):
            words = [", ".join(front.on), f"maybe {', '.join(front.maybe)}" if front.maybe else ""]
            found.append(
                SummaryLine(f"Pareto front ({titles(run)[task.name]}, {name})", "; ".join(filter(None, words)))
            )
    return found


def front_of(run: Run, task: TaskInfo, metric: str, measure: Measure) -> tuple[list[str], ranking.Front | None]:
    """Finds the variants with both a quality and a cost, and those that are, or may be, on the Pareto front.

    Returns:
        Names of the variants with both numbers, and the front; None with fewer than two variants.
    """
    costs = {}
    for variant in run.variants:
        score, cost = variant.score(task.name, metric), measure.comparable(variant)
        if score is not None and score.value is not None and cost is not None:
            costs[variant.name] = cost
    return list(costs), scores.front(run, task, metric, costs) if len(costs) > 1 else None


def headline_lines(run: Run) -> list[str]:
    """Returns one line for each task: its headline, with the score of every variant that has one.

    Example:
        >>> headline_lines(run)  # doctest: +SKIP
        ['gsm8k strict: base 32.4, lora 41.2']
    """
    lines = []
    for task in run.tasks:
        scale = scale_of(run, task.name, task.headline)
        found = [(variant.name, variant.headline(task)) for variant in run.variants]
        values = [f"{name} {scale.value(score.value)}" for name, score in found if score and score.value is not None]
        lines.append(f"{task.name} {task.headline}: {', '.join(values) or 'no scores'}")
    return lines
