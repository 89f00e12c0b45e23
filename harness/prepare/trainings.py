"""The training runs of a comparison: rows read, settings resolved, starting points and judges found."""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.config.config import Config
from harness.config.variants import VariantSpec
from harness.data.architecture import refuse_other_architectures
from harness.data.digests import text_sha256
from harness.data.gguf import is_gguf
from harness.data.model_files import Snapshot, find_files, refuse_pickled
from harness.data.weights import check_weights
from harness.errors import UserError, did_you_mean
from harness.jobs import Monitor, RewardFunction
from harness.prepare.augment import augmented
from harness.prepare.held_out import fold, held_out, separate
from harness.prepare.row_filters import CountTokens
from harness.prepare.tasks import ScoredTask, prompting_of, scored_task
from harness.prepare.train_data import TrainData, train_data
from harness.prepare.training_settings import check_given, given_settings, resolve
from harness.prompts.chat import ChatTemplate
from harness.prompts.render import render
from harness.registry.find import split_path
from harness.registry.recorded import recorded_method
from harness.registry.scan import Entry
from harness.registry.sources import sources_sha256
from harness.registry.task_spec import TaskSpec, parse_task
from harness.settings import STAGES, TrainingSettings, TrainSettings

MONITORED_SAMPLES = 64
"""Samples of a monitored task: it is generated for at every evaluation."""
TUNED_ON = "0.1"
"""Share of the rows held out for `--tune-lr` when `validation` is not given."""
_OF_ROWS = ("samples", "stage", "dedupe", "turns", "min_row_tokens", "max_row_tokens", "drop_near_duplicates")
"""Settings that decide which examples are made of data as typed."""


@dataclass(frozen=True)
class Training:
    """One training run, shared by variants that differ only in what follows it."""

    id: str
    """The canonical spec without transforms and shots, the seed, and the fold."""
    entry: Entry
    """The method."""
    hyperparameters: dict[str, Any]
    given: TrainSettings
    """The settings given for the variant."""
    settings: TrainingSettings
    """All settings; the precision may be `auto`."""
    data: TrainData
    validation: TrainData | None = None
    """Held-out rows: part of the data as read, or other data."""
    monitor: Monitor | None = None
    monitored: TaskSpec | None = None
    """The task of `monitor`."""
    start: Training | Snapshot | None = None
    """Starting point: the training run of another variant, or an artifact by path."""
    reward: Training | Snapshot | RewardFunction | None = None
    """Judge of the answers that the model generates."""
    fold: int | None = None
    """With `--folds`, the number of the fold that is held out, from 0."""

    @property
    def tunable(self) -> bool:
        """Whether `--tune-lr` applies: no learning rate is given, and held-out rows have a loss."""
        return self.given.lr is None and STAGES[self.given.stage].tunes_lr

    @property
    def saves(self) -> Any:
        """`delta` or `checkpoint`."""
        return self.entry.options["saves"]

    @property
    def length(self) -> str:
        """`150 steps` or `2 epochs`."""
        settings = self.settings
        return f"{settings.steps} steps" if settings.steps is not None else f"{settings.epochs:g} epochs"

    def with_lr(self, lr: float) -> Training:
        """The training run with another learning rate."""
        return replace(self, settings=self.settings.model_copy(update={"lr": lr}))


