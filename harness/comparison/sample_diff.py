"""The samples on which two variants differ: who won which, with prompts, answers and targets.

Prompts and targets are read from the run's folder. Those of runs of earlier versions come from the task: only built-in tasks,
and a task that the user names, are loaded, because a `run.json` from elsewhere cannot start code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from harness.api import Metric
from harness.comparison.samples import observations
from harness.errors import UserError, did_you_mean
from harness.prepare.tasks import ScoredTask, scored_task
from harness.prompts.render import Prompting, render
from harness.registry.find import find
from harness.registry.task_spec import parse_task
from harness.results import Run, TaskInfo, Variant
from harness.runs.folder import sample_log, stored_as
from harness.runs.prompts import SamplePrompt, output_of_row, prompt_of, read_prompts
from harness.stats.observations import finite_or_nan
from harness.stats.paired import paired

BUILT_IN = Path(__file__).parents[1] / "tasks"


@dataclass(frozen=True)
class Answer:
    """The output of one variant for a sample."""

    score: float
    text: str
    """The generated text, or the likeliest choice; for `Text`, the log-likelihood."""


@dataclass(frozen=True)
class ChangedSample:
    """A sample on which two variants have different scores."""

    id: str
    group: str | None
    outcome: Literal["won", "lost"]
    """Whether the first variant has the better score."""
    difference: float
    """Of the scores, first − second."""
    margin: float | None
    """Change of the right choice's log-likelihood over the best other one, first − second; None without choices."""
    others: float | None
    """Mean distance of the run's other variants' scores from the first's; None without other variants."""
    prompt: str | None
    """The question without solved examples; None if the task was not loaded."""
    target: str | None
    a: Answer
    b: Answer


@dataclass(frozen=True)
class GroupCounts:
    """Samples of one group, and how many of them were won and lost."""

    name: str
    n: int
    won: int
    lost: int


