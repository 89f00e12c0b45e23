"""The state of a run: each variant's results so far, and the files in which they are stored."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from harness.comparison.prediction import NOTHING_PREDICTED, Prediction
from harness.comparison.tuning import Tuned
from harness.comparison.verdicts import Pair
from harness.config.config import Config
from harness.jobs import Benched, Deployed, Item, Recipe, Served, Trained, Vllm, Writer
from harness.prepare.overlap import overlap_records
from harness.prepare.prepare import Prepared, PreparedVariant
from harness.prepare.sampling_order import why_whole
from harness.prepare.tasks import ScoredTask
from harness.prepare.trainings import Training
from harness.results import Comparison, Overlap, Score
from harness.runs.folder import RunFolder, SampleLog, stored_as
from harness.serving.capabilities import Capabilities
from harness.tokens.packs import token_budget


@dataclass
class State:
    """The results of one variant so far."""

    variant: PreparedVariant
    status: Literal["pending", "running", "done", "failed"] = "pending"
    error: str | None = None
    trained: Trained | None = None
    reused: bool = False
    scored: bool = False
    """Whether all of its samples are on disk."""
    scores: list[Score] = field(default_factory=list)
    """Scores of the tasks that are finished, without differences, until all variants are scored."""
    predicted: Prediction = NOTHING_PREDICTED
    """Memory and time that its training run was predicted to take."""
    artifact: Path | None = None
    deployed: Deployed | None = None
    """Its deployed form, which is scored; None: none is asked for, or it is not made yet."""
    model_bytes: int | None = None
    """Size of the weights as the document has it: of a deployed form, on disk."""
    memory_bytes: int | None = None
    """Size of the weights in memory while they are scored."""
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
    ends: dict[tuple[str, str], int] = field(default_factory=dict)
    """By variant and task: the number of samples to score so far, where `--until-decided` sets one."""
    decided: dict[Pair, Comparison] = field(default_factory=dict)
    """The differences that `--until-decided` has decided on."""
    capabilities: dict[Served, Capabilities] = field(default_factory=dict)
    """By served model: what the probe at the start has found."""
    models: dict[Recipe, str] = field(default_factory=dict)
    """Digests of models that `harness.comparison.keys` has made."""
    vllm: Vllm | None = None
    """Generates texts where it takes the variant; None: our own engine generates all."""
    deployed: dict[Path, str] = field(default_factory=dict)
    """Keys of the deployed forms of this run, by what a reader loads."""
    sample_keys: dict[tuple[str, Recipe, str, Writer], list[str]] = field(default_factory=dict)
    """By variant, recipe, task and writer: the keys of samples that `harness.comparison.recipes` has made."""
    logs: dict[tuple[str, str], SampleLog] = field(default_factory=dict)
    """With `--until-decided`, by variant and task: files of samples, which are read after every pack."""

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
        """Returns the file of a variant's samples of a task; with `--until-decided`, it reads each line once."""
        if not self.config.until_decided:
            return self.folder.samples(self.stored_as(state), task.name)
        place = (state.name, task.name)
        if place not in self.logs:
            self.logs[place] = self.folder.samples(self.stored_as(state), task.name)
        return self.logs[place]

    @cached_property
    def early_tasks(self) -> set[str]:
        """The tasks whose scoring stops where a difference is decided."""
        if not self.config.until_decided:
            return set()
        items = self.prepared.variants[0].items
        return {task.name for task in self.prepared.tasks if why_whole(task, items[task.name]) is None}

    def asked(self, state: State, task: ScoredTask) -> list[Item]:
        """Returns the samples that a variant is scored on: all, or the first ones if the others are not needed."""
        return state.variant.items[task.name][: self.ends.get((state.name, task.name))]

    def unscored(self, state: State) -> bool:
        """Whether samples of a variant are missing on disk."""
        return any(len(self.log(state, task).rows()) < len(self.asked(state, task)) for task in self.prepared.tasks)

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

    def stored_as(self, state: State) -> str:
        """Returns the name of a variant's files; each replica and fold of a variant has its own files."""
        spec, training = state.variant.spec, state.variant.training
        seed = training.settings.seed if training else self.config.seed
        return stored_as(spec.canonical, seed, spec.fold)
