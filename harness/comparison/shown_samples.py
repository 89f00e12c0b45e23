"""The samples that a report shows: some that variants have won and lost against the baseline, and how many there were.

They are part of the run's document, so that a page can be made from it alone. All variants draw from one random order of a
task's samples, so a prompt is often shared.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from harness.comparison.samples import SampleRows, observations
from harness.jobs import Item
from harness.prepare.tasks import ScoredTask
from harness.results import ShownOutput, ShownPrompt, ShownSamples, ShownVariant
from harness.runs.prompts import SamplePrompt, prompt_of, shortened

MOST_OF_A_KIND = 6
"""Samples of one task that a variant has won, and as many that it has lost."""
MOST = 360
"""Outputs of variants in a document."""
LONGEST = 600
"""Characters of a prompt, target or output."""
WonOrLost = Literal["won", "lost"]


class _Contest(NamedTuple):
    """The samples of a task that a variant has won and lost, in the order in which they are drawn."""

    won: list[str]
    lost: list[str]
    tied: int
    own: dict[str, float]
    theirs: dict[str, float]


def shown_samples(
    tasks: Sequence[ScoredTask],
    rows: Mapping[str, Mapping[str, SampleRows]],
    items: Mapping[str, Sequence[Item]],
    baseline: str,
    seed: int,
) -> tuple[ShownSamples, ...]:
    """Draws the samples to show, evenly over variants, tasks, and won and lost.

    Args:
        tasks: The tasks, in order.
        rows: Samples by variant, then by task, without variants that failed.
        items: The samples of each task.
        baseline: The variant that the others are compared with; if it failed, nothing is shown.
        seed: Seed of the order in which samples are drawn.
    """
    if baseline not in rows:
        return ()
    contests: dict[tuple[str, str], _Contest] = {}
    for task in tasks:
        order = [item.request.id for item in items[task.name]]
        random.Random(seed).shuffle(order)
        for name in rows:
            if name != baseline and (found := _contest(task, rows[name], rows[baseline], order)) is not None:
                contests[task.name, name] = found
    drawn = _drawn(contests)
    return tuple(
        made for task in tasks if (made := _shown(task, contests, drawn, rows, items[task.name], baseline)) is not None
    )


def _contest(
    task: ScoredTask, mine: Mapping[str, SampleRows], base: Mapping[str, SampleRows], order: Sequence[str]
) -> _Contest | None:
    """Compares a variant's samples with the baseline's; None if the headline gives samples no score of their own."""
    metric = task.metrics[0]
    own, theirs = (_own(task, rows[task.name]) for rows in (mine, base))
    shared = [id for id in order if id in own and id in theirs]
    values = np.array([[own[id], theirs[id]] for id in shared])
    if not shared or not np.isfinite(values).all():
        return None
    sign = 1 if metric.higher_is_better else -1
    won = [id for id in shared if sign * (own[id] - theirs[id]) > 0]
    lost = [id for id in shared if sign * (own[id] - theirs[id]) < 0]
    return _Contest(won, lost, len(shared) - len(won) - len(lost), own, theirs)


def _own(task: ScoredTask, rows: SampleRows) -> dict[str, float]:
    """The samples' own scores by the headline, by id; empty without."""
    found = observations(task.metrics[0], rows).own if rows else None
    return {} if found is None else dict(zip((row["id"] for row in rows), found.tolist(), strict=True))


def _drawn(contests: Mapping[tuple[str, str], _Contest]) -> dict[tuple[str, str, WonOrLost], list[str]]:
    """Draws in rounds: one sample of each task, variant and kind after another, until there are `MOST`."""
    found: dict[tuple[str, str, WonOrLost], list[str]] = defaultdict(list)
    count = 0
    for number in range(MOST_OF_A_KIND):
        for (task, variant), contest in contests.items():
            kinds: tuple[tuple[WonOrLost, list[str]], ...] = (("won", contest.won), ("lost", contest.lost))
            for kind, ids in kinds:
                if number < len(ids) and count < MOST:
                    found[task, variant, kind].append(ids[number])
                    count += 1
    return found


def _shown(
    task: ScoredTask,
    contests: Mapping[tuple[str, str], _Contest],
    drawn: Mapping[tuple[str, str, WonOrLost], Sequence[str]],
    rows: Mapping[str, Mapping[str, SampleRows]],
    items: Sequence[Item],
    baseline: str,
) -> ShownSamples | None:
    """Describes the samples of a task; None if no variant has scores to compare."""
    mine = {name: contest for (of, name), contest in contests.items() if of == task.name}
    if not mine:
        return None
    kinds: tuple[WonOrLost, WonOrLost] = ("won", "lost")
    wanted = {id for name in mine for kind in kinds for id in drawn.get((task.name, name, kind), ())}
    prompts = {item.request.id: (item.group, prompt_of(item)) for item in items if item.request.id in wanted}
    by_id = {
        name: {row["id"]: row for row in rows[name][task.name] if row["id"] in wanted} for name in (*mine, baseline)
    }
    theirs = next(iter(mine.values())).theirs
    return ShownSamples(
        task=task.name,
        prompts=tuple(
            ShownPrompt(
                id=id,
                group=group,
                prompt=shortened(prompt.prompt, LONGEST),
                target=None if prompt.target is None else shortened(prompt.target, LONGEST),
                output=_output(prompt, by_id[baseline][id]),
                score=theirs[id],
            )
            for id, (group, prompt) in prompts.items()
        ),
        variants=tuple(
            ShownVariant(
                variant=name,
                won=len(contest.won),
                lost=len(contest.lost),
                tied=contest.tied,
                outputs=tuple(
                    ShownOutput(
                        id=id, kind=kind, output=_output(prompts[id][1], by_id[name][id]), score=contest.own[id]
                    )
                    for kind in kinds
                    for id in drawn.get((task.name, name, kind), ())
                ),
            )
            for name, contest in mine.items()
        ),
    )


def _output(prompt: SamplePrompt, row: Mapping[str, Any]) -> str:
    return shortened(prompt.output(row), LONGEST)
