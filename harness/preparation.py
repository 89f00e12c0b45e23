"""Everything of a run that can be known, and can fail, before a model is loaded: no torch.

From a configuration to rendered samples, training examples, resolved settings and file paths. A misspelt column, an empty
train file or a missing adapter ends here.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import __version__
from harness.api import Metric, Task
from harness.chat import ChatTemplate, load_template
from harness.data import FORMATS, provenance, source
from harness.errors import UserError, did_you_mean
from harness.finetune.formats import examples_from_rows
from harness.registry import Entry, TaskSpec, find, load_task, parse_task, source_digest, task_metrics
from harness.render import Example, Item, Prompting, render, render_examples
from harness.runs import key
from harness.snapshot import Snapshot, find_files, find_model
from harness.spec import Config
from harness.variants import VariantSpec

DEFAULT_BATCH_SIZE = 16
DEFAULT_MAX_LENGTH = 1024
DEFAULT_EPOCHS = 1.0
TINY_LR_SCALE, TINY_STEPS = 10.0, 150
"""The embedded model takes larger rates than models of a billion parameters; its demonstration is to end in minutes."""
_TEMPLATES = {"chat": True, "none": False}
"""Values of a variant's `template`: whether its prompts go through the model's chat template."""


@dataclass(frozen=True)
class ScoredTask:
    """A task of this run."""

    name: str
    """The spec as typed."""
    spec: TaskSpec
    entry: Entry
    task: Task
    metrics: tuple[Metric, ...]
    """Those that the task names, found."""
    digest: str
    """Of the task's file and rows: what decides its samples."""
    data: str | None = None
    """Where its rows come from and which content they had."""


@dataclass(frozen=True)
class TrainData:
    """What variants train on."""

    name: str
    tasks: tuple[str, ...]
    """Names of the scored tasks whose train split it is, or is part of it."""
    examples: tuple[Example, ...]

    @cached_property
    def digest(self) -> str:
        """Of the examples: whatever file, column, prompt or template they came from."""
        return key(examples=[[each.prompt, each.completion, each.append_eos] for each in self.examples])


@dataclass(frozen=True)
class Training:
    """One training, shared by the variants that differ only after it."""

    id: str
    """The canonical spec without transforms and prompting, and the seed."""
    entry: Entry
    hyperparameters: dict[str, Any]
    lr: float
    steps: int | None
    epochs: float | None
    batch_size: int
    max_length: int
    seed: int
    data: TrainData

    @property
    def saves(self) -> Any:
        """`delta` or `checkpoint`."""
        return self.entry.options["saves"]


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
        """Each training once, in the order of the variants."""
        found = {row.training.id: row.training for row in self.rows if row.training}
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
            adapters=[row.adapter.digest for row in self.rows if row.adapter],
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
    tasks = tuple(_task(config, text) for text in config.tasks)
    _refuse_code(config, tasks)
    template = load_template(model.folder)
    rendered: dict[tuple[Any, ...], dict[str, list[Item]]] = {}
    read: dict[tuple[Any, ...], TrainData] = {}
    rows = []
    for spec in config.variants:
        prompting = _prompting(config, spec, template)
        key = (prompting.shots, prompting.system, prompting.template is not None)
        if key not in rendered:
            rendered[key] = {
                task.name: render(task.name, task.task, prompting, groups=task.spec.groups, limit=config.limit)
                for task in tasks
            }
        training = _training(config, spec, tasks, template, read) if spec.kind == "method" else None
        adapter = _adapter(spec) if spec.kind == "adapter" else None
        rows.append(Row(spec, prompting, rendered[key], training, adapter))
    return Prepared(config, model, tasks, tuple(rows))


def train_data(
    name: str,
    tasks: Sequence[ScoredTask],
    *,
    columns: Mapping[Any, str] | None = None,
    samples: int | None = None,
    template: ChatTemplate | None = None,
    chat: bool = False,
) -> TrainData:
    """Reads what `--train` names: a task, `hub:owner/name[:config[:split]]`, or a file; '' means the tasks' own.

    Args:
        name: As typed.
        tasks: The tasks of the run.
        columns: `--train-columns`.
        samples: So many, drawn with a fixed seed.
        template: The model's chat template, for message data.
        chat: Whether task prompts and pairs go through it too.

    Raises:
        UserError: There is nothing to train on, or it cannot be read.
    """
    chosen: list[ScoredTask] = []
    if name.startswith("hub:") or Path(name).suffix in FORMATS or ("/" in name and Path(name).is_dir()):
        rows = source(name).load()
        examples = examples_from_rows(name, rows, columns=columns, template=template, chat=chat)
    else:
        if columns:
            raise UserError("`--train-columns` goes with a file or `hub:`, not with a task", hint="drop it")
        chosen = _train_tasks(name, tasks)
        distinct = {(task.spec.source, key(parameters=task.spec.parameters)): task for task in chosen}.values()
        prompting = Prompting(template=template if chat else None)
        examples = [example for task in distinct for example in render_examples(task.name, task.task, prompting)]
    if samples is not None and samples < len(examples):
        examples = random.Random(0).sample(examples, samples)
    names = tuple(task.name for task in chosen)
    return TrainData(name or "+".join(names), names, tuple(examples))


