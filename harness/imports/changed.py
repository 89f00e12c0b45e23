"""The samples on which two runs of any tools differ, as `harness diff` shows them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.comparison.sample_diff import Answer, ChangedSample, GroupCounts, SampleDiff
from harness.errors import UserError, did_you_mean
from harness.imports.pairing import Incomparable, compare, definition, shared_rows
from harness.imports.record import ImportedRun, ImportedTask, Measured, SampleText

MOST_SAMPLES = 10_000
"""Samples whose texts are read at once."""


def row_of(runs: Sequence[ImportedRun], name: str) -> ImportedRun:
    """The run with a name.

    Raises:
        UserError: There is none.
    """
    for run in runs:
        if run.name == name:
            return run
    names = [run.name for run in runs]
    raise UserError(f"`{runs[0].file}` has no row `{name}`", hint=did_you_mean(name, names))


def changed_samples(first: ImportedRun, second: ImportedRun, task: str, *, most: int = MOST_SAMPLES) -> SampleDiff:
    """Compares two runs sample by sample on a task's headline; the largest differences come first.

    Args:
        first: The run in question.
        second: The run it is compared with.
        task: Name of the task in both.
        most: Number of samples whose texts are read.

    Raises:
        UserError: A run lacks the task or its samples, or the two are not comparable.
    """
    mine, theirs = _task(first, task), _task(second, task)
    a, b = _headline(mine, theirs)
    tested = compare(mine, theirs, a, b)
    if isinstance(tested, Incomparable):
        raise UserError(f"{task}: `{first.name}` and `{second.name}` are not compared: {tested.reason}")
    rows = shared_rows(mine, theirs, a, b)
    if a.samples is None or b.samples is None or isinstance(rows, Incomparable):
        raise UserError(
            f"{task}: without samples there is nothing to show", hint="lm-eval writes them with `--log_samples`"
        )
    indices, others, left_out = rows
    differences = a.samples.values[indices] - b.samples.values[others]
    better = 1 if a.higher_is_better else -1
    changed = np.flatnonzero(differences)
    changed = changed[np.argsort(-np.abs(differences[changed]), kind="stable")]
    chosen = changed[: min(most, MOST_SAMPLES)].tolist()
    texts = [
        side.texts(measured.metric, [int(where[each]) for each in chosen]) if side.texts and chosen else {}
        for side, measured, where in ((mine, a, indices), (theirs, b, others))
    ]
    groups = a.samples.groups
    notes = [left_out] if left_out else []
    if len(chosen) < len(changed):
        notes.append(f"{len(changed) - len(chosen):,} further samples differ")
    shown = []
    for each in chosen:
        index, other = int(indices[each]), int(others[each])
        one, two = texts[0].get(index), texts[1].get(other)
        shown.append(
            ChangedSample(
                id=one.id if one else str(index),
                group=groups[index] if groups else None,
                outcome="won" if differences[each] * better > 0 else "lost",
                difference=float(differences[each]),
                margin=None,
                others=None,
                prompt=_first(one, two, "prompt"),
                target=_first(one, two, "target"),
                a=Answer(float(a.samples.values[index]), one.answer if one else ""),
                b=Answer(float(b.samples.values[other]), two.answer if two else ""),
            )
        )
    return SampleDiff(
        task=task,
        metric=a.metric,
        a=first.name,
        b=second.name,
        n=len(indices),
        won=int(np.count_nonzero(differences * better > 0)),
        lost=int(np.count_nonzero(differences * better < 0)),
        value=tested.difference.value,
        low=tested.difference.low,
        high=tested.difference.high,
        p=tested.difference.p,
        groups=_groups(
            [groups[index] for index in indices.tolist()] if groups else [], (differences * better).tolist()
        ),
        samples=tuple(shown),
        notes=tuple(notes),
    )


def _task(run: ImportedRun, name: str) -> ImportedTask:
    known = {task.name: task for task in run.tasks}
    if name not in known:
        raise UserError(f"`{run.file}` has no task `{name}`", hint=did_you_mean(name, list(known)))
    return known[name]


def _headline(a: ImportedTask, b: ImportedTask) -> tuple[Measured, Measured]:
    """The headline of the first, and the same metric of the second."""
    wanted = definition(a, a.measured[0].metric)
    for each in b.measured:
        if definition(b, each.metric) == wanted:
            return a.measured[0], each
    raise UserError(
        f"{a.name}: the two runs have no metric in common: `{a.measured[0].metric}` and `{b.measured[0].metric}`"
    )


def _first(one: SampleText | None, two: SampleText | None, name: str) -> str | None:
    found = [getattr(each, name) for each in (one, two) if each is not None]
    return next((each for each in found if each is not None), None)


def _groups(names: Sequence[str], outcomes: Sequence[float]) -> tuple[GroupCounts, ...]:
    """Counts by group, most lost first; empty without groups."""
    counts: dict[str, list[int]] = {}
    for name, outcome in zip(names, outcomes, strict=False):
        found = counts.setdefault(name, [0, 0, 0])
        found[0] += 1
        found[1] += outcome > 0
        found[2] += outcome < 0
    groups = [GroupCounts(name, *found) for name, found in counts.items()]
    return tuple(sorted(groups, key=lambda each: (each.won - each.lost, each.name)))
