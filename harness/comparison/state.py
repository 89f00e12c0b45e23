"""A run under way: what is known of each variant so far, how its model is made, and the keys of its results."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from harness.comparison.tuning import Tuned
from harness.config.config import Config
from harness.data.model_files import Snapshot
from harness.jobs import Benched, Trained
from harness.prepare.overlap import overlap_records
from harness.prepare.prepare import Prepared, Row
from harness.prepare.tasks import ScoredTask
from harness.prepare.trainings import Training
from harness.results import Overlap
from harness.runs.folder import RunFolder, SampleLog
from harness.storage import key

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
        return self.folder.samples(self.kept_as(state), task.name)

    def unscored(self, state: State) -> bool:
        """Whether samples of a variant are missing on disk."""
        return any(len(self.log(state, task).rows()) < len(state.row.items[task.name]) for task in self.prepared.tasks)

    def missing(self, training: Training) -> str | None:
        """The training that this one needs the artifact of, where this run did not come by it.

        A folder of that name may be there all the same: an earlier attempt's, made by other code.
        """
        there = {state.row.training.id for state in self.states.values() if state.row.training and state.artifact}
        for needed in (training.start, training.reward):
            if isinstance(needed, Training) and needed.id not in there:
                return needed.id
        return None

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

    def kept_as(self, state: State) -> str:
        """What a row's files are named by: replicas and folds of one variant have files of their own."""
        spec, training = state.row.spec, state.row.training
        seed = training.seed if training else self.config.seed
        return f"{spec.canonical}#{seed}" + (f"/{spec.fold}" if spec.fold is not None else "")
