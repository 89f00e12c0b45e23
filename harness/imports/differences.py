"""The differences between the rows of a table of results from any tools: tested where they can be, as one family."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from harness.comparison.verdicts import Pair, Tested, judge, without_verdict
from harness.imports.pairing import Compared, Incomparable, compare, definition, is_paired, own_name
from harness.imports.record import ImportedRun, ImportedTask, Measured
from harness.report.numbers import counted
from harness.results import Comparison, Delta
from harness.stats.intervals import Interval
from harness.stats.paired import Difference, win_rate
from harness.stats.power import smallest_difference

MOST_PAIRS = 50_000
"""With more, only differences from the baseline are computed: 316 rows of one task have as many pairs."""


@dataclass
class TaskColumn:
    """A task of the table: the same task and headline of all runs that have it."""

    name: str
    headline: str
    labels: dict[tuple[str, str], str] = field(default_factory=dict)
    """Name of a metric in the table by its definition."""
    higher: dict[str, bool] = field(default_factory=dict)
    cells: dict[str, dict[str, Measured]] = field(default_factory=dict)
    """By row, then by metric."""
    tasks: dict[str, ImportedTask] = field(default_factory=dict)

    def add(self, row: str, task: ImportedTask) -> None:
        """Adds the results of a row."""
        self.tasks[row] = task
        cells = self.cells.setdefault(row, {})
        for each in task.measured:
            identity, name = definition(task, each.metric), own_name(task, each.metric)
            if identity not in self.labels:
                taken = name in self.labels.values()
                self.labels[identity] = f"{name} ({task.definition})" if taken else name
            label = self.labels[identity]
            cells[label] = each
            self.higher.setdefault(label, each.higher_is_better)


class Differences:
    """All differences between the rows of a table, as one family of tests."""

    def __init__(self, columns: Sequence[TaskColumn], runs: Sequence[ImportedRun], baseline: str) -> None:
        self.baseline = baseline
        self.deltas: dict[Pair, Delta] = {}
        self.comparisons: list[Comparison] = []
        self.smallest: dict[str, float] = {}
        self._why_not: dict[tuple[str, str], list[str]] = {}
        self._unpaired: dict[str, None] = {}
        self._whole: dict[Pair, Compared] = {}
        self._rows = {run.name: run for run in runs}
        pairs = sum(len(column.tasks) * (len(column.tasks) - 1) // 2 for column in columns)
        self._only_baseline = pairs > MOST_PAIRS
        tested: dict[Pair, tuple[Tested, str]] = {}
        for column in columns:
            for pair in self._pairs(column, baseline):
                if found := self._tested(column, pair):
                    tested[pair] = found
        headlines = {pair: each for pair, (each, _) in tested.items() if _is_headline(columns, pair)}
        judged = judge(headlines)
        self.tests = len(judged)
        self.deltas = {
            pair: without_verdict(each) for pair, (each, _) in tested.items() if pair not in headlines
        } | judged
        self.comparisons = [
            Comparison.model_validate({**pair._asdict(), "test": tested[pair][1], **delta.model_dump()})
            for pair, delta in judged.items()
        ]
        self._power()

    def notes(self) -> Iterator[str]:
        """Says what was not compared, and what was compared in another way."""
        for (task, reason), pairs in self._why_not.items():
            others = f"; the same of {counted(len(pairs) - 1, 'other pair')}" if len(pairs) > 1 else ""
            yield f"{task}: {pairs[0]}: {reason}{others}"
        if self._unpaired:
            yield (
                f"{', '.join(self._unpaired)}: without samples, differences are tested as if on different questions (unpaired),"
                " which shows fewer differences than a paired test"
            )
        if self._only_baseline:
            yield f"only differences from the baseline were computed: there are more than {MOST_PAIRS:,} pairs, so no ranks"

    def _pairs(self, column: TaskColumn, baseline: str) -> Iterator[Pair]:
        rows = sorted(column.tasks, key=lambda row: row != baseline)
        for label in column.labels.values():
            for b, a in itertools.combinations(rows, 2):
                if b == baseline or (label == column.headline and not self._only_baseline):
                    yield Pair(column.name, label, a, b)

    def _tested(self, column: TaskColumn, pair: Pair) -> tuple[Tested, str] | None:
        first, second = column.cells[pair.a].get(pair.metric), column.cells[pair.b].get(pair.metric)
        if first is None or second is None:
            return None
        higher = column.higher[pair.metric]
        if (recorded := self._recorded(column, pair)) is not None:
            return recorded
        found = compare(column.tasks[pair.a], column.tasks[pair.b], first, second)
        if isinstance(found, Incomparable):
            if pair.metric == column.headline:
                self._note(pair, f"not compared: {found.reason}")
            return None
        if found.left_out and pair.metric == column.headline:
            self._note(pair, found.left_out)
        if not is_paired(found):
            self._unpaired[column.name] = None
        if pair.metric == column.headline and pair.b == self.baseline and not found.left_out:
            self._whole[pair] = found
        wins = win_rate(found.a, found.b, higher) if found.a and found.b else None
        return Tested(found.difference, higher, wins), found.test

    def _recorded(self, column: TaskColumn, pair: Pair) -> tuple[Tested, str] | None:
        """The difference of two variants of one run of our own, with the test that the run made."""
        a, b = self._rows[pair.a], self._rows[pair.b]
        if a.file != b.file or not a.comparisons or a.variant is None or b.variant is None:
            return None
        task = column.tasks[pair.a].name
        for each in a.comparisons:
            if (each.task, each.metric) != (task, pair.metric) or each.early is not None:
                continue
            if {each.a, each.b} == {a.variant.name, b.variant.name}:
                found = each if each.a == a.variant.name else each.reversed()
                difference = Difference(found.value, found.low, found.high, found.p, untestable=found.untestable)
                return Tested(difference, column.higher[pair.metric], _win_rate(found)), found.test
        return None

    def _note(self, pair: Pair, reason: str) -> None:
        self._why_not.setdefault((pair.task, reason), []).append(f"{pair.a} and {pair.b}")

    def _power(self) -> None:
        """Computes the smallest difference that each task could show, where all of its samples were paired."""
        alpha = 0.05 / max(1, self.tests)
        for pair, found in self._whole.items():
            if found.a is not None and found.b is not None:
                least = smallest_difference(found.a, found.b, alpha=alpha)
                if least is not None:
                    self.smallest[pair.task] = max(least, self.smallest.get(pair.task, 0.0))


def _win_rate(found: Comparison) -> Interval | None:
    return None if found.win_rate is None else Interval(found.win_rate, found.win_rate_low, found.win_rate_high)


def _is_headline(columns: Sequence[TaskColumn], pair: Pair) -> bool:
    return any(column.name == pair.task and column.headline == pair.metric for column in columns)
