"""The trainings of a run: data read, settings resolved, and what goes on from what."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from harness.config.parse import Config
from harness.config.variants import VariantSpec
from harness.data.model_files import Snapshot, find_files
from harness.errors import UserError, did_you_mean
from harness.jobs import Monitor, RewardFunction
from harness.prepare.tasks import ScoredTask, prompting_of, scored_task
from harness.prepare.train_data import TrainData, beside, fold, held_out, train_data
from harness.prompts.chat import ChatTemplate
from harness.prompts.render import render
from harness.registry.find import split_path
from harness.registry.scan import Entry
from harness.settings import ONLINE_STAGES, ONLY_FOR, PAIRED_STAGES, TrainSettings, check_rates, optimizer_name

DEFAULT_BATCH_SIZE = 16
DEFAULT_MAX_LENGTH = 1024
DEFAULT_EPOCHS = 1.0
MONITORED_SAMPLES = 64
TUNED_ON = "0.1"
"""Share of the rows held out for `--tune-lr` where nothing else is said of them."""
TINY_LR_SCALE, TINY_STEPS = 10.0, 150
"""The embedded model takes larger rates than models of a billion parameters; its demonstration is to end in minutes."""


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
    settings: TrainSettings
    """Those of the variant over the shared ones."""
    validation: TrainData | None = None
    """Held out of `data`, or read beside it."""
    monitor: Monitor | None = None
    start: Training | Snapshot | None = None
    """What training goes on from: that of another variant, or an artifact by path."""
    reward: Training | Snapshot | RewardFunction | None = None
    """What judges the answers that the model writes."""
    fold: int | None = None
    """The part of the whole data that `data` leaves out and `validation` is, where the variant has one training a part."""

    @property
    def tunable(self) -> bool:
        """Whether `--tune-lr` looks for its rate: none is given, and held-out rows have a loss."""
        return self.settings.lr is None and self.settings.stage not in ONLINE_STAGES

    @property
    def saves(self) -> Any:
        """`delta` or `checkpoint`."""
        return self.entry.options["saves"]


class Trainings:
    """The trainings of a run: data read once, and those that go on from another after it."""

    def __init__(self, config: Config, tasks: Sequence[ScoredTask], template: ChatTemplate | None) -> None:
        self._config = config
        self._tasks = tasks
        self._template = template
        self._specs = {spec.name: spec for spec in config.variants}
        trained = [spec for spec in config.variants if spec.kind == "method"]
        self._stages = {merged(config.train, spec).stage or "sft" for spec in trained}
        self._made: dict[str, Training] = {}
        self._under_way: list[str] = []
        self._read: dict[tuple[Any, ...], TrainData] = {}

    def of(self, spec: VariantSpec) -> Training:
        """The training of a variant.

        Raises:
            UserError: Its data, or what it goes on from, cannot be had.
        """
        if spec.name in self._under_way:
            around = " -> ".join([*self._under_way, spec.name])
            raise UserError(f"variants start from one another: {around}", hint="one of them must start from the base")
        if spec.name not in self._made:
            self._under_way.append(spec.name)
            self._made[spec.name] = self._make(spec)
            self._under_way.pop()
        return self._made[spec.name]

    def _make(self, spec: VariantSpec) -> Training:
        assert spec.entry is not None
        config, settings = self._config, merged(self._config.train, spec)
        _refuse_stage_settings(spec, settings, self._stages)
        data, validation = self._data(spec, settings)
        steps, epochs = settings.steps, settings.epochs
        if steps is None and epochs is None:
            steps, epochs = (TINY_STEPS, None) if config.model == "tiny" else (None, DEFAULT_EPOCHS)
        scale = TINY_LR_SCALE if config.model == "tiny" else 1.0
        seed = spec.training.get("seed", config.seed)
        training = Training(
            id=f"{spec.training_spec}#{seed}" + (f"/{spec.fold}" if spec.fold is not None else ""),
            entry=spec.entry,
            hyperparameters=spec.hyperparameters,
            lr=settings.lr if settings.lr is not None else spec.entry.options["lr"] * scale,
            steps=steps,
            epochs=None if steps is not None else epochs,
            batch_size=settings.batch_size or DEFAULT_BATCH_SIZE,
            max_length=settings.max_length or DEFAULT_MAX_LENGTH,
            seed=seed,
            data=data,
            settings=settings,
            validation=validation,
            monitor=self._monitor(spec, settings),
            start=self._named(spec, "start", settings.start) if settings.start else None,
            reward=self._reward(spec, settings),
            fold=spec.fold,
        )
        _refuse_start(spec, training)
        if settings.packing and settings.stage in (*PAIRED_STAGES, *ONLINE_STAGES):
            raise UserError(
                f"variant `{spec.name}`: rows of the stage `{settings.stage}` are not packed",
                hint="leave out `packing`",
            )
        _refuse_settings(spec, training)
        return training

    def _data(self, spec: VariantSpec, settings: TrainSettings) -> tuple[TrainData, TrainData | None]:
        """The rows to train on, and those held out."""
        data = self._rows(spec, settings, settings.data or "")
        if spec.fold is not None:
            return fold(data, spec.fold, self._config.folds or 1)
        tuned = self._config.tune_lr and settings.stage not in ONLINE_STAGES
        asked = settings.validation or (TUNED_ON if tuned else None)
        if asked is None:
            return data, None
        try:
            share = float(asked)
        except ValueError:
            whole = settings.model_copy(update={"samples": None})
            validation = self._rows(spec, whole, asked)
            return beside(data, validation, dedupe=bool(settings.dedupe)), validation
        return held_out(data, share)

    def _rows(self, spec: VariantSpec, settings: TrainSettings, name: str) -> TrainData:
        """What a name stands for, in the prompts of a variant; read once for all that ask alike."""
        prompting = prompting_of(self._config, spec, self._template)
        written = None if spec.prompting.get("template") == "none" else self._template
        asked = (name, settings.samples, settings.stage, settings.dedupe, settings.turns)
        known = (*asked, prompting.system, prompting.template is None, written is None)
        if known not in self._read:
            self._read[known] = train_data(name, self._tasks, settings, prompting, written)
        return self._read[known]

    def _monitor(self, spec: VariantSpec, settings: TrainSettings) -> Monitor | None:
        if settings.monitor in (None, "loss"):
            return None
        assert settings.monitor is not None
        task = scored_task(self._config, settings.monitor)
        if task.task.executes_code:
            raise UserError(f"`monitor={settings.monitor}` would run code while training", hint="monitor another task")
        prompting = prompting_of(self._config, spec, self._template)
        prompting = replace(prompting, shots=self._config.num_fewshot)  # a variant's own shots decide no training
        items = render(task.name, task.task, prompting, groups=task.spec.groups, limit=MONITORED_SAMPLES)
        return Monitor(settings.monitor, task.spec.parameters, items, task.digest)

    def _reward(self, spec: VariantSpec, settings: TrainSettings) -> Training | Snapshot | RewardFunction | None:
        if settings.stage not in ONLINE_STAGES:
            return None
        if not settings.reward:
            raise UserError(
                f"variant `{spec.name}`: the stage `{settings.stage}` needs a reward",
                hint="a variant of `stage=reward`, its folder, or a function: `reward=FILE.py@function`",
            )
        path, name = split_path(settings.reward)
        if path.suffix == ".py":
            if not path.is_file() or name is None:
                raise UserError(
                    f"variant `{spec.name}`: `reward={settings.reward}` names no function",
                    hint="write `reward=FILE.py@function`" if path.is_file() else f"there is no file `{path}`",
                )
            _refuse_name(spec, path, name)
            return RewardFunction(path.resolve(), name)
        return self._named(spec, "reward", settings.reward)

    def _named(self, spec: VariantSpec, setting: str, name: str) -> Training | Snapshot:
        """The training of a variant by name (of the same replica, where there are several), or an artifact by path."""
        suffix = spec.name.removeprefix(spec.replica_of) if spec.replica_of else ""
        other = self._specs.get(name + suffix) or self._specs.get(name)
        if other is not None and other.kind == "method":
            return self.of(other)
        if other is not None and other.kind == "adapter":
            return given_artifact(other.source, other.revision)
        if other is not None or not ("/" in name or Path(name).is_dir()):
            trained = [each.name for each in self._specs.values() if each.kind == "method" and each != spec]
            raise UserError(
                f"variant `{spec.name}`: `{setting}={name}` is no trained variant and no folder",
                hint=did_you_mean(name, trained) if trained else "name a variant of this comparison, or a path",
            )
        return given_artifact(name, None)


def merged(shared: TrainSettings, spec: VariantSpec) -> TrainSettings:
    """A variant's own settings over the shared ones; one kind of length drops the other."""
    own = {key: value for key, value in spec.training.items() if key != "seed"}
    under = shared.model_dump(exclude_none=True)
    if {"steps", "epochs"} & own.keys():
        under = {key: value for key, value in under.items() if key not in ("steps", "epochs")}
    return TrainSettings(**{**under, **own})