@dataclass(frozen=True)
class SampleDiff:
    """The samples that two variants share on a task, and those on which they differ, most surprising first."""

    task: str
    metric: str
    a: str
    b: str
    n: int
    won: int
    lost: int
    value: float | None
    """Difference a − b of the metric over the shared samples; None if it is not known."""
    low: float | None
    high: float | None
    p: float | None
    """Unadjusted p-value of the difference."""
    groups: tuple[GroupCounts, ...]
    samples: tuple[ChangedSample, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Side:
    """A variant of a run on disk."""

    run: Run
    folder: Path
    name: str

    def variant(self) -> Variant:
        """The variant.

        Raises:
            UserError: The run has no such variant.
        """
        names = [variant.name for variant in self.run.variants]
        if self.name not in names:
            raise UserError(f"`{self.folder}` has no variant `{self.name}`", hint=did_you_mean(self.name, names))
        return self.run.variant(self.name)

    def rows(self, task: str) -> dict[str, dict[str, Any]]:
        """The scored samples by id."""
        return {row["id"]: row for row in sample_log(self.folder, self.stored_as(), task).complete_rows()}

    def stored_as(self) -> str:
        """The name of the variant's files."""
        variant = self.variant()
        if variant.train is None:
            return stored_as(variant.spec, self.run.seed or 0)
        found = re.fullmatch(r".*\.fold(\d+)", variant.name)
        fold = None if self.run.config.get("folds") is None else int(found[1]) if found else 0
        return stored_as(variant.spec, variant.train.seed, fold)


def sample_diff(first: Side, second: Side, task: str, *, trusted: bool = False) -> SampleDiff:
    """Compares two variants sample by sample on a task's headline.

    The most surprising samples come first: those with the largest difference in score, then in the log-likelihood of the right
    choice, then those that most other variants of the run score differently from the first.

    Args:
        first: The variant in question.
        second: The variant it is compared with, of the same run or of another.
        task: The task, as its run names it.
        trusted: Whether the user has typed the task's name, so that its file may be loaded.

    Raises:
        UserError: A run lacks the task or the variant, the two share no sample, or samples have no score of their own.
    """
    info = _task_info(first, task)
    _task_info(second, task)
    mine, theirs = first.rows(task), second.rows(task)
    same_run = first.folder.resolve() == second.folder.resolve()
    ids = [id for id in mine if id in theirs and (same_run or mine[id]["prompt_sha256"] == theirs[id]["prompt_sha256"])]
    if not ids:
        raise UserError(
            f"`{first.name}` and `{second.name}` share no sample of `{task}`",
            hint="two runs share the samples that have the same prompts; were they scored with the same shots and template?",
        )
    notes = []
    alone = len(mine) + len(theirs) - 2 * len(ids)
    if alone:
        notes.append(f"{alone} samples that only one of the two has, or with another prompt, are left out")
    prompts = read_prompts(first.folder, task)
    loaded = _loaded(task, info, trusted, [] if prompts else notes)
    if loaded is not None and not prompts:
        prompts = _rendered(loaded, first, mine, notes)
    metric = None if loaded is None else next((m for m in loaded.metrics if m.name == info.headline), None)
    scores = [[_score(rows[id], info.headline, metric) for id in ids] for rows in (mine, theirs)]
    others = [side for side in first.run.variants if side.name not in {first.name, second.name if same_run else ""}]
    rest = [Side(first.run, first.folder, other.name).rows(task) for other in others]
    better = 1 if info.higher_is_better(info.headline) else -1
    changed = []
    for id, score, rival in zip(ids, *scores, strict=True):
        if score == rival:
            continue
        prompt = prompts.get(id)
        near = [abs(score - _score(rows[id], info.headline, metric)) for rows in rest if id in rows]
        margins = [prompt and prompt.margin(rows[id]) for rows in (mine, theirs)]
        changed.append(
            ChangedSample(
                id=id,
                group=mine[id]["group"],
                outcome="won" if (score - rival) * better > 0 else "lost",
                difference=score - rival,
                margin=None if None in margins else float(margins[0] or 0) - float(margins[1] or 0),
                others=sum(near) / len(near) if near else None,
                prompt=prompt.prompt if prompt else None,
                target=prompt.target if prompt else None,
                a=Answer(score, output_of_row(mine[id], prompt.choices if prompt else ())),
                b=Answer(rival, output_of_row(theirs[id], prompt.choices if prompt else ())),
            )
        )
    changed.sort(key=lambda each: (-abs(each.difference), -abs(each.margin or 0.0), -(each.others or 0.0)))
    whole = (len(ids) == len(mine) == len(theirs)) and same_run
    found = first.run.comparison(info, first.name, second.name) if whole else _paired(metric, mine, theirs, ids)
    return SampleDiff(
        task=task,
        metric=info.headline,
        a=first.name,
        b=second.name,
        n=len(ids),
        won=sum(each.outcome == "won" for each in changed),
        lost=sum(each.outcome == "lost" for each in changed),
        value=found.value if found else None,
        low=found.low if found else None,
        high=found.high if found else None,
        p=found.p if found else None,
        groups=_groups([mine[id] for id in ids], changed),
        samples=tuple(changed),
        notes=tuple(notes),
    )


def _task_info(side: Side, task: str) -> TaskInfo:
    known = {info.name: info for info in side.run.tasks}
    if task not in known:
        raise UserError(f"`{side.folder}` has no task `{task}`", hint=did_you_mean(task, list(known)))
    side.variant()
    return known[task]


def _loaded(task: str, info: TaskInfo, trusted: bool, notes: list[str]) -> ScoredTask | None:
    """Loads the task for prompts and targets, if it is built in or the user has named it."""
    try:
        spec = parse_task(task)
        if not trusted and not find("task", spec.source).path.resolve().is_relative_to(BUILT_IN.resolve()):
            notes.append(f"prompts and targets are left out; `--task {task}` loads the task's file")
            return None
        return scored_task(spec)
    except UserError as error:
        notes.append(f"prompts and targets are left out: {error.message}")
        return None


def _rendered(
    task: ScoredTask, side: Side, rows: Mapping[str, Mapping[str, Any]], notes: list[str]
) -> dict[str, SamplePrompt]:
    """Renders the questions without solved examples; says so if the rows of the task are no longer those of the run."""
    score = side.variant().score(task.name, task.metrics[0].name)
    items = {item.request.id: item for item in render(task.name, task.task, Prompting(0), groups=task.spec.groups)}
    if score is not None and score.protocol.chat_template is None:
        asked = Prompting(
            score.protocol.shots or 0, system=score.protocol.system, shared_shots=score.protocol.shared_shots
        )
        for item in render(task.name, task.task, asked, groups=task.spec.groups):
            row = rows.get(item.request.id)
            if row is not None and row["prompt_sha256"] != item.request.sha256:
                notes.append("the task has changed since the run: prompts and targets may be others")
                break
    return {id: prompt_of(item, item.request.contexts[0]) for id, item in items.items()}


def _score(row: Mapping[str, Any], headline: str, metric: Metric | None) -> float:
    value = row["metrics"][headline]
    if isinstance(value, int | float):
        return float(value)
    if headline in row.get("scores", {}):
        return float(row["scores"][headline])
    if metric is None or metric.value is None:
        raise UserError(
            f"samples have no score of their own by `{headline}`",
            hint="`diff` compares tasks whose headline scores each sample, or is a function of sums of a loaded task",
        )
    return finite_or_nan(metric.value, tuple(value))


def _paired(metric: Metric | None, mine: Mapping[str, Any], theirs: Mapping[str, Any], ids: Sequence[str]) -> Any:
    if metric is None:
        return None
    return paired(*(observations(metric, [rows[id] for id in ids]) for rows in (mine, theirs)))


def _groups(rows: Sequence[Mapping[str, Any]], changed: Sequence[ChangedSample]) -> tuple[GroupCounts, ...]:
    """Counts by group, most lost first; empty without groups."""
    counts: dict[str, int] = {}
    for row in rows:
        if row["group"] is not None:
            counts[row["group"]] = counts.get(row["group"], 0) + 1
    found = [
        GroupCounts(
            name, n, *(sum(each.group == name and each.outcome == o for each in changed) for o in ("won", "lost"))
        )
        for name, n in counts.items()
    ]
    return tuple(sorted(found, key=lambda each: (each.won - each.lost, each.name)))
