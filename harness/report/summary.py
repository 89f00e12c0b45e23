"""The summary of a run in sentences: verdicts, trained variants compared with each other, Pareto fronts.

Example:
    >>> for subject, text in summary(run):  # doctest: +SKIP
    ...     print(subject, "·", text)
    lora · better than base on gsm8k, no difference shown on mmlu, worse on wikitext (forgetting)
    qlora vs lora · 0.61 × the peak GPU memory in training, 1.43 × the training time; gsm8k: no difference shown (-1.6 ±2.4)
    Pareto front (gsm8k, peak GPU) · lora, qlora
"""

from __future__ import annotations

from typing import NamedTuple

from harness.report import numbers, scores
from harness.report.costs import Measure, measures, training_time_ratio
from harness.report.scores import headline_delta, leading_task, scale_of, titles
from harness.results import Run, TaskInfo, Variant, Verdict
from harness.stats import ranking


class SummaryLine(NamedTuple):
    """One line of the summary: its subject, such as a variant, and a sentence about it."""

    subject: str
    text: str


def summary(run: Run) -> list[SummaryLine]:
    """Summarizes a run: each variant's verdicts, trained variants compared with the first of them, Pareto fronts."""
    lines = [_verdicts(run, v) for v in run.variants if v.name != run.baseline or v.status == "failed"]
    trained = [variant for variant in run.variants if variant.train is not None]
    lines += [_compared(run, variant, trained[0]) for variant in trained[1:]]
    return [line for line in [*lines, *_fronts(run)] if line is not None]


def failure(variant: Variant) -> str:
    """Says in one line why a variant failed."""
    return f"failed: {numbers.one_line(variant.error or 'no reason was recorded')}"


def _verdicts(run: Run, variant: Variant) -> SummaryLine | None:
    if variant.status == "failed":
        return SummaryLine(variant.name, failure(variant))
    deltas = [(task, delta) for task in run.tasks if (delta := headline_delta(variant, task)) is not None]
    clauses: list[str] = []
    against_baseline: dict[Verdict, str] = {
        "better": f"better than {run.baseline}",
        "undecided": f"no difference from {run.baseline} shown",
        "worse": f"worse than {run.baseline}",
    }
    for verdict, words in against_baseline.items():
        names = [
            titles(run)[task.name] + (" (forgetting)" if verdict == "worse" and not task.trained_on else "")
            for task, delta in deltas
            if delta.verdict == verdict
        ]
        if names:
            everywhere = len(names) == len(deltas) > 3 and verdict != "worse"
            on = f"all {len(names)} tasks" if everywhere else numbers.listing(names)
            clauses.append(f"{numbers.VERDICTS[verdict] if clauses else words} on {on}")  # the baseline is named once
    separator = "; " if any(" and " in clause for clause in clauses) else ", "
    return SummaryLine(variant.name, separator.join(clauses)) if clauses else None


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
