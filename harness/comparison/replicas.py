"""Scores of methods over several training runs of each variant (`--seeds`, `--folds`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.comparison.samples import SampleRows, observations
from harness.comparison.verdicts import Tested, judge
from harness.prepare.tasks import ScoredTask
from harness.results import Replicated
from harness.stats import seeds
from harness.stats.observations import Observations

HELD_OUT = "held-out rows"
"""Used in place of a task name if the number is the loss of the rows that a training run did not see."""


def replicated(
    tasks: Sequence[ScoredTask],
    rows: Mapping[str, Mapping[str, SampleRows]],
    trainings: Mapping[str, Sequence[str]],
    baseline: str,
    losses: Mapping[str, float],
    *,
    folds: int | None = None,
) -> tuple[Replicated, ...]:
    """Computes headlines, and the loss of held-out rows, over the training runs of each variant.

    Args:
        tasks: The tasks, in order.
        rows: Samples by row of the comparison, then by task, without rows that failed.
        trainings: By variant, the rows that are its training runs; variants with one training run are left out.
        baseline: The variant that differences are from, with one or several training runs.
        losses: By row, the loss of its held-out rows, if there are any.
        folds: Number of folds, if each training run leaves out one fold; None if training runs differ in their seed.
    """
    scored = {name: tuple(row for row in members if row in rows) for name, members in trainings.items()}
    several = {name: members for name, members in scored.items() if len(members) > 1}
    against = scored.get(baseline) or ((baseline,) if baseline in rows else ())

    def seen(members: Sequence[str], task: ScoredTask) -> list[Observations]:
        return [observations(task.metrics[0], rows[member][task.name]) for member in members]

    found: list[Replicated] = []
    tested: dict[tuple[str, str], Tested] = {}
    for task in tasks:
        metric = task.metrics[0]
        for name, members in several.items():
            mean = seeds.mean(seen(members, task), folds=folds)
            if mean is None:
                continue
            found.append(Replicated(variant=name, trainings=members, task=task.name, metric=metric.name, **vars(mean)))
            if against and name != baseline:
                difference = seeds.difference(seen(members, task), seen(against, task), folds=folds)
                if difference is not None:
                    tested[name, task.name] = Tested(difference, metric.higher_is_better)
    deltas = judge(tested)
    found = [each.model_copy(update={"delta": deltas.get((each.variant, each.task))}) for each in found]
    for name, members in several.items():
        known = [losses[member] for member in members if member in losses]
        if len(known) == len(members):
            loss = seeds.mean_of_numbers(known, folds=folds)
            found.append(Replicated(variant=name, trainings=members, task=HELD_OUT, metric="loss", **vars(loss)))
    return tuple(found)