class Trainings:
    """Makes the training runs of a comparison, each once, and reads every set of rows once."""

    def __init__(
        self, config: Config, tasks: Sequence[ScoredTask], template: ChatTemplate | None, count: CountTokens
    ) -> None:
        self._config = config
        self._count = count
        self._tasks = tasks
        self._template = template
        self._specs = {spec.name: spec for spec in config.variants}
        self._given = {spec.name: given_settings(config, spec) for spec in config.variants if spec.kind == "method"}
        self._stages = {given.stage for given in self._given.values()}
        self._made: dict[str, Training] = {}
        self._under_way: list[str] = []
        self._read: dict[tuple[Any, ...], TrainData] = {}

    def of(self, spec: VariantSpec) -> Training:
        """The training run of a variant.

        Raises:
            UserError: Its settings are wrong, or its rows, starting point or judge cannot be found.
        """
        if spec.name in self._under_way:
            circle = " -> ".join([*self._under_way, spec.name])
            raise UserError(f"variants start from one another: {circle}", hint="one of them must start from the base")
        if spec.name not in self._made:
            self._under_way.append(spec.name)
            self._made[spec.name] = self._make(spec)
            self._under_way.pop()
        return self._made[spec.name]

    def _make(self, spec: VariantSpec) -> Training:
        assert spec.entry is not None
        config, given = self._config, self._given[spec.name]
        check_given(spec, given, self._stages)
        data, validation = self._data(spec, given)
        if given.augment is not None:
            data = self._augmented(data, validation, given)
        seed = spec.training.get("seed", config.seed)
        monitored = None
        if given.monitor is not None and given.monitor != "loss":
            monitored = parse_task(given.monitor, config.task_parameters)
        training = Training(
            id=f"{spec.training_spec}#{seed}" + (f"/{spec.fold}" if spec.fold is not None else ""),
            entry=spec.entry,
            hyperparameters=spec.hyperparameters,
            given=given,
            settings=resolve(given, spec.entry, seed=seed, embedded=config.model == "tiny"),
            data=data,
            validation=validation,
            monitor=None if monitored is None else self._monitor(spec, monitored),
            monitored=monitored,
            start=self._named(spec, "start", given.start) if given.start else None,
            reward=self._reward(spec, given),
            fold=spec.fold,
        )
        _check_start(spec, training)
        _check_evaluations(spec, training)
        return training

    def _data(self, spec: VariantSpec, given: TrainSettings) -> tuple[TrainData, TrainData | None]:
        """The rows to train on, and the held-out rows."""
        data = self._rows(spec, given, given.data or "")
        if spec.fold is not None:
            return fold(data, spec.fold, self._config.folds or 1)
        tuned = self._config.tune_lr and STAGES[given.stage].tunes_lr
        wanted = given.validation or (TUNED_ON if tuned else None)
        if wanted is None:
            return data, None
        try:
            share = float(wanted)
        except ValueError:
            whole = given.model_copy(update={"samples": None})
            validation = self._rows(spec, whole, str(wanted))
            notes = (note for note in validation.notes if note not in data.notes)
            data = replace(data, notes=(*data.notes, *(f"validation data: {note}" for note in notes)))
            return separate(data, validation, dedupe=given.drops_copies, near=given.drop_near_duplicates), validation
        return held_out(data, share)

    def _rows(self, spec: VariantSpec, given: TrainSettings, name: str) -> TrainData:
        """The rows of training data as typed, in the prompts of a variant; cached for variants that need the same."""
        prompting = prompting_of(self._config, spec, self._template)
        messages_in = None if spec.prompting.get("template") == "none" else prompting.template or self._template
        wanted = tuple(getattr(given, setting) for setting in _OF_ROWS)
        known = (
            name,
            given.augment is None,
            *wanted,
            prompting.system,
            prompting.template is None,
            messages_in is None,
            prompting.think,
        )
        if known not in self._read:
            self._read[known] = train_data(name, self._tasks, given, prompting, messages_in, self._count)
        return self._read[known]

    def _augmented(self, data: TrainData, validation: TrainData | None, given: TrainSettings) -> TrainData:
        """The data after `augment`; variants with the same rows share the result, also of a function that varies."""
        limits = given.min_row_tokens, given.max_row_tokens, given.drops_copies
        known = (given.augment, data.digest, validation and validation.digest, given.stage, given.turns, *limits)
        if known not in self._read:
            self._read[known] = augmented(data, validation, given, self._count)
        return self._read[known]

    def _monitor(self, spec: VariantSpec, monitored: TaskSpec) -> Monitor:
        task = scored_task(monitored)
        if task.task.executes_code:
            raise UserError(
                f"`monitor={task.name}` would run generated code during training", hint="monitor another task"
            )
        prompting = prompting_of(self._config, spec, self._template)
        # a variant's own shots apply to scoring: variants that differ in them share a training run
        prompting = replace(prompting, shots=self._config.num_fewshot)
        items = render(task.name, task.task, prompting, groups=task.spec.groups, limit=MONITORED_SAMPLES)
        return Monitor(task.spec.source, task.spec.parameters, items, task.digest)

    def _reward(self, spec: VariantSpec, given: TrainSettings) -> Training | Snapshot | RewardFunction | None:
        if STAGES[given.stage].rows != "prompt":
            return None
        if not given.reward:
            raise UserError(
                f"variant `{spec.name}`: the stage `{given.stage}` needs a reward",
                hint="give a variant of `stage=reward`, its folder, or a function: `reward=FILE.py@function`",
            )
        path, name = split_path(given.reward)
        if path.suffix == ".py":
            if not path.is_file() or name is None:
                raise UserError(
                    f"variant `{spec.name}`: `reward={given.reward}` names no function",
                    hint="write `reward=FILE.py@function`" if path.is_file() else f"there is no file `{path}`",
                )
            _check_function(spec, path, name)
            return RewardFunction(path.resolve(), name)
        return self._named(spec, "reward", given.reward)

    def _named(self, spec: VariantSpec, setting: str, name: str) -> Training | Snapshot:
        """The training run of a variant by name (of the same replica, if it has replicas), or an artifact by path."""
        suffix = spec.name.removeprefix(spec.replica_of) if spec.replica_of else ""
        other = self._specs.get(name + suffix) or self._specs.get(name)
        if other is not None and other.kind == "method":
            return self.of(other)
        if other is not None and other.kind == "adapter":
            return given_artifact(self._config, other.source, other.revision)
        if other is not None or not ("/" in name or Path(name).is_dir()):
            trained = [each.name for each in self._specs.values() if each.kind == "method" and each != spec]
            raise UserError(
                f"variant `{spec.name}`: `{setting}={name}` is neither a trained variant nor a folder",
                hint=did_you_mean(name, trained) if trained else "name a variant of this comparison, or a path",
            )
        return given_artifact(self._config, name, None)


