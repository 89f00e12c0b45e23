"""Invented tasks and lines of samples files, with scores that are easy to compute by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness import Generate, Metric, Task
from harness.prepare.tasks import ScoredTask
from harness.registry.load import task_metrics
from harness.registry.scan import Entry
from harness.registry.task_spec import TaskSpec

ACC = Metric("acc", score=lambda output, sample: 1.0)


LENGTH = Metric("length", score=lambda output, sample: len(output.texts[0]), higher_is_better=False)


RATIO = Metric("ratio", stats=lambda output, sample: (1.0, 2.0), value=lambda sums: sums[0] / sums[1])


def scored(name: str, *metrics: Metric, path: str = "x.py") -> ScoredTask:
    task = Task([{}], lambda row: Generate("q", "a"), metrics)
    return ScoredTask(
        name, TaskSpec(name, name), Entry("task", name, Path(path), 1), task, task_metrics(task), "digest"
    )


def lines(
    metric: str, values: list[Any], *, groups: str = "", cut: int = 0, short: int = 0, **others: Any
) -> list[dict[str, Any]]:
    """Makes lines of a samples file."""
    return [
        {
            "id": str(number),
            "group": groups[number] if groups else None,
            "cluster": None,
            "metrics": {metric: value, **{name: given[number] for name, given in others.items()}},
            "truncated": number < cut,
            "shortened": number < short,
        }
        for number, value in enumerate(values)
    ]


def ones(right: int, of: int = 40) -> list[float]:
    return [1.0] * right + [0.0] * (of - right)


QA, SUMS = scored("qa", ACC, LENGTH), scored("sums", RATIO)
