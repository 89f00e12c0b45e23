"""The lines of a samples file, and the numbers that metrics make from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.api import Metric
from harness.errors import UserError, plugin_error
from harness.jobs import Item, Raw
from harness.prepare.tasks import ScoredTask
from harness.prompts.thoughts import output_of, unfinished
from harness.stats.observations import Observations, finite_or_nan

SampleRows = Sequence[Mapping[str, Any]]
"""Lines of a samples file, in the order of the task's items."""


def sample_row(task: ScoredTask, item: Item, raw: Raw, sample_key: str, writer: str | None = None) -> dict[str, Any]:
    """Makes one line of a samples file: the model's output, and what each metric computes from it, without thoughts.

    Args:
        task: The task.
        item: The sample.
        raw: The model's output.
        sample_key: The sample's key.
        writer: The program that has generated the text; None: our own engine.

    Raises:
        UserError: A user's metric fails.
    """
    output = output_of(raw, item.request)
    timers = [found for metric in task.metrics if (found := getattr(metric.score, "timed_out", None))]
    measured = {}
    found = {}
    for metric in task.metrics:
        try:
            measured[metric.name] = metric.measure(output, item.sample)
            found[metric.name] = metric.found(output, item.sample)
        except UserError:
            raise
        except Exception as error:
            hint = f"metric `{metric.name}` failed on sample `{item.request.id}`"
            raise plugin_error(task.entry.path, error, hint=hint, what="an error in") from error
    return {
        "key": sample_key,
        **({} if writer is None else {"writer": writer}),
        "id": item.request.id,
        "group": item.group,
        "cluster": item.cluster,
        "prompt_sha256": item.request.sha256,
        "prompt_tokens": raw.prompt_tokens,
        "outputs": list(raw.texts),
        "loglikelihoods": list(raw.loglikelihoods),
        "is_greedy": list(raw.is_greedy),
        "tokens": raw.tokens,
        "thought_tokens": raw.thought_tokens,
        "metrics": measured,
        "scores": _own_scores(task, measured),
        "truncated": raw.truncated,
        "found": {name: each for name, each in found.items() if each is not None},
        "shortened": raw.shortened,
        "unfinished_thoughts": unfinished(raw.texts, item.request),
        "timed_out": max((count(output, item.sample) for count in timers), default=0),
    }


def _own_scores(task: ScoredTask, measured: Mapping[str, Any]) -> dict[str, float]:
    """The sample's own score by each corpus metric whose statistics of one sample give a number: sentence BLEU, for example."""
    own = {
        metric.name: finite_or_nan(metric.value, tuple(measured[metric.name]))
        for metric in task.metrics
        if metric.value is not None
    }
    return {name: score for name, score in own.items() if math.isfinite(score)}


def found_share(metric: Metric, rows: SampleRows) -> float | None:
    """Returns the share of samples in which a metric found an answer; None if it extracts none, or rows do not say."""
    found = [row.get("found", {}).get(metric.name) for row in rows]
    return None if not found or None in found else sum(found) / len(found)


def observations(metric: Metric, rows: SampleRows) -> Observations:
    """Collects one metric's values, with the groups and clusters of the samples.

    Raises:
        UserError: The metric's `stats` have different lengths.
    """
    values = _values(metric, rows) if metric.whole is None else [row["metrics"][metric.name] for row in rows]
    groups, clusters = _labels(rows, "group"), _labels(rows, "cluster")
    bounds = metric.bounds if metric.bounds and all(map(math.isfinite, metric.bounds)) else None
    return Observations(values, metric.value, groups, clusters, whole=metric.whole, bounds=bounds)


class RunningScore:
    """A metric over the samples so far, for the progress line; it keeps sums, so its cost per sample is constant.

    Example:
        >>> running = RunningScore(Metric("acc", score=lambda output, sample: 1.0))
        >>> running.add([{"metrics": {"acc": 1.0}}, {"metrics": {"acc": 0.0}}])
        >>> running.value
        0.5
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._sums: NDArray[np.float64] | None = None
        self._count = 0

    def add(self, rows: SampleRows) -> None:
        """Adds samples."""
        if rows and self.metric.whole is None:
            sums = _values(self.metric, rows).sum(0)
            self._sums = sums if self._sums is None else self._sums + sums
            self._count += len(rows)

    @property
    def value(self) -> float:
        """The score so far; NaN without one, and for metrics of the whole set."""
        if self._sums is None:
            return math.nan
        if self.metric.value is None:
            return float(self._sums) / self._count
        return finite_or_nan(self.metric.value, tuple(self._sums.tolist()))


def _values(metric: Metric, rows: SampleRows) -> NDArray[np.float64]:
    measured = [row["metrics"][metric.name] for row in rows]
    lengths = {len(stats) for stats in measured} if metric.value else set()
    if len(lengths) > 1:
        raise UserError(
            f"metric `{metric.name}` gives {min(lengths)} numbers for one sample and {max(lengths)} for another",
            hint="`stats` must return the same number of values for every sample, because they are summed",
        )
    return np.asarray(measured, dtype=np.float64)


def _labels(rows: SampleRows, column: str) -> tuple[str, ...] | None:
    values = [row[column] for row in rows]
    return None if any(value is None for value in values) else tuple(values)
