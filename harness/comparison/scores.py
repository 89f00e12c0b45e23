"""From samples to numbers: metrics of each sample, scores with intervals, paired differences, verdicts. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.api import Metric, Output, Stats
from harness.errors import UserError, plugin_error
from harness.jobs import Item, Raw
from harness.prepare.tasks import ScoredTask
from harness.results import Comparison, Delta, GroupScore, Protocol, Score, verdict_of
from harness.stats.intervals import interval
from harness.stats.observations import Observations, by_group, macro
from harness.stats.paired import PairedDifference, holm, paired, smallest_difference, win_rate

Rows = Sequence[Mapping[str, Any]]
"""Lines of a samples file, in the order of the task's items."""


def sample_row(task: ScoredTask, item: Item, raw: Raw, sample_key: str) -> dict[str, Any]:
    """One line of a samples file: what the model gave, and what the metrics make of it.

    Raises:
        UserError: A metric of the user's fails.
    """
    output = Output(raw.texts, raw.loglikelihoods, raw.is_greedy, raw.tokens)
    measured = {}
    for metric in task.metrics:
        try:
            measured[metric.name] = metric.measure(output, item.sample)
        except UserError:
            raise
        except Exception as error:
            hint = f"metric `{metric.name}` failed on sample `{item.request.id}`"
            raise plugin_error(task.entry.path, error, hint=hint, what="an error in") from error
    return {
        "key": sample_key,
        "id": item.request.id,
        "group": item.group,
        "cluster": item.cluster,
        "prompt_sha256": item.request.sha256,
        "prompt_tokens": raw.prompt_tokens,
        "outputs": list(raw.texts),
        "loglikelihoods": list(raw.loglikelihoods),
        "is_greedy": list(raw.is_greedy),
        "tokens": raw.tokens,
        "metrics": measured,
        "truncated": raw.truncated,
    }


class Running:
    """A metric over the samples so far, for the progress line: sums, so that a sample costs the same however many there are.

    Example:
        >>> running = Running(Metric("acc", score=lambda output, sample: 1.0))
        >>> running.add([{"metrics": {"acc": 1.0}}, {"metrics": {"acc": 0.0}}])
        >>> running.value
        0.5
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._sums: NDArray[np.float64] | None = None
        self._count = 0

    def add(self, rows: Rows) -> None:
        """Counts more samples in."""
        if rows and self.metric.whole is None:
            sums = _measured(self.metric, rows).sum(0)
            self._sums = sums if self._sums is None else self._sums + sums
            self._count += len(rows)

    @property
    def value(self) -> float:
        """NaN where the samples do not make a number, or only all of them together do."""
        value = _guarded(self.metric)
        if self._sums is None:
            return math.nan
        return value(tuple(self._sums.tolist())) if value else float(self._sums) / self._count


def observations(metric: Metric, rows: Rows) -> Observations:
    """One metric's numbers with their strata and clusters.

    Raises:
        UserError: The metric's stats are not of one length.
    """
    groups, clusters = _labels(rows, "group"), _labels(rows, "cluster")
    if metric.whole is not None:
        whole = partial(_finite_or_nan, metric.whole)
        return Observations(_gathered(metric, rows), groups=groups, clusters=clusters, whole=whole)
    return Observations(_measured(metric, rows), _guarded(metric), groups=groups, clusters=clusters)


def _gathered(metric: Metric, rows: Rows) -> list[Any]:
    return [row["metrics"][metric.name] for row in rows]


def _measured(metric: Metric, rows: Rows) -> NDArray[np.float64]:
    measured = [row["metrics"][metric.name] for row in rows]
    lengths = {len(stats) for stats in measured} if metric.value else set()
    if len(lengths) > 1:
        raise UserError(
            f"metric `{metric.name}` gives {min(lengths)} numbers for one sample and {max(lengths)} for another",
            hint="`stats` must always give as many: they are summed over the samples",
        )
    return np.asarray(measured, dtype=np.float64)


def _guarded(metric: Metric) -> Callable[[Stats], float] | None:
    """A corpus metric's `value` that is NaN where the sums allow no number (no word at all, a logarithm of 0)."""
    value = metric.value
    if value is None:
        return None
    return partial(_finite_or_nan, value)


def _finite_or_nan(value: Callable[[Any], float], given: Any) -> float:
    """A number of a metric's, NaN where it cannot be made."""
    try:
        return float(value(given))
    except (ArithmeticError, ValueError):
        return math.nan


@dataclass(frozen=True)
class Tally:
    """All scores and comparisons of a run."""

    scores: dict[str, list[Score]]
    """By variant."""
    comparisons: list[Comparison]
    smallest: dict[str, float | None]
    """By task: the smallest headline difference shown with probability 0.8."""
    truncated: dict[str, int]
    """By task: samples whose prompt was cut to fit the model's context, for the variant with the most."""
    warnings: list[str]