def precision_of(settings: TrainSettings, environment: Mapping[str, Any]) -> Literal["fp32", "bf16", "fp16"]:
    """Of the matrix products: as asked, else what goes with the weights and the machine."""
    if settings.precision is not None and settings.precision != "auto":
        return settings.precision
    if environment["dtype"] == "float16":
        return "fp16"
    return "bf16" if environment["mixed_precision"] else "fp32"


def _refuse_name(spec: VariantSpec, path: Path, name: str) -> None:
    """A function that judges must stand in its file, which is read without being run."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError) as error:
        raise UserError(f"variant `{spec.name}`: `{path}` is no Python file: {error}") from error
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    imported = {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}
    assigned = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    if not {name, "*"} & (functions | imported | assigned):
        raise UserError(f"variant `{spec.name}`: `{path}` has no function `{name}`", hint=did_you_mean(name, functions))


def _refuse_start(spec: VariantSpec, training: Training) -> None:
    """A method goes on from an artifact of its own, or from a whole checkpoint."""
    start = training.start
    if isinstance(start, Training) and start.saves != "checkpoint" and start.entry.name != training.entry.name:
        raise UserError(
            f"variant `{spec.name}`: `{training.entry.name}` cannot go on from what `{start.entry.name}` trained",
            hint=f"start from a variant of `{training.entry.name}`, or from one of `full`",
        )


def _refuse_stage_settings(spec: VariantSpec, settings: TrainSettings, stages: Collection[str]) -> None:
    """Settings without a meaning: a variant's own for its stage, a shared one for any of the stages."""
    for name, meant in ONLY_FOR.items():
        if getattr(settings, name) is None:
            continue
        hint = "it goes with " + ", ".join(f"`stage={stage}`" for stage in meant)
        stage = settings.stage or "sft"
        if name in spec.training and stage not in meant:
            raise UserError(f"variant `{spec.name}`: `{name}` has no meaning for the stage `{stage}`", hint)
        if not {*meant} & {*stages}:
            raise UserError(f"`{name}` has no meaning for any of the stages: {', '.join(sorted(stages))}", hint)


