"""The rows of a page: each run's scores as cells, in columns that all runs share.

Several runs are one table. A column is a task with its headline; where a score was measured by another protocol than the
column's first one, its cell says so. Marks, ties and ranks are within a run, where variants were scored on the same samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from harness.leaderboards.plot_parts import can_be_drawn
from harness.leaderboards.protocols import described, differences
from harness.report import numbers
from harness.report.gains import trained_for
from harness.report.header import model_name
from harness.report.numbers import Scale
from harness.report.scores import scale_of, shown_better, titles
from harness.report.tables import cut_words, difference_cell, note_of
from harness.results import Delta, Run, Score, TaskInfo, Variant
from harness.stats.ranking import Rank, ranks
from harness.stats.ties import letters, tie_groups


@dataclass(frozen=True)
class PageColumn:
    """A task and its headline, over all runs of the page."""

    key: int
    task: str
    """The spec as typed."""
    title: str
    metric: str
    higher_is_better: bool
    trained: bool
    """Whether a variant of any run was trained for it."""
    about: str
    """The protocol of its first score."""
    chance: str = ""
    """The expected score of a model that guesses."""

    @property
    def heading(self) -> str:
        """The metric with its direction: `acc ↑`."""
        return numbers.with_arrow(self.metric, self.higher_is_better)


@dataclass(frozen=True)
class ScoreCell:
    """A score as the page shows it, with all that its dialog says."""

    id: str
    text: str
    value: float | None
    interval: str
    kind: str = ""
    """CSS class of the verdict."""
    symbol: str = ""
    difference: str = ""
    """With its mark, as on the screen."""
    delta: float | None = None
    p: str = numbers.ABSENT
    p_holm: str = numbers.ABSENT
    test: str = ""
    won: str = numbers.ABSENT
    """Share of samples won against the baseline, with its interval."""
    ties: str = ""
    rank: str = numbers.ABSENT
    best_rank: int | None = None
    n: int = 0
    unlike: tuple[str, ...] = ()
    """How its protocol differs from that of the column."""
    bar: tuple[int, int, int] | None = None
    """Left end, width and value on the scale of the column, in percent."""


@dataclass(frozen=True)
class PageRow:
    """A variant in the quality table."""

    variant: Variant
    is_baseline: bool
    cells: tuple[ScoreCell | None, ...]
    """One for each column of the page."""
    note: str


@dataclass(frozen=True)
class Standings:
    """The order of a run's variants on one task."""

    ranks: dict[str, Rank]
    groups: dict[str, tuple[int, ...]]

    @property
    def distinct(self) -> int:
        """Number of different sets of tie groups: how much the task tells variants apart."""
        return len(set(self.groups.values()))


@dataclass
class RunRows:
    """A run on the page."""

    key: int
    run: Run
    label: str
    """The model, and what tells this run from others of it."""
    rows: list[PageRow] = field(default_factory=list)
    standings: dict[str, Standings] = field(default_factory=dict)
    """By task."""


def page_columns(runs: Sequence[Run]) -> list[PageColumn]:
    """Lists the tasks of all runs: those that were trained for first."""
    found: dict[tuple[str, str], PageColumn] = {}
    trained = {(task, index) for index, run in enumerate(runs) for v in run.variants for task in trained_for(run, v)}
    for index, run in enumerate(runs):
        named = titles(run)
        for task in run.tasks:
            place = (task.name, task.headline)
            if place not in found:
                first = next((score for variant in run.variants if (score := variant.headline(task))), None)
                chance = None if task.chance is None else scale_of(run, *place).value(task.chance)
                found[place] = PageColumn(
                    key=0,
                    task=task.name,
                    title=named[task.name],
                    metric=task.headline,
                    higher_is_better=task.higher_is_better(task.headline),
                    trained=any((task.name, other) in trained for other, _ in enumerate(runs)),
                    about=described(first) if first else f"{numbers.counted(task.n, 'sample')}, not scored yet",
                    chance="" if chance is None else f"chance {chance}",
                )
            elif (task.name, index) in trained and not found[place].trained:
                found[place] = _changed(found[place], trained=True)
    times = Counter(column.title for column in found.values())
    ordered = sorted(
        (column if times[column.title] == 1 else _changed(column, title=column.task) for column in found.values()),
        key=lambda column: not column.trained,
    )
    return [_changed(column, key=key) for key, column in enumerate(ordered)]


def _changed(column: PageColumn, **changes: object) -> PageColumn:
    return replace(column, **changes)  # type: ignore[arg-type]


def page_rows(runs: Sequence[Run], columns: Sequence[PageColumn]) -> list[RunRows]:
    """Makes the rows of all runs, aligned to the columns."""
    labels = _labels(runs)
    found = [RunRows(key, run, label) for key, (run, label) in enumerate(zip(runs, labels, strict=True))]
    references: dict[int, Score] = {}
    ends = [_ends(runs, column) for column in columns]
    for rows in found:
        tasks = {(task.name, task.headline): task for task in rows.run.tasks}
        mine = [tasks.get((column.task, column.metric)) for column in columns]
        scales = [scale_of(rows.run, task.name, task.headline) if task else Scale(1, 1) for task in mine]
        rows.standings = {task.name: standings(rows.run, task) for task in rows.run.tasks}
        for index, variant in enumerate(rows.run.variants):
            cells: list[ScoreCell | None] = []
            for column, task, scale in zip(columns, mine, scales, strict=True):
                score = variant.headline(task) if task else None
                if task is None or score is None:
                    cells.append(None)
                    continue
                reference = references.setdefault(column.key, score)
                id = f"s{rows.key}-{index}-{column.key}"
                cells.append(_cell(rows, task, variant.name, score, scale, id, reference, ends[column.key]))
            is_baseline = variant.name == rows.run.baseline
            rows.rows.append(PageRow(variant, is_baseline, tuple(cells), note_of(variant)))
    return found


