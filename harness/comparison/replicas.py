"""From the samples of several trainings of one variant (`--seeds`, `--folds`) to what is shown of all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.comparison.scores import Rows, observations
from harness.prepare.tasks import ScoredTask
from harness.results import Delta, Replicated, verdict_of
from harness.stats import paired, seeds
from harness.stats.observations import Observations

HELD_OUT = "held-out rows"
"""What stands in the place of a task where the number is the loss of the rows that a training did not see."""


def replicated(
    tasks: Sequence[ScoredTask],
    rows: Mapping[str, Mapping[str, Rows]],
    trainings: Mapping[str, Sequence[str]],
    baseline: str,
    losses: Mapping[str, float],
    seed: int,
    *,
    folds: int | None = None,
) -> tuple[Replicated, ...]:
    """Headlines, and the loss of held-out rows, over the trainings of each variant.

    Args:
        tasks: The tasks, in order.
        rows: By row of the comparison, then task; rows that failed are left out.
        trainings: By variant, the rows that are its trainings; those with a single one are left out here.
        baseline: The variant that differences are from: alone, or with trainings of its own.
        losses: By row, the loss of its held-out rows, where there are some.
        seed: Of the resampling.
        folds: Of how many parts of the data each training leaves one out; None: trainings differ by their seed.
    """
    found: list[Replicated] = []
    scored = {name: [row for row in members if row in rows] for name, members in trainings.items()}
    several = {name: members for name, members in scored.items() if len(members) > 1}
    against = scored.get(baseline) or ([baseline] if baseline in rows else [])
    for task in tasks:
        metric = task.metrics[0]

        def seen(members: Sequence[str], task: ScoredTask = task) -> list[Observations]:
            return [observations(task.metrics[0], rows[member][task.name]) for member in members]

        for name, members in several.items():
            mean = seeds.mean(seen(members), folds=folds, seed=seed)
            if mean is None:
                continue
            apart = None
            if against and name != baseline:
                apart = seeds.difference(seen(members), seen(against), folds=folds, seed=seed)
            found.append(
                Replicated(
                    variant=name,
                    trainings=tuple(members),
                    task=task.name,
                    metric=metric.name,
                    value=mean.value,
                    deviation=mean.deviation,
                    low=mean.low,
                    high=mean.high,
                    delta=None if apart is None else Delta(**vars(apart), p_holm=None, verdict="undecided"),
                )
            )
    better = {task.name: task.metrics[0].higher_is_better for task in tasks}
    found = _judged(found, better)
    for name, members in several.items():
        known = [losses[member] for member in members if member in losses]
        if len(known) == len(members):
            found.append(
                Replicated(
                    variant=name,
                    trainings=tuple(members),
                    task=HELD_OUT,
                    metric="loss",
                    **vars(seeds.mean_of_numbers(known, folds=folds)),
                )
            )
    return tuple(found)


def _judged(found: Sequence[Replicated], higher_is_better: Mapping[str, bool]) -> list[Replicated]:
    """With verdicts, p adjusted over all differences shown."""
    deltas = [each.delta for each in found if each.delta]
    adjusted = iter(paired.holm([delta.p for delta in deltas]))
    judged = []
    for each in found:
        if each.delta is not None:
            p = next(adjusted)
            verdict = verdict_of(each.delta.value, p, higher_is_better[each.task])
            each = each.model_copy(update={"delta": each.delta.model_copy(update={"p_holm": p, "verdict": verdict})})
        judged.append(each)
    return judged