def given_artifact(config: Config, source: str, revision: str | None) -> Snapshot:
    """Finds an adapter or a checkpoint by path or Hub id.

    Args:
        config: The run, which says whether code may be fetched, and which files adapters may name.
        source: The path or Hub id.
        revision: A commit, branch or tag on the Hub; None: the newest commit.

    Raises:
        UserError: It does not exist, is neither, is no causal language model, has pickled weights, or names a
            Python file that the user did not name.
    """
    snapshot = find_files(
        source, "adapter or checkpoint", revision=revision, trust_remote_code=config.trust_remote_code
    )
    if is_gguf(snapshot.folder):
        return snapshot
    if not snapshot.is_adapter and not (snapshot.folder / "config.json").is_file():
        raise UserError(
            f"`{source}` holds neither an adapter nor a checkpoint",
            hint="expected one of: adapter_config.json, method.json, config.json",
        )
    if not snapshot.is_adapter:
        refuse_other_architectures(source, snapshot.config)
    refuse_pickled(source, snapshot.folder)
    if not snapshot.is_adapter:
        check_weights(source, snapshot.folder, snapshot.config)
    recorded_method(snapshot.folder, config.method_files)  # its error comes before anything is loaded
    return snapshot


def artifact_digest(given: Snapshot, code: Collection[Path]) -> str:
    """Digest of a given adapter or checkpoint, with the code of the method that its delta is loaded by.

    Args:
        given: The adapter or checkpoint.
        code: The Python files that the user named.
    """
    method = recorded_method(given.folder, code)
    return given.digest if method is None else text_sha256(f"{given.digest}:{sources_sha256(method.path)}")


def content_digest(given: Snapshot | RewardFunction, code: Collection[Path]) -> str:
    """Digest of a given starting point or judge: of its files, or of the function's code and name.

    Args:
        given: The starting point or judge.
        code: The Python files that the user named.
    """
    if isinstance(given, RewardFunction):
        return text_sha256(f"{given.name}:{sources_sha256(given.path)}")
    return artifact_digest(given, code)


def _check_function(spec: VariantSpec, path: Path, name: str) -> None:
    """Checks that the file of a reward function defines or imports that name; the file is parsed, not run."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError) as error:
        raise UserError(f"variant `{spec.name}`: `{path}` is not a Python file: {error}") from error
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    imported = {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}
    assigned = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    if not {name, "*"} & (functions | imported | assigned):
        raise UserError(f"variant `{spec.name}`: `{path}` has no function `{name}`", hint=did_you_mean(name, functions))


def _check_start(spec: VariantSpec, training: Training) -> None:
    """Checks that a starting point is an artifact of the same method, or a whole checkpoint."""
    start = training.start
    if isinstance(start, Training) and start.saves != "checkpoint" and start.entry.name != training.entry.name:
        raise UserError(
            f"variant `{spec.name}`: `{training.entry.name}` cannot start from an artifact of `{start.entry.name}`",
            hint=f"start from a variant of `{training.entry.name}`, or from one of `full`",
        )


def _check_evaluations(spec: VariantSpec, training: Training) -> None:
    """Checks that settings of evaluations during training come with something to evaluate on."""
    names = [name for name in ("monitor", "patience", "evaluate_every") if name in training.given.model_fields_set]
    if names and training.validation is None and training.monitor is None:
        raise UserError(
            f"variant `{spec.name}`: `{names[0]}` has no effect without something to evaluate on during training",
            hint="hold out rows with `validation=0.1`, or monitor a task with `monitor=TASK`",
        )