def tally(
    tasks: Sequence[ScoredTask],
    rows: Mapping[str, Mapping[str, Rows]],
    protocols: Mapping[str, Mapping[str, Protocol]],
    baseline: str,
    seed: int,
) -> Tally:
    """Scores, paired differences from the baseline, and comparisons of all pairs of headlines.

    Args:
        tasks: The tasks, in order.
        rows: By variant, then task; variants that failed are left out.
        protocols: By variant, then task.
        baseline: The variant that differences are from; when it failed, there are none.
        seed: Of the resampling.
    """
    seen = {
        (name, task.name, metric.name): observations(metric, rows[name][task.name])
        for name in rows
        for task in tasks
        for metric in task.metrics
    }
    differences: dict[tuple[str, str, str, str], PairedDifference] = {}
    baseline_first = sorted(rows, key=lambda name: name != baseline)
    for task in tasks:
        for number, metric in enumerate(task.metrics):
            for b, a in combinations(baseline_first, 2):
                if number and b != baseline:
                    continue  # all pairs for the headline, the baseline's for the rest
                found = paired(seen[a, task.name, metric.name], seen[b, task.name, metric.name], seed=seed)
                if found is not None:
                    differences[task.name, metric.name, a, b] = found
    headlines = {task.name: task.metrics[0].name for task in tasks}
    by_name = {task.name: task for task in tasks}
    of_headlines = [where for where in differences if headlines[where[0]] == where[1]]
    shown = [where for where in of_headlines if where[3] == baseline]
    p_shown = dict(zip(shown, holm([differences[where].p for where in shown]), strict=True))
    p_all = dict(zip(of_headlines, holm([differences[where].p for where in of_headlines]), strict=True))

    def won(task: ScoredTask, metric: Metric, a: str, b: str) -> float | None:
        return win_rate(seen[a, task.name, metric.name], seen[b, task.name, metric.name], metric.higher_is_better)

    def delta(name: str, task: ScoredTask, metric: Metric) -> Delta | None:
        where = (task.name, metric.name, name, baseline)
        if where not in differences:
            return None
        found = differences[where]
        adjusted = p_shown.get(where)
        return Delta(
            value=found.value,
            low=found.low,
            high=found.high,
            p=found.p,
            p_holm=adjusted,
            verdict=verdict_of(found.value, found.p if adjusted is None else adjusted, metric.higher_is_better),
            win_rate=won(task, metric, name, baseline),
        )

    scores = {
        name: [
            _score(task, metric, seen[name, task.name, metric.name], protocols[name][task.name], seed).model_copy(
                update={"delta": delta(name, task, metric)}
            )
            for task in tasks
            for metric in task.metrics
        ]
        for name in rows
    }
    comparisons = [
        Comparison(
            task=where[0],
            metric=where[1],
            a=where[2],
            b=where[3],
            test=found.test,
            value=found.value,
            low=found.low,
            high=found.high,
            p=found.p,
            p_holm=p_all.get(where),
            win_rate=won(by_name[where[0]], by_name[where[0]].metrics[0], where[2], where[3]),
        )
        for where, found in differences.items()
        if where in p_all
    ]
    warnings = {f"{where[0]}: {found.warning}" for where, found in differences.items() if found.warning}
    truncated = {
        task.name: max((sum(row["truncated"] for row in rows[name][task.name]) for name in rows), default=0)
        for task in tasks
    }
    return Tally(scores, comparisons, _smallest(tasks, rows, seen, baseline, seed), truncated, sorted(warnings))


def _smallest(
    tasks: Sequence[ScoredTask],
    rows: Mapping[str, Mapping[str, Rows]],
    seen: Mapping[tuple[str, str, str], Observations],
    baseline: str,
    seed: int,
) -> dict[str, float | None]:
    """The largest, over the variants shown: what no row of the table could have missed."""
    smallest: dict[str, float | None] = {}
    for task in tasks:
        headline = task.metrics[0].name
        found = [
            smallest_difference(seen[name, task.name, headline], seen[baseline, task.name, headline], seed=seed)
            for name in rows
            if name != baseline and baseline in rows
        ]
        known = [value for value in found if value is not None]
        smallest[task.name] = max(known) if known else None
    return smallest


def _score(task: ScoredTask, metric: Metric, obs: Observations, protocol: Protocol, seed: int) -> Score:
    found = interval(obs, seed=seed)
    least, most = metric.bounds or (-math.inf, math.inf)
    return Score(
        task=task.name,
        metric=metric.name,
        value=found.value,
        low=None if found.low is None else max(found.low, least),
        high=None if found.high is None else min(found.high, most),
        n=len(obs),
        macro=macro(obs),
        groups=tuple(GroupScore(name=g.name, value=g.value, n=g.n) for g in by_group(obs)),
        protocol=protocol,
    )


def _labels(rows: Rows, column: str) -> tuple[str, ...] | None:
    values = [row[column] for row in rows]
    return None if any(value is None for value in values) else tuple(values)
