"""The rows of a board's tables: places over tasks, places on one task, and what a method gained on each model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from harness.leaderboards.board_models import BoardRun
from harness.leaderboards.sections import PageColumn, PageRow, ScoreCell
from harness.report import numbers
from harness.report.gains import gains
from harness.results import Change
from harness.stats.task_order import TaskMean, TaskPlace
from harness.stats.ties import letters

_MOST_STRIPS = 14
"""Groups on a task above which letters are shown instead of strips."""
Bar = tuple[int, int, int]


class TaskMeanCell(NamedTuple):
    """A mean over tasks with its interval."""

    text: str
    value: float | None
    interval: str
    bar: Bar | None


class OrderRow(NamedTuple):
    """A variant among the others of its run, over all tasks."""

    name: str
    note: str
    best: str
    worst: str
    win: TaskMeanCell
    borda: TaskMeanCell
    ranks: tuple[str, ...]
    """On each task of the table."""
    train: str
    token: str


class TaskRow(NamedTuple):
    """A variant among the others of its run, on one task."""

    name: str
    best: str
    worst: str
    strips: tuple[str, ...]
    """The letter of each group that the variant is in, empty for others; none where there are too many groups."""
    words: str
    cell: ScoreCell


class GainRow(NamedTuple):
    """The gains of a variant on a model."""

    variant: str
    trained: str
    other: str


def order_rows(
    table: BoardRun, columns: Sequence[tuple[str, str]], *, method: str | None = None, places_of: int | None = None
) -> list[OrderRow]:
    """Makes the rows of a run, highest win rate first, variants without one last.

    Args:
        table: The run.
        columns: Task and metric of the columns with ranks.
        method: Only variants of this method.
        places_of: Number of rows; None: all.
    """
    keys = {(column.task, column.metric): column.key for column in table.columns}
    rows = [row for row in table.rows.rows if method is None or row.variant.method == method]

    def rate(row: PageRow) -> float:
        place = table.order.get(row.variant.name)
        return place.win_rate.value if place and place.win_rate else -1.0

    rows.sort(key=lambda row: -rate(row))
    return [_order_row(table, row, [keys.get(column) for column in columns]) for row in rows[:places_of]]


def _order_row(table: BoardRun, row: PageRow, keys: Sequence[int | None]) -> OrderRow:
    variant, place = row.variant, table.order.get(row.variant.name)
    cells = [None if key is None else row.cells[key] for key in keys]
    note = row.note
    if place and place.rank is None:
        note = f"{place.tasks} of {numbers.counted(len(table.columns), 'task')}" + (f"; {note}" if note else "")
    best, worst = _ends(place)
    others = max(1, sum(1 for each in table.rows.rows if each.variant.name in table.order) - 1)
    train, inference = variant.train, variant.inference
    return OrderRow(
        variant.name,
        note,
        best,
        worst,
        _mean(place.win_rate if place else None, 1.0, 100, 0, " %"),
        _mean(place.borda if place else None, float(others), 1, 1, ""),
        tuple(numbers.ABSENT if cell is None else cell.rank for cell in cells),
        numbers.seconds(train.train_seconds if train else None),
        numbers.seconds(inference.decode_seconds_per_token_p50 if inference else None),
    )


def _ends(place: TaskPlace | None) -> tuple[str, str]:
    if place is None or place.rank is None:
        return numbers.ABSENT, ""
    return str(place.rank.best), str(place.rank.worst) if place.rank.worst != place.rank.best else ""


def _mean(mean: TaskMean | None, most: float, factor: int, decimals: int, unit: str) -> TaskMeanCell:
    if mean is None:
        return TaskMeanCell(numbers.ABSENT, None, "", None)
    text = f"{factor * mean.value:.{decimals}f}{unit}"
    if mean.low is None or mean.high is None:
        return TaskMeanCell(text, mean.value, "", None)
    low, high, at = (round(100 * min(1.0, max(0.0, end / most))) for end in (mean.low, mean.high, mean.value))
    interval = f"{factor * mean.low:.{decimals}f}–{factor * mean.high:.{decimals}f}"
    return TaskMeanCell(text, mean.value, interval, (low, high - low, at))


def task_rows(table: BoardRun, column: PageColumn) -> list[TaskRow]:
    """Makes the rows of a run on one task, best score first."""
    standings = table.rows.standings[column.task]
    count = 1 + max((group for groups in standings.groups.values() for group in groups), default=-1)
    found = []
    for row in table.rows.rows:
        cell = row.cells[column.key]
        if cell is None:
            continue
        groups = standings.groups.get(row.variant.name, ())
        rank = standings.ranks.get(row.variant.name)
        strips = tuple(letters([group]) if group in groups else "" for group in range(count))
        found.append(
            TaskRow(
                row.variant.name,
                numbers.ABSENT if rank is None else str(rank.best),
                "" if rank is None or rank.best == rank.worst else str(rank.worst),
                strips if 0 < count <= _MOST_STRIPS else (),
                f"groups {' '.join(letters([group]) for group in groups)}" if groups else numbers.ABSENT,
                cell,
            )
        )
    sign = -1 if column.higher_is_better else 1
    return sorted(found, key=lambda row: (row.cell.value is None, sign * (row.cell.value or 0.0)))


def gain_rows(table: BoardRun, method: str) -> list[GainRow]:
    """The mean differences of a method's variants from the baseline, in points."""
    methods = {row.variant.name: row.variant.method for row in table.rows.rows}
    return [
        GainRow(gain.variant, _change(gain.learned()), _change(gain.kept()))
        for gain in gains(table.run)
        if methods.get(gain.variant) == method
    ]


def _change(change: Change | None) -> str:
    if change is None:
        return numbers.ABSENT
    ends = "" if change.low is None or change.high is None else f" ({change.low:+.1f} to {change.high:+.1f})"
    return f"{change.value:+.1f}{ends}"


def tests_of(table: BoardRun) -> dict[int, str]:
    """The tests behind the differences of each task, for the table of every score."""
    found: dict[int, Any] = {}
    for column in table.columns:
        cells = [cell for row in table.rows.rows if (cell := row.cells[column.key]) and cell.test]
        found[column.key] = ", ".join(dict.fromkeys(cell.test for cell in cells))
    return found
