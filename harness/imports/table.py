"""Makes one document of results from any tools, which every report and export takes like a run of our own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness import __version__
from harness.comparison.verdicts import Pair
from harness.errors import UserError, did_you_mean
from harness.imports.differences import Differences, TaskColumn
from harness.imports.find import load
from harness.imports.pairing import definition, observations, own_name
from harness.imports.record import ImportedRun, ImportedTask, Measured
from harness.report.gains import gains
from harness.report.recommendation import recommendation
from harness.results import Delta, GroupScore, MetricInfo, ResultsSource, Run, Score, TaskInfo, Variant
from harness.stats.intervals import interval
from harness.stats.observations import by_group, macro
from harness.stats.proportions import Z, wilson
from harness.storage import key

_TIES_FROM = 7
"""Rows from which a note counts the ties with the baseline."""


def read_table(paths: Sequence[Path], *, command: str, baseline: str | None = None) -> Run:
    """Reads results of any tools into one table.

    Args:
        paths: Files and folders, in the order of the rows.
        command: The command, for the report.
        baseline: The row that differences are from; None: the first.

    Raises:
        UserError: A file is damaged, or there is no such row.
    """
    return together(load(paths), command=command, baseline=baseline)


def together(runs: Sequence[ImportedRun], *, command: str, baseline: str | None = None) -> Run:
    """Makes the document of results that were read.

    Args:
        runs: The rows, in order.
        command: The command, for the report.
        baseline: The row that differences are from; None: the first.

    Raises:
        UserError: There is no such row.
    """
    names = [run.name for run in runs]
    first = names[0] if baseline is None else baseline
    if first not in names:
        raise UserError(f"no row `{first}` for `--baseline`", hint=did_you_mean(first, names))
    columns = _columns(runs)
    found = Differences(columns, runs, first)
    kept, cost_notes = _costs(runs)
    variants = tuple(
        kept[run.name].model_copy(update={"scores": tuple(_scores(run.name, columns, found))}) for run in runs
    )
    models = list(dict.fromkeys(run.model for run in runs))
    shown = models[0] if len(models) == 1 else f"{len(models)} models"
    devices = list(dict.fromkeys(run.device for run in runs if run.device))
    run = Run(
        harness=__version__,
        created=max(run.created for run in runs),
        command=command,
        config={"results": [{"row": each.name, "tool": each.tool, "file": each.file.name} for each in runs]},
        config_sha256=key(rows=[[each.name, each.tool, each.spec, each.created] for each in runs]),
        environment={"model": {"name": shown}, **({"device_name": devices[0]} if len(devices) == 1 else {})},
        baseline=first,
        seed=None,
        notes=tuple(
            [*_sources(runs), *found.notes(), *_ties(columns, variants, first), *cost_notes, *_own_notes(runs)]
        ),
        tasks=tuple(_info(column, found) for column in columns),
        variants=variants,
        comparisons=tuple(found.comparisons),
        tests=found.tests,
    )
    return run.model_copy(update={"gains": tuple(gains(run)), "recommendation": recommendation(run)})


def _columns(runs: Sequence[ImportedRun]) -> list[TaskColumn]:
    """The tasks; two tools that score a task by different headlines have a column each."""
    found: dict[tuple[str, tuple[str, str]], TaskColumn] = {}
    for run in runs:
        for task in run.tasks:
            place = (task.name, definition(task, task.measured[0].metric))
            if place not in found:
                taken = any(column.name == task.name for column in found.values())
                name = f"{task.name} ({task.definition} {task.measured[0].metric})" if taken else task.name
                found[place] = TaskColumn(name, own_name(task, task.measured[0].metric))
            if run.name in found[place].tasks:
                raise UserError(f"`{run.file}` has the task `{task.name[:80]}` twice", hint="name one results file")
            found[place].add(run.name, task)
    return list(found.values())


def _scores(row: str, columns: Sequence[TaskColumn], found: Differences) -> Iterator[Score]:
    for column in columns:
        for label, each in column.cells.get(row, {}).items():
            delta = found.deltas.get(Pair(column.name, label, row, found.baseline))
            yield _score(column, label, each, column.tasks[row], delta)


def _score(column: TaskColumn, label: str, each: Measured, task: ImportedTask, delta: Delta | None) -> Score:
    observed = observations(each)
    low, high = each.low, each.high
    groups: tuple[GroupScore, ...] = ()
    if low is None or high is None:
        if observed is not None:
            found = interval(observed)
            low, high = found.low, found.high
        elif each.share and each.n and each.value is not None:
            low, high = wilson(each.value, each.n)
        elif each.error is not None and each.value is not None:
            low, high = each.value - Z * each.error, each.value + Z * each.error
    if low is not None and high is not None and each.bounds is not None:
        low, high = max(low, each.bounds[0]), min(high, each.bounds[1])
    if observed is not None:
        groups = tuple(GroupScore(name=group.name, value=group.value, n=group.n) for group in by_group(observed))
    return Score(
        task=column.name,
        metric=label,
        value=each.value,
        low=low,
        high=high,
        n=each.n,
        macro=None if observed is None else macro(observed),
        groups=groups,
        protocol=task.protocol,
        delta=delta,
    )


def _info(column: TaskColumn, found: Differences) -> TaskInfo:
    tasks = list(column.tasks.values())
    sizes = [column.cells[row][column.headline].n for row in column.tasks if column.headline in column.cells[row]]
    return TaskInfo(
        name=column.name,
        n=max(sizes, default=0),
        trained_on=any(task.trained_on for task in tasks),
        headline=column.headline,
        metrics=tuple(MetricInfo(name=label, higher_is_better=higher) for label, higher in column.higher.items()),
        data=tasks[0].data,
        smallest_difference=found.smallest.get(column.name),
    )


def _costs(runs: Sequence[ImportedRun]) -> tuple[dict[str, Variant], list[str]]:
    """The rows without scores; costs only if all were measured on the same machine."""
    devices = list(dict.fromkeys(run.device or "an unknown machine" for run in runs if _has_costs(run)))
    found = {}
    for run in runs:
        source = ResultsSource(tool=run.tool, file=run.file.name[:300], lacks=run.lacks) if _is_foreign(run) else None
        variant = run.variant or Variant(name=run.name, spec=run.spec, method=None, status="done")
        costs = {"train": None, "inference": None, "money": None} if len(devices) > 1 else {}
        found[run.name] = variant.model_copy(update={"name": run.name, "scores": (), "source": source, **costs})
    notes = [f"costs are left out: they were measured on {len(devices)} machines ({', '.join(devices[:4])})"]
    return found, notes if len(devices) > 1 else []


def _has_costs(run: ImportedRun) -> bool:
    return run.variant is not None and (run.variant.train is not None or run.variant.inference is not None)


def _sources(runs: Sequence[ImportedRun]) -> Iterator[str]:
    """Says where rows come from and what their files lack, once for all rows of which the same is true."""
    same: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for run in runs:
        same.setdefault((run.tool, run.lacks), []).append(run.name)
    for (tool, lacks), names in same.items():
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        yield f"{shown}: results of {tool}" + (f"; not in the files: {'; '.join(lacks)}" if lacks else "")


def _own_notes(runs: Sequence[ImportedRun]) -> list[str]:
    """Notes of runs and files, each once."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for note in run.notes:
            found.setdefault(note, []).append("" if run.variant and not _is_foreign(run) else run.name)
    return [
        note if not names[0] else f"{names[0]}: {note}" if len(names) == 1 else f"{note} ({len(names)} rows)"
        for note, names in found.items()
    ]


def _is_foreign(run: ImportedRun) -> bool:
    return not run.tool.startswith("harness ")


def _ties(columns: Sequence[TaskColumn], variants: Sequence[Variant], baseline: str) -> Iterator[str]:
    """Counts the rows that are not shown to differ from the baseline."""
    for column in columns:
        deltas = [
            score.delta
            for variant in variants
            if (score := variant.score(column.name, column.headline)) is not None and score.delta is not None
        ]
        if len(deltas) >= _TIES_FROM:
            tied = sum(delta.verdict == "undecided" for delta in deltas)
            yield f"{column.name}: {tied} of {len(deltas)} other rows are not shown to differ from {baseline}"