def _train_tasks(name: str, tasks: Sequence[ScoredTask]) -> list[ScoredTask]:
    """The tasks whose train split is meant; of the scored ones, all that share it."""
    if not name:
        found = [task for task in tasks if task.task.train is not None]
        if not found:
            raise UserError(
                "there is nothing to train on: none of the tasks has a train split",
                hint="name training data: `--train gsm8k`, `--train data.jsonl` or `--train hub:OWNER/NAME`",
            )
        return found
    spec = parse_task(name)
    if spec.groups:
        raise UserError(f"`--train {name}`: a train split is taken whole", hint=f"write `--train {spec.source}`")
    return [task for task in tasks if task.spec.source == spec.source] or [_unscored(name)]


def _task(config: Config, text: str) -> ScoredTask:
    spec = parse_task(text, config.task_parameters)
    entry = find("task", spec.source)
    task = load_task(entry, spec.parameters)
    digest = key(file=source_digest(entry), parameters=spec.parameters, data=source(task.data).digest())
    metrics = task_metrics(task, entry.path.parent)
    return ScoredTask(text, spec, entry, task, metrics, digest, provenance(task.data))


def _unscored(name: str) -> ScoredTask:
    try:
        entry = find("task", name)
    except UserError as error:
        raise UserError(
            f"`--train {name}`: {error.message}", hint=f"{error.hint}; a file ends in {' '.join(FORMATS)}"
        ) from error
    task = load_task(entry, {})
    return ScoredTask(
        name, TaskSpec(name, name), entry, task, task_metrics(task, entry.path.parent), source_digest(entry)
    )


def _refuse_code(config: Config, tasks: Sequence[ScoredTask]) -> None:
    running = [task.name for task in tasks if task.task.executes_code]
    if running and not config.confirm_run_unsafe_code:
        raise UserError(
            f"task `{running[0]}` runs code that the model wrote",
            hint="if that is what you want on this machine, add `--confirm-run-unsafe-code`",
        )


def _prompting(config: Config, spec: VariantSpec, template: ChatTemplate | None) -> Prompting:
    asked = spec.prompting.get("template")
    if asked not in (None, *_TEMPLATES):
        raise UserError(f"variant `{spec.name}`: unknown template `{asked}`", hint=did_you_mean(str(asked), _TEMPLATES))
    chat = config.apply_chat_template if asked is None else _TEMPLATES[asked]
    if chat and template is None:
        raise UserError(
            f"`{config.model}` has no chat template", hint="drop `--apply-chat-template`, or use an instruct model"
        )
    return Prompting(
        spec.prompting.get("shots", config.num_fewshot), spec.prompting.get("system"), template if chat else None
    )


def _training(
    config: Config,
    spec: VariantSpec,
    tasks: Sequence[ScoredTask],
    template: ChatTemplate | None,
    read: dict[tuple[Any, ...], TrainData],
) -> Training:
    assert spec.entry is not None
    own, shared = spec.training, config.train
    name, samples = own.get("data", shared.data) or "", own.get("samples", shared.samples)
    if (name, samples) not in read:
        read[name, samples] = train_data(
            name,
            tasks,
            columns=shared.columns,
            samples=samples,
            template=template,
            chat=config.apply_chat_template,
        )
    steps, epochs = own.get("steps", shared.steps), own.get("epochs", shared.epochs)
    if "epochs" in own and "steps" not in own:
        steps = None
    if steps is None and epochs is None:
        steps, epochs = (TINY_STEPS, None) if config.model == "tiny" else (None, DEFAULT_EPOCHS)
    lr = own.get("lr", shared.lr)
    scale = TINY_LR_SCALE if config.model == "tiny" else 1.0
    return Training(
        id=f"{spec.training_spec}#{own.get('seed', config.seed)}",  # a replica's spec holds its own seed
        entry=spec.entry,
        hyperparameters=spec.hyperparameters,
        lr=lr if lr is not None else spec.entry.options["lr"] * scale,
        steps=steps,
        epochs=None if steps is not None else epochs,
        batch_size=own.get("batch_size", shared.batch_size) or DEFAULT_BATCH_SIZE,
        max_length=own.get("max_length", shared.max_length) or DEFAULT_MAX_LENGTH,
        seed=own.get("seed", config.seed),
        data=read[name, samples],
    )


def _adapter(spec: VariantSpec) -> Snapshot:
    snapshot = find_files(spec.source, "adapter or checkpoint", revision=spec.revision)
    if not snapshot.is_adapter and not (snapshot.folder / "config.json").is_file():
        raise UserError(
            f"`{spec.source}` holds neither an adapter nor a checkpoint",
            hint="wanted: adapter_config.json, method.json or config.json",
        )
    return snapshot
