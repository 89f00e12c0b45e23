"""Groups the runs of a board by model: which of them count, which are one table, and which are history.

Of two runs of a model on one machine, the older is history if the newer has all of its variants and tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from harness.leaderboards.cost_tables import machine_of
from harness.leaderboards.joined_runs import joined_runs
from harness.leaderboards.protocols import differences
from harness.leaderboards.sections import PageColumn, RunRows, page_columns, page_rows
from harness.report.header import model_name
from harness.report.scores import scale_of, titles
from harness.results import Run, Score
from harness.stats.task_order import TaskPlace, places

MOST_JOINED = 40
"""Runs of one model above which none are joined: every joint adjusts all comparisons again."""


@dataclass(frozen=True)
class PastScore:
    """A score in the history of a model."""

    created: str
    harness: str
    text: str
    interval: str
    version: str
    """Version of the task."""
    unlike: tuple[str, ...]
    """How its protocol differs from that of the newest score."""


@dataclass(frozen=True)
class PastScores:
    """The scores of one variant on one task over several runs, newest first."""

    variant: str
    task: str
    scores: tuple[PastScore, ...]


@dataclass
class BoardRun:
    """Variants that were scored on the same samples: a run, or several that are one table."""

    rows: RunRows
    columns: list[PageColumn]
    """The tasks of this run."""
    machine: str
    order: dict[str, TaskPlace] = field(default_factory=dict)
    """Places over all tasks, by variant."""

    @property
    def run(self) -> Run:
        """The run, or the runs in one."""
        return self.rows.run


@dataclass
class BoardModel:
    """A model with its runs, newest first."""

    name: str
    runs: Sequence[Run]

    @cached_property
    def current(self) -> list[Run]:
        """The runs that are shown, joined where possible."""
        found: list[Run] = []
        contents: list[_Content] = []
        for run in self.runs:
            mine = _content(run)
            if not any(newer.replaces(mine) for newer in contents):
                found.append(run)
                contents.append(mine)
        return joined_runs(found) if len(found) <= MOST_JOINED else found

    @cached_property
    def columns(self) -> list[PageColumn]:
        """The tasks of all runs that are shown."""
        return page_columns(self.current)

    @cached_property
    def tables(self) -> list[BoardRun]:
        """The tables of the model: one for each current run."""
        found = []
        for rows in page_rows(self.current, self.columns):
            mine = [column for column in self.columns if any(row.cells[column.key] is not None for row in rows.rows)]
            found.append(BoardRun(rows, mine, machine_of(rows.run), _order(rows, mine)))
        return found

    @cached_property
    def history(self) -> list[PastScores]:
        """Variants with scores of several runs on one task."""
        found: dict[tuple[str, str, str], list[tuple[Run, Score]]] = {}
        named: dict[str, str] = {}
        for run in self.runs:
            named = titles(run) | named
            for variant in run.variants:
                for task in run.tasks:
                    if score := variant.headline(task):
                        found.setdefault((variant.spec, variant.name, task.name), []).append((run, score))
        return [
            PastScores(name, named[task], tuple(_past(run, score, scores[0][1]) for run, score in scores))
            for (_, name, task), scores in found.items()
            if len(scores) > 1
        ]


def board_models(runs: Sequence[Run]) -> list[BoardModel]:
    """Groups runs by model, in the order of names. Models of one name with different weights are different models.

    Args:
        runs: The runs, newest first.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        digest = str((run.environment.get("model") or {}).get("digest") or "")
        groups.setdefault((model_name(run), digest), []).append(run)
    times = Counter(name for name, _ in groups)
    return [
        BoardModel(name if times[name] == 1 else f"{name} ({digest[:8] or 'unknown weights'})", members)
        for (name, digest), members in sorted(groups.items(), key=lambda group: (group[0][0].lower(), group[0]))
    ]


class _Content(NamedTuple):
    """The machine, the variants and the scores of a run, without their values."""

    machine: tuple[str, str]
    variants: frozenset[tuple[str, str]]
    scores: frozenset[tuple[str, str, str, str]]

    def replaces(self, older: _Content) -> bool:
        """Whether this newer run makes an older one history."""
        return self.machine == older.machine and self.variants >= older.variants and self.scores >= older.scores


def _content(run: Run) -> _Content:
    return _Content(
        (machine_of(run), run.baseline),
        frozenset((variant.name, variant.spec) for variant in run.variants),
        frozenset((v.name, v.spec, score.task, score.metric) for v in run.variants for score in v.scores),
    )


def _past(run: Run, score: Score, newest: Score) -> PastScore:
    scale = scale_of(run, score.task, score.metric)
    version = "-" if score.protocol.version is None else str(score.protocol.version)
    unlike = differences(score, newest) if score is not newest else []
    if score.metric != newest.metric:
        unlike = [score.metric, *unlike]
    return PastScore(
        run.created[:10],
        run.harness,
        scale.value(score.value),
        scale.interval(score.low, score.high),
        version,
        tuple(unlike),
    )


def _order(rows: RunRows, columns: Sequence[PageColumn]) -> dict[str, TaskPlace]:
    """Places over tasks; tasks whose variants have scores of different samples (`--until-decided`) do not count."""
    tasks = {task.name: task for task in rows.run.tasks if not task.until_decided}
    counted = [column for column in columns if column.task in tasks]
    scored = [row for row in rows.rows if any(row.cells[column.key] is not None for column in counted)]
    values = np.array(
        [
            [
                np.nan if (cell := row.cells[c.key]) is None or cell.value is None else (1 if c.higher_is_better else -1) * cell.value
                for c in counted
            ]
            for row in scored
        ],
        dtype=float,
    )  # fmt: skip
    return places([row.variant.name for row in scored], values) if scored and counted else {}
