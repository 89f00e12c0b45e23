"""The state of a run: each variant's results so far, and the keys under which samples are stored."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from harness.comparison.tuning import Tuned
from harness.config.config import Config
from harness.data.model_files import Snapshot
from harness.jobs import Benched, Trained
from harness.prepare.overlap import overlap_records
from harness.prepare.prepare import Prepared, PreparedVariant
from harness.prepare.tasks import ScoredTask
from harness.prepare.trainings import Training
from harness.results import Overlap
from harness.runs.folder import RunFolder, SampleLog, stored_as
from harness.storage import key
from harness.tokens.packs import token_budget


@dataclass
class State:
    """The results of one variant so far."""

    variant: PreparedVariant
    status: Literal["pending", "running", "done", "failed"] = "pending"
    error: str | None = None
    trained: Trained | None = None
    reused: bool = False
    artifact: Path | None = None
    model_bytes: int | None = None
    parameters: int | None = None
    benched: Benched | None = None
    tuned: Tuned | None = None
    """The learning rates that were tried."""
    notes: list[str] = field(default_factory=list)
    """Notes for the report about how it was run."""

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.variant.spec.name

    def fail(self, error: str) -> None:
        """Marks the variant as failed, with the reason; other variants continue."""
        self.status, self.error = "failed", error


@dataclass
class Session:
    """A prepared run, its folder, its machine and the state of its variants.

    Args:
        prepared: The prepared configuration.
        folder: The run folder.
        identity: Digest of everything that makes two runs the same.
        environment: Device, dtype and versions, as reported by the worker.
        command: The command line, for the record.
        created: Start time of the run.
        seconds: Wall seconds by stage so far.
    """

    prepared: Prepared
    folder: RunFolder
    identity: str
    environment: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    created: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    seconds: dict[str, float] = field(default_factory=dict)
    states: dict[str, State] = field(init=False)
    _sample_keys: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.states = {variant.spec.name: State(variant) for variant in self.prepared.variants}

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.prepared.config

    @property
    def baseline(self) -> str:
        """The variant that differences are from."""
        return self.config.baseline or self.prepared.variants[0].spec.name

    @property
    def token_budget(self) -> int:
        """Maximum tokens per batch on this device."""
        return token_budget(self.environment["device"])

    @cached_property
    def overlaps(self) -> tuple[Overlap, ...]:
        """The overlap between samples and training data."""
        return overlap_records(self.prepared)

    def active(self) -> list[State]:
        """Returns the variants that have not failed."""
        return [state for state in self.states.values() if state.status != "failed"]

    def log(self, state: State, task: ScoredTask) -> SampleLog:
        """Returns the file of a variant's samples of a task."""
        return self.folder.samples(self.stored_as(state), task.name)

    def unscored(self, state: State) -> bool:
        """Whether samples of a variant are missing on disk."""
        return any(
            len(self.log(state, task).rows()) < len(state.variant.items[task.name]) for task in self.prepared.tasks
        )

    def missing(self, training: Training) -> str | None:
        """Returns the id of a training run whose artifact this one needs, but which this run has not made or reused.

        Its folder may exist nevertheless: an earlier attempt with other code may have left it.
        """
        available = {
            state.variant.training.id for state in self.states.values() if state.variant.training and state.artifact
        }
        for needed in (training.start, training.reward):
            if isinstance(needed, Training) and needed.id not in available:
                return needed.id
        return None

    def sample_keys(self, state: State, task: ScoredTask) -> list[str]:
        """Returns the key of each sample: a digest of everything that determines the model's output for it.

        Metrics and `--limit` are not part of it.
        """
        where = state.name, task.name
        if where not in self._sample_keys:
            variant = state.variant
            shared = key(
                model=self.prepared.model.digest,
                training=variant.training.id if variant.training else None,
                artifact=Snapshot(state.name, state.artifact).weights_digest if state.artifact else None,
                adapter=variant.adapter.digest if variant.adapter else None,
                transforms=variant.spec.transforms,
                dtype=self.environment["dtype"],
                numerics=self.config.numerics,
                engine=self.config.engine,
                seed=self.config.seed,
            )
            items = variant.items[task.name]
            self._sample_keys[where] = [key(shared=shared, request=item.request.sha256)[:32] for item in items]
        return self._sample_keys[where]

    def stored_as(self, state: State) -> str:
        """Returns the name of a variant's files; each replica and fold of a variant has its own files."""
        spec, training = state.variant.spec, state.variant.training
        seed = training.settings.seed if training else self.config.seed
        return stored_as(spec.canonical, seed, spec.fold)
