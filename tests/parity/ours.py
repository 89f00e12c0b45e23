"""Runs our side of a case: prompts as a run prepares them, answers from an engine or a script, metrics as a run computes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cases import Case
from peer import Asked, Side

from harness.comparison.samples import observations, sample_row
from harness.config.parse import configure
from harness.jobs import Base, Event, Item, Packed, Raw, Recipe, ScoreJob, ScoreVariant, TaskRequests
from harness.prepare.prepare import prepare
from harness.prepare.tasks import ScoredTask
from harness.stats.intervals import interval
from harness.worker.scoring import score

Engine = Literal["auto", "plain"]
TOKEN_BUDGET = 2048


@dataclass(frozen=True)
class Prepared:
    """The prompts of a case."""

    case: Case
    task: ScoredTask
    items: Sequence[Item]

    def side(self, raws: Sequence[Raw]) -> Side:
        """Samples and metrics for the answers to the first prompts."""
        items = self.items[: len(raws)]
        lines = [sample_row(self.task, item, raw, "") for item, raw in zip(items, raws, strict=True)]
        names = [metric for metric in self.task.metrics if metric.name in self.case.metrics]
        places: Counter[str] = Counter()
        samples = {}
        for item, raw in zip(items, raws, strict=True):
            group = (item.group or "") if len(self.case.theirs) > 1 else ""
            samples[group, places[group]] = Asked(
                item.request.contexts,
                item.request.continuations,
                item.request.stop,
                item.request.max_tokens,
                raw.loglikelihoods,
                raw.is_greedy if item.request.mode == "choose" else (),
                raw.texts,
            )
            places[group] += 1
        return Side(samples, {metric.name: interval(observations(metric, lines)).value for metric in names})


def prepared(case: Case, model: Path | None = None) -> Prepared:
    """Renders the prompts of a case as a run does; only a chat template makes them depend on the model."""
    config = configure(
        ["base"],
        model=None if model is None else str(model),
        tasks=[case.name],
        task_parameters=dict(case.parameters),
        num_fewshot=case.shots,
        limit=case.limit,
        apply_chat_template=case.chat,
        confirm_run_unsafe_code=True,
    )
    found = prepare(config)
    (task,) = found.tasks
    items = found.variants[0].items[task.name]
    if case.max_tokens is not None:
        items = [replace(item, request=replace(item.request, max_tokens=case.max_tokens)) for item in items]
    return Prepared(case, task, items)


def answers(case: Prepared, model: Path, engine: Engine, limit: int | None = None) -> list[Raw]:
    """Runs the first prompts on a model, with the code of a run's child."""
    requests = TaskRequests(case.task.name, [item.request for item in case.items[:limit]])
    variant = ScoreVariant("base", Recipe(Base(model, "cpu", "float32")), [requests])
    raws: list[Raw] = []

    def take(event: Event) -> None:
        if isinstance(event, Packed):
            raws.extend(event.raws)

    score(ScoreJob([variant], engine, "fp32", TOKEN_BUDGET, None, seed=0), take)
    return sorted(raws, key=lambda raw: raw.index)