def _refuse_settings(spec: VariantSpec, training: Training) -> None:
    """Settings that no training, or none of this method, can have."""
    assert spec.entry is not None
    settings = training.settings
    looks = [name for name in ("monitor", "patience", "evaluate_every") if getattr(settings, name) is not None]
    if looks and training.validation is None and training.monitor is None:
        raise UserError(
            f"variant `{spec.name}`: `{looks[0]}` has no meaning, as there is nothing to look at while training",
            hint="hold rows out with `validation=0.1`, or watch a task with `monitor=TASK`",
        )
    if settings.checkpointing and not spec.entry.options["checkpointing"]:
        raise UserError(
            f"variant `{spec.name}`: `{spec.entry.name}` does not go with activation checkpointing",
            hint="leave out `checkpointing`, or train with a smaller `micro_batch_size`",
        )
    if settings.optimizer is not None:
        optimizer_name(settings.optimizer)
    check_rates(settings.schedule, settings.rates)


def given_artifact(source: str, revision: str | None) -> Snapshot:
    """An adapter or a checkpoint by path or Hub id."""
    snapshot = find_files(source, "adapter or checkpoint", revision=revision)
    if not snapshot.is_adapter and not (snapshot.folder / "config.json").is_file():
        raise UserError(
            f"`{source}` holds neither an adapter nor a checkpoint",
            hint="wanted: adapter_config.json, method.json or config.json",
        )
    return snapshot
