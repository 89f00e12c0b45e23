"""A run under way: what is known of each variant so far, how its model is made, and the keys of its results."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from harness.comparison.records import overlap_records
from harness.comparison.tuning import Tuned
from harness.config.config import Config
from harness.data.model_files import Snapshot
from harness.jobs import (
    QUANT_OF_BITS,
    Base,
    Benched,
    Bits,
    MergeJob,
    Method,
    Quant,
    Recipe,
    RewardFunction,
    Trained,
    TrainingSettings,
    TrainJob,
)
from harness.prepare.prepare import Prepared, Row
from harness.prepare.tasks import ScoredTask
from harness.prepare.trainings import Training, precision_of
from harness.registry.find import source_digest
from harness.results import Overlap
from harness.runs.folder import CostRecord, RunFolder, SampleLog, key

_BUDGETS = {"auto": 512, "cpu": 512, "mps": 512, "cuda": 4096}
"""Tokens fed at a time: recorded with every score, so that equal plans give equal bytes."""


def token_budget(device: str) -> int:
    """Tokens fed at a time on a device; on one that is yet to be found, those of the CPU."""
    return _BUDGETS[device.split(":")[0]]


@dataclass
class State:
    """What is known of one variant so far."""

    row: Row
    status: Literal["pending", "running", "done", "failed"] = "pending"
    error: str | None = None
    trained: Trained | None = None
    reused: bool = False
    artifact: Path | None = None
    model_bytes: int | None = None
    parameters: int | None = None
    benched: Benched | None = None
    tuned: Tuned | None = None
    """The rates that were tried."""
    notes: list[str] = field(default_factory=list)
    """What is to be known of how it was run."""

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.row.spec.name

    def fail(self, error: str) -> None:
        """The row says why; the others go on."""
        self.status, self.error = "failed", error


@dataclass
class Session:
    """A prepared run with its folder and its machine.

    Args:
        prepared: What is to be done.
        folder: Where it is kept.
        identity: What makes two runs the same.
        environment: What the worker said of the machine: device, dtype, versions.
    """

    prepared: Prepared
    folder: RunFolder
    identity: str
    environment: dict[str, Any] = field(default_factory=dict)
    states: dict[str, State] = field(init=False)
    _sample_keys: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.states = {row.spec.name: State(row) for row in self.prepared.rows}

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.prepared.config

    @property
    def baseline(self) -> str:
        """The variant that differences are from."""
        return self.config.baseline or self.prepared.rows[0].spec.name

    @property
    def token_budget(self) -> int:
        """Tokens fed at a time on this device."""
        return token_budget(self.environment["device"])

    @cached_property
    def overlaps(self) -> tuple[Overlap, ...]:
        """What the samples share with the training data."""
        return overlap_records(self.prepared)

    def going(self) -> list[State]:
        """The variants that have not failed."""
        return [state for state in self.states.values() if state.status != "failed"]

    def log(self, state: State, task: ScoredTask) -> SampleLog:
        """Where a variant's samples of a task are kept."""
        return self.folder.samples(self._kept_as(state), task.name)

    def unscored(self, state: State) -> bool:
        """Whether samples of a variant are missing on disk."""
        return any(len(self.log(state, task).rows()) < len(state.row.items[task.name]) for task in self.prepared.tasks)

    def train_job(self, training: Training) -> TrainJob:
        """What a child needs to train, its key included."""
        base = self._base(_quantization(training), self._start_checkpoint(training))
        settings = self._training_settings(training)
        start, reward = self._start_adapter(training), self._reward(training)
        packages = self.environment["packages"]
        return TrainJob(
            base=base,
            method=_method(training),
            training=settings,
            examples=training.data.examples,
            saves=training.saves,
            output=self.folder.artifact(training.id, training.saves),
            log=self.folder.train_log(training.id),
            state=self.folder.train_state(training.id),
            validation=training.validation.examples if training.validation else (),
            monitor=training.monitor,
            start=start,
            reward=reward,
            report_to=self.config.report_to,
            train_key=key(
                model=self.prepared.model.digest,
                method=training.entry.name,
                method_source=source_digest(training.entry),
                hyperparameters=training.hyperparameters,
                settings=vars(settings),
                data=training.data.digest,
                validation=training.validation.digest if training.validation else None,
                monitor=training.monitor
                and [training.monitor.digest, [i.request.sha256 for i in training.monitor.items]],
                given=[self._given_digest(given) for given in (training.start, training.reward)],
                dtype=base.dtype,
                device=base.device.split(":")[0],
                packages={name: packages[name] for name in ("torch", "transformers", "peft", "bitsandbytes")},
            ),
        )

    def missing(self, training: Training) -> str | None:
        """The training that this one needs the artifact of, where this run did not come by it.

        A folder of that name may be there all the same: an earlier attempt's, made by other code.
        """
        there = {state.row.training.id for state in self.states.values() if state.row.training and state.artifact}
        for needed in (training.start, training.reward):
            if isinstance(needed, Training) and needed.id not in there:
                return needed.id
        return None

    def recipe(self, state: State) -> Recipe:
        """How a variant's model is made for scoring and timing: see `harness.models.load`."""
        row, spec = state.row, state.row.spec
        if spec.kind == "base":
            return Recipe(self._base(QUANT_OF_BITS[spec.bits]))
        if row.adapter is not None and not row.adapter.is_adapter:
            return Recipe(self._base(QUANT_OF_BITS[spec.bits], row.adapter.folder))
        if row.adapter is not None:
            return self._with_adapter(
                spec.bits, None, row.adapter.folder, Method.recorded_in(row.adapter.folder), spec.merged
            )
        assert row.training is not None and state.artifact is not None
        return self._trained_recipe(row.training, state.artifact, spec.bits, spec.merged)

    def merge_job(self, state: State) -> MergeJob:
        """What a child needs to leave a trained variant as a checkpoint; its transforms play no part."""
        training = state.row.training
        assert training is not None and state.artifact is not None
        return MergeJob(self._trained_recipe(training, state.artifact, None, True), self.folder.merged(training.id))

    def sample_keys(self, state: State, task: ScoredTask) -> list[str]:
        """The key of each sample: whatever decides what the model gives for it. Neither metrics nor `--limit`."""
        where = state.name, task.name
        if where not in self._sample_keys:
            row = state.row
            shared = key(
                model=self.prepared.model.digest,
                training=row.training.id if row.training else None,
                artifact=Snapshot(state.name, state.artifact).weights_digest if state.artifact else None,
                adapter=row.adapter.digest if row.adapter else None,
                transforms=row.spec.transforms,
                dtype=self.environment["dtype"],
                numerics=self.config.numerics,
                engine=self.config.engine,
                seed=self.config.seed,
            )
            items = row.items[task.name]
            self._sample_keys[where] = [key(shared=shared, request=item.request.sha256)[:32] for item in items]
        return self._sample_keys[where]

    def cost_record(self, state: State) -> CostRecord:
        """Where a variant's timing is kept; its key holds whatever decides how long things take."""
        recipe, environment = self.recipe(state), self.environment
        artifact = Snapshot(state.name, state.artifact).weights_digest if state.artifact else None
        names = ("device_name", "driver", "threads", "packages")
        cost_key = key(
            model=self.prepared.model.digest,
            base=[recipe.base.folder.name, recipe.base.device, recipe.base.dtype, recipe.base.quant],
            artifact=artifact or (state.row.adapter.digest if state.row.adapter else None),
            transforms=state.row.spec.transforms,
            machine={name: environment[name] for name in names},
        )
        return self.folder.costs(self._kept_as(state), cost_key)

    def _kept_as(self, state: State) -> str:
        """What a row's files are named by: replicas and folds of one variant have files of their own."""
        spec, training = state.row.spec, state.row.training
        seed = training.seed if training else self.config.seed
        return f"{spec.canonical}#{seed}" + (f"/{spec.fold}" if spec.fold is not None else "")

    def _training_settings(self, training: Training) -> TrainingSettings:
        """Every setting of a training, defaults filled in."""
        given = training.settings.model_dump(exclude_none=True)
        names = {field.name for field in fields(TrainingSettings)} & given.keys()
        return TrainingSettings(
            **{name: given[name] for name in names}
            | {
                "lr": training.lr,
                "steps": training.steps,
                "epochs": training.epochs,
                "batch_size": training.batch_size,
                "micro_batch_size": min(given.get("micro_batch_size", training.batch_size), training.batch_size),
                "max_length": training.max_length,
                "seed": training.seed,
                "precision": precision_of(training.settings, self.environment),
            }
        )

    def _artifact_of(self, training: Training) -> Path:
        return self.folder.artifact(training.id, training.saves)

    def _start_checkpoint(self, training: Training) -> Path | None:
        """The folder of the whole checkpoint that a training goes on from: its base."""
        start = training.start
        if isinstance(start, Training):
            if start.saves == "checkpoint":
                return self._artifact_of(start)
            return self._start_checkpoint(start)  # an adapter stands on the base of the one it goes on from
        return start.folder if start is not None and not start.is_adapter else None

    def _start_adapter(self, training: Training) -> Path | None:
        """The folder of the adapter that a training goes on from."""
        start = training.start
        if isinstance(start, Training):
            return None if start.saves == "checkpoint" else self._artifact_of(start)
        return start.folder if start is not None and start.is_adapter else None

    def _reward(self, training: Training) -> Recipe | RewardFunction | None:
        reward = training.reward
        if isinstance(reward, Training):
            return self._trained_recipe(reward, self._artifact_of(reward), None, False)
        if isinstance(reward, Snapshot):
            if not reward.is_adapter:
                return Recipe(self._base(None, reward.folder))
            return self._with_adapter(None, None, reward.folder, Method.recorded_in(reward.folder), False)
        return reward

    def _given_digest(self, given: Training | Snapshot | RewardFunction | None) -> str | None:
        """Digest of what a training goes on from or is judged by."""
        if isinstance(given, Training):
            return Snapshot(given.id, self._artifact_of(given)).weights_digest
        return given.digest if given else None

    def _trained_recipe(self, training: Training, artifact: Path, bits: Bits, merged: bool) -> Recipe:
        if training.saves == "checkpoint":
            return Recipe(self._base(QUANT_OF_BITS[bits], artifact))
        saved_by_peft = (artifact / "adapter_config.json").is_file()
        method = None if saved_by_peft else _method(training)
        return self._with_adapter(
            bits, _quantization(training), artifact, method, merged, self._start_checkpoint(training)
        )

    def _with_adapter(
        self,
        bits: Bits,
        load: Quant | None,
        adapter: Path,
        method: Method | None,
        merged: bool,
        checkpoint: Path | None = None,
    ) -> Recipe:
        if merged:  # merged at the precision it was trained at, then quantized
            return Recipe(self._base(load, checkpoint), adapter, True, bits, method)
        return Recipe(self._base(QUANT_OF_BITS[bits] or load, checkpoint), adapter, method=method)

    def _base(self, quant: Quant | None = None, folder: Path | None = None) -> Base:
        return Base(
            folder or self.prepared.model.folder,
            self.environment["device"],
            self.environment["dtype"],
            quant,
            self.config.trust_remote_code,
        )


def _quantization(training: Training) -> Quant | None:
    found: Quant | None = training.entry.quantization(training.hyperparameters)
    return found


def _method(training: Training) -> Method:
    entry = training.entry
    return Method(entry.name, entry.path, entry.module, training.hyperparameters)
