"""Everything of a run that can be known, and can fail, before a model is loaded: no torch.

From a configuration to rendered samples, training examples, resolved settings and file paths. A misspelt column, an empty
train file or a missing adapter ends here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness import __version__
from harness.config.parse import Config
from harness.config.variants import VariantSpec
from harness.data.model_files import Snapshot, find_model
from harness.jobs import Item, RewardFunction
from harness.prepare.tasks import ScoredTask, prompting_of, refuse_code, scored_task
from harness.prepare.trainings import Training, Trainings, given_artifact
from harness.prompts.chat import load_template
from harness.prompts.render import Prompting, render
from harness.registry.find import source_digest
from harness.storage import key


@dataclass(frozen=True)
class Row:
    """One variant, prepared."""

    spec: VariantSpec
    prompting: Prompting
    items: dict[str, list[Item]]
    """By task name; variants that prompt alike share the lists."""
    training: Training | None
    adapter: Snapshot | None
    """A given adapter or checkpoint."""


@dataclass(frozen=True)
class Prepared:
    """A run, ready to start."""

    config: Config
    model: Snapshot
    tasks: tuple[ScoredTask, ...]
    rows: tuple[Row, ...]

    @property
    def trainings(self) -> list[Training]:
        """Each training once: what another goes on from, or is judged by, before it, else in the order of the variants."""
        found: dict[str, Training] = {}

        def take(training: Training) -> None:
            for needed in (training.start, training.reward):
                if isinstance(needed, Training):
                    take(needed)
            found.setdefault(training.id, training)

        for row in self.rows:
            if row.training:
                take(row.training)
        return list(found.values())

    @property
    def identity(self) -> str:
        """What makes two runs the same: the configuration, and what came of every file and dataset it reads."""
        return key(
            config=self.config.sha256,
            harness=__version__,
            model=self.model.digest,
            tasks=[task.digest for task in self.tasks],
            prompts=[list(map(_prompts_digest, items)) for items in self._distinct_items],
            methods=sorted({source_digest(training.entry) for training in self.trainings}),
            train=[training.data.digest for training in self.trainings],
            validation=[training.validation.digest for training in self.trainings if training.validation],
            adapters=[row.adapter.digest for row in self.rows if row.adapter],
            given=[
                given.digest
                for training in self.trainings
                for given in (training.start, training.reward)
                if isinstance(given, Snapshot | RewardFunction)
            ],
            monitors=[
                [training.monitor.digest, _prompts_digest(training.monitor.items)]
                for training in self.trainings
                if training.monitor
            ],
        )

    @property
    def _distinct_items(self) -> list[list[list[Item]]]:
        """Each set of prompts once, as variants that prompt alike share it."""
        found = {id(row.items): row.items for row in self.rows}
        return [list(items.values()) for items in found.values()]


def _prompts_digest(items: Sequence[Item]) -> str:
    """Solved examples, descriptions and imported helpers decide prompts too, and are in no other digest."""
    return key(prompts=[item.request.sha256 for item in items])


def prepare(config: Config) -> Prepared:
    """Resolves a configuration.

    Raises:
        UserError: Whatever is wrong with models, tasks, prompts or training data.
    """
    model = find_model(config.model)
    tasks = tuple(scored_task(config, text) for text in config.tasks)
    refuse_code(config, tasks)
    template = load_template(model.folder)
    rendered: dict[tuple[Any, ...], dict[str, list[Item]]] = {}
    trainings = Trainings(config, tasks, template)
    rows = []
    for spec in config.variants:
        prompting = prompting_of(config, spec, template)
        key = (prompting.shots, prompting.system, prompting.template is not None)
        if key not in rendered:
            rendered[key] = {
                task.name: render(task.name, task.task, prompting, groups=task.spec.groups, limit=config.limit)
                for task in tasks
            }
        training = trainings.of(spec) if spec.kind == "method" else None
        adapter = given_artifact(spec.source, spec.revision) if spec.kind == "adapter" else None
        rows.append(Row(spec, prompting, rendered[key], training, adapter))
    return Prepared(config, model, tasks, tuple(rows))
