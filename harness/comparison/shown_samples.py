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
from harness.runs.prompts import prompt_of, shortened

MOST_OF_A_KIND = 6
"""Samples of one task that a variant has won, and as many that it has lost."""
MOST = 360
"""Outputs of variants in a document."""
LONGEST = 600
"""Characters of a prompt, target or output."""
WonOrLost = Literal["won", "lost"]


class _Drawn(NamedTuple):
    """A sample that may be shown."""

    id: str
    own: float
    theirs: float


class _Contest(NamedTuple):
    """The samples of a task that a variant has won and lost: their number, and the first ones in the order of drawing."""

    counts: tuple[int, int, int]
    """Won, lost and tied."""
    first: dict[WonOrLost, list[_Drawn]]


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
        theirs = _own(task, rows[baseline][task.name])
        for name in rows:
            if name != baseline and (found := _contest(task, _own(task, rows[name][task.name]), theirs, order)):
                contests[task.name, name] = found
    drawn = _drawn(contests)
    return tuple(
        made for task in tasks if (made := _shown(task, contests, drawn, rows, items[task.name], baseline)) is not None
    )


def _contest(
    task: ScoredTask, own: Mapping[str, float], theirs: Mapping[str, float], order: Sequence[str]
) -> _Contest | None:
    """Compares a variant's samples with the baseline's; None if the headline gives samples no score of their own."""
    sign = 1 if task.metrics[0].higher_is_better else -1
    shared = [id for id in order if id in own and id in theirs]
    gains = np.array([sign * (own[id] - theirs[id]) for id in shared])
    if not shared or not np.isfinite(gains).all():
        return None
    first: dict[WonOrLost, list[_Drawn]] = {}
    kinds: tuple[tuple[WonOrLost, Any], ...] = (("won", gains > 0), ("lost", gains < 0))
    for kind, members in kinds:
        ids = [shared[index] for index in np.flatnonzero(members)[:MOST_OF_A_KIND]]
        first[kind] = [_Drawn(id, own[id], theirs[id]) for id in ids]
    won, lost = int((gains > 0).sum()), int((gains < 0).sum())
    return _Contest((won, lost, len(shared) - won - lost), first)


def _own(task: ScoredTask, rows: SampleRows) -> dict[str, float]:
    """The samples' own scores by the headline, by id; empty without."""
    found = observations(task.metrics[0], rows).own if rows else None
    return {} if found is None else dict(zip((row["id"] for row in rows), found.tolist(), strict=True))


def _drawn(contests: Mapping[tuple[str, str], _Contest]) -> dict[tuple[str, str, WonOrLost], list[_Drawn]]:
    """Draws in rounds: one sample of each task, variant and kind after another, until there are `MOST`."""
    found: dict[tuple[str, str, WonOrLost], list[_Drawn]] = defaultdict(list)
    count = 0
    for number in range(MOST_OF_A_KIND):
        for (task, variant), contest in contests.items():
            for kind, samples in contest.first.items():
                if number < len(samples) and count < MOST:
                    found[task, variant, kind].append(samples[number])
                    count += 1
    return found


def _shown(
    task: ScoredTask,
    contests: Mapping[tuple[str, str], _Contest],
    drawn: Mapping[tuple[str, str, WonOrLost], Sequence[_Drawn]],
    rows: Mapping[str, Mapping[str, SampleRows]],
    items: Sequence[Item],
    baseline: str,
) -> ShownSamples | None:
    """Describes the samples of a task; None if no variant has scores to compare."""
    mine = {name: contest for (of, name), contest in contests.items() if of == task.name}
    if not mine:
        return None
    chosen = {(name, kind): drawn.get((task.name, name, kind), ()) for name in mine for kind in mine[name].first}
    wanted = {each.id: each.theirs for samples in chosen.values() for each in samples}
    prompts = {item.request.id: (item.group, prompt_of(item)) for item in items if item.request.id in wanted}
    outputs = {
        (name, row["id"]): shortened(prompts[row["id"]][1].output(row), LONGEST)
        for name in (*mine, baseline)
        for row in rows[name][task.name]
        if row["id"] in wanted
    }
    return ShownSamples(
        task=task.name,
        prompts=tuple(
            ShownPrompt(
                id=id,
                group=group,
                prompt=shortened(prompt.prompt, LONGEST),
                target=None if prompt.target is None else shortened(prompt.target, LONGEST),
                output=outputs[baseline, id],
                score=wanted[id],
            )
            for id, (group, prompt) in prompts.items()
        ),
        variants=tuple(
            ShownVariant(
                variant=name,
                won=contest.counts[0],
                lost=contest.counts[1],
                tied=contest.counts[2],
                outputs=tuple(
                    ShownOutput(id=each.id, kind=kind, output=outputs[name, each.id], score=each.own)
                    for kind in contest.first
                    for each in chosen[name, kind]
                ),
            )
            for name, contest in mine.items()
        ),
    )