def other_metrics(run: Run) -> dict[tuple[str, str], list[tuple[str, ScoreCell]]]:
    """The scores by other metrics than the headlines, by variant and task; they have intervals and no verdicts."""
    found: dict[tuple[str, str], list[tuple[str, ScoreCell]]] = {}
    for task in run.tasks:
        for info in task.metrics:
            if info.name == task.headline:
                continue
            scale = scale_of(run, task.name, info.name)
            for variant in run.variants:
                if score := variant.score(task.name, info.name):
                    name = numbers.with_arrow(info.name, info.higher_is_better)
                    found.setdefault((variant.name, task.name), []).append((name, _plain_cell(score, scale)))
    return found


def standings(run: Run, task: TaskInfo) -> Standings:
    """Ranks a run's variants on a task and groups those that are not shown to differ; empty with `--until-decided`."""
    if task.until_decided:
        return Standings({}, {})
    scores = {variant.name: score.value for variant in run.variants if (score := variant.headline(task))}
    sign = -1 if task.higher_is_better(task.headline) else 1
    known = sorted(
        (name for name, value in scores.items() if value is not None), key=lambda name: sign * (scores[name] or 0.0)
    )
    better = shown_better(run, task)
    return Standings(ranks(known, better), tie_groups(known, lambda a, b: better(a, b) or better(b, a)))


def verdict_class(delta: Delta | None) -> str:
    """CSS class of a difference: `better`, `worse`, `same` where nothing was shown, and nothing for the baseline."""
    if delta is None:
        return ""
    return delta.verdict if delta.verdict in ("better", "worse") else "same"


def _labels(runs: Sequence[Run]) -> list[str]:
    """Names of the runs: the model; of several runs of one model, also the day, then the time."""
    for length in (0, 10, 16, 19):
        found = [model_name(run) + (f", {run.created[:length].replace('T', ' ')}" if length else "") for run in runs]
        if len(set(found)) == len(found):
            return found
    return [f"{model_name(run)}, run {number}" for number, run in enumerate(runs, 1)]


def _ends(runs: Sequence[Run], column: PageColumn) -> tuple[float, float]:
    """The scale of a column's lines: all intervals of all runs."""
    scores = [score for run in runs for variant in run.variants if (score := variant.score(column.task, column.metric))]
    ends = (end for score in scores for end in (score.low, score.high, score.value))
    known = [end for end in ends if end is not None and can_be_drawn(end)]
    return (min(known), max(known)) if known else (0.0, 1.0)


def _cell(
    rows: RunRows,
    task: TaskInfo,
    name: str,
    score: Score,
    scale: Scale,
    id: str,
    reference: Score,
    ends: tuple[float, float],
) -> ScoreCell:
    standing = rows.standings[task.name]
    rank, found = standing.ranks.get(name), rows.run.comparison(task, name, rows.run.baseline) if score.delta else None
    return replace(
        _plain_cell(score, scale),
        id=id,
        test=found.test if found else "",
        ties=letters(standing.groups.get(name, ())),
        rank=numbers.ABSENT if rank is None else numbers.rank(*rank),
        best_rank=None if rank is None else rank.best,
        unlike=tuple(differences(score, reference)),
        bar=_bar(score, ends),
    )


def _plain_cell(score: Score, scale: Scale) -> ScoreCell:
    """Describes a score without its place among others."""
    cut, delta = cut_words(score), score.delta
    won = numbers.ABSENT
    if delta is not None and delta.win_rate is not None:
        limits = [100 * end for end in (delta.win_rate_low, delta.win_rate_high) if end is not None]
        won = f"{100 * delta.win_rate:.1f} %" + (f" ({limits[0]:.1f}–{limits[1]:.1f})" if len(limits) == 2 else "")
    mark = delta.mark if delta else None
    return ScoreCell(
        id="",
        text=scale.value(score.value) + (f" ({', '.join(cut)})" if cut else ""),
        value=score.value,
        interval=scale.interval(score.low, score.high),
        kind=verdict_class(delta),
        symbol="" if mark is None else numbers.MARKS[mark],
        difference="" if delta is None else difference_cell(scale, delta).text,
        delta=None if delta is None else delta.value,
        p=numbers.ABSENT if delta is None else numbers.probability(delta.p),
        p_holm=numbers.ABSENT if delta is None else numbers.probability(delta.p_holm),
        won=won,
        n=score.n,
    )


def _bar(score: Score, ends: tuple[float, float]) -> tuple[int, int, int] | None:
    if score.value is None or score.low is None or score.high is None:
        return None
    if not can_be_drawn(score.value, score.low, score.high):
        return None
    low, high = ends

    def at(value: float) -> int:
        return round(100 * (value - low) / (high - low)) if high > low else 50

    return at(score.low), at(score.high) - at(score.low), at(score.value)
