"""What the parent process asks of a child, and what comes back: plain data, no torch.

A child loads one base and does one job: train a variant, score variants that share the base, or time one. Everything it is
told is here, so a job can be pickled, sent elsewhere, and repeated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.api import Sample
from harness.settings import TrainingSettings

Bits = Literal[4, 8] | None
Quant = Literal["nf4", "nf4_single", "fp4", "fp4_single", "int8"]
"""Formats of quantized weights: 4-bit with double quantization of the scales, or without (`_single`); LLM.int8."""
QUANT_OF_BITS: Mapping[Bits, Quant | None] = {None: None, 4: "nf4", 8: "int8"}
"""What `@4bit` and `@8bit` mean."""

HEAD_FILE = "reward_head.safetensors"
"""In the folder of an artifact that judges answers instead of writing them."""
TRAINED_FILE = "trained.json"
"""In an artifact's folder: its train key, and the figures of its training."""


@dataclass(frozen=True)
class Base:
    """A set of weights as loaded: variants with equal bases share one load."""

    folder: Path
    device: str
    dtype: str
    """`float32`, `bfloat16` or `float16`."""
    quant: Quant | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Method:
    """A method a child can find again: the file and the function's name."""

    name: str
    path: Path
    module: str | None
    hyperparameters: Mapping[str, Any] = field(hash=False)

    @property
    def source(self) -> str:
        """What the registry finds it by."""
        return self.name if self.module else f"{self.path.resolve()}@{self.name}"


@dataclass(frozen=True)
class Recipe:
    """How a variant's model is made from a base."""

    base: Base
    adapter: Path | None = None
    """Folder of a PEFT adapter, or of `delta.safetensors` + `method.json`."""
    merged: bool = False
    bits_after_merge: Bits = None
    method: Method | None = None
    """What built the delta (None for PEFT adapters, which describe themselves)."""


@dataclass(frozen=True)
class Monitor:
    """A task whose headline says which checkpoint is best."""

    task: str
    """The source by which the registry finds it."""
    parameters: Mapping[str, Any]
    items: Sequence[Item]
    digest: str = ""
    """Of the task's file and rows, which decide what is best beside the prompts."""


@dataclass(frozen=True)
class RewardFunction:
    """`(prompts, completions, references) -> list of rewards`, in a file of the user's."""

    path: Path
    name: str

    @property
    def digest(self) -> str:
        """Of the file, and which of its functions is meant."""
        return hashlib.sha256(self.path.read_bytes() + self.name.encode()).hexdigest()


@dataclass(frozen=True)
class EnvironmentJob:
    """What machine is this: device, resolved precision, versions."""

    device: str
    dtype: str


@dataclass(frozen=True)
class TrainJob:
    """Train one variant and leave its artifact in `output`."""

    base: Base
    method: Method
    training: TrainingSettings
    examples: Sequence[Example]
    saves: Literal["delta", "checkpoint"]
    output: Path
    """Made whole or not at all."""
    log: Path
    """One line a step."""
    state: Path
    """Where an interrupted training continues from."""
    train_key: str
    """Written into the artifact, by which later runs find it."""
    validation: Sequence[Example] = ()
    """Held-out rows; none: training is not looked at from outside."""
    monitor: Monitor | None = None
    """None: the loss of the held-out rows says which checkpoint is best."""
    start: Path | None = None
    """Folder of the artifact of the same method whose tensors training goes on from."""
    reward: Recipe | RewardFunction | None = None
    """What judges answers, for the stages that learn from rewards."""
    report_to: Sequence[str] = ()
    """Trackers that are told of every step: `tensorboard`, `wandb`, `mlflow`."""


@dataclass(frozen=True)
class MergeJob:
    """Leave the base with an adapter in its weights, as a checkpoint, in `output`."""

    recipe: Recipe
    output: Path
    """Made whole or not at all."""


@dataclass(frozen=True)
class TaskRequests:
    """The requests of one task for one variant, and which of them are already on disk."""

    task: str
    requests: Sequence[Request]
    done: Sequence[int] = ()
    """Indices of the samples on disk, in the order of the file."""


@dataclass(frozen=True)
class ScoreVariant:
    """One variant of a scoring job."""

    name: str
    recipe: Recipe
    tasks: Sequence[TaskRequests]


@dataclass(frozen=True)
class ScoreJob:
    """Score variants that share one base."""

    variants: Sequence[ScoreVariant]
    engine: Literal["auto", "plain"]
    numerics: Literal["fp32", "lm-eval"]
    token_budget: int
    max_rows: int | None
    seed: int


@dataclass(frozen=True)
class PlanJob:
    """Count what a training would need; of the base's folder its configuration alone is read."""

    base: Base
    method: Method
    training: TrainingSettings
    memory_bytes: int
    """What there is."""


@dataclass(frozen=True)
class BenchJob:
    """Time one variant, in turn with the bare base where they share weights."""

    recipe: Recipe
    with_base: bool
    prompt_tokens: int = 512
    new_tokens: int = 32
    warmup: int = 2
    repeats: int = 10
    batch_sizes: Sequence[int] = (1, 8)
    seed: int = 0


@dataclass(frozen=True)
class Raw:
    """What a model gave for one request; `index` is its place in the task."""

    index: int
    prompt_tokens: int
    truncated: bool
    tokens: int
    texts: tuple[str, ...] = ()
    loglikelihoods: tuple[float, ...] = ()
    is_greedy: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Packed:
    """A pack is done: the unit of commit and resume."""

    variant: str
    task: str
    raws: tuple[Raw, ...]


@dataclass(frozen=True)
class Resumed:
    """So many samples at the front of the file are whole packs of the plan; what follows them is scored again."""

    variant: str
    task: str
    kept: int


@dataclass(frozen=True)
class Advanced:
    """Progress of a stage."""

    done: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class VariantLoading:
    """A scoring child takes up a variant: what goes wrong from here on is that variant's."""

    variant: str


@dataclass(frozen=True)
class VariantStarted:
    """The variant's model is there: its size in memory, and its parameters."""

    variant: str
    model_bytes: int
    parameters: int


@dataclass(frozen=True)
class Noted:
    """Something that the user should know of how a variant was run."""

    variant: str
    note: str


@dataclass(frozen=True)
class VariantFailed:
    """A variant could not be scored; the others go on."""

    variant: str
    error: str


@dataclass(frozen=True)
class Done:
    """The job's result."""

    value: Any = None


@dataclass(frozen=True)
class Failed:
    """The job raised: a sentence for the user's table, and the traceback for a bug report."""

    error: str
    hint: str | None
    traceback: str
    is_users: bool
    """Whether it is a mistake that the user can mend: it stops the run instead of failing a row."""


Event = Packed | Resumed | Advanced | VariantLoading | VariantStarted | Noted | VariantFailed | Done | Failed
Job = EnvironmentJob | TrainJob | MergeJob | ScoreJob | BenchJob | PlanJob


@dataclass(frozen=True)
class Trained:
    """Result of a `TrainJob`: figures that go to `run.json`."""

    train_seconds: float
    tokens: int
    steps: int
    samples: int
    final_loss: float | None
    losses: tuple[float, ...]
    step_seconds_p50: float
    parameters_total: int
    parameters_trainable: int
    truncated: int
    """Training rows cut on the right to `max_length`."""
    dropped: int
    """Training rows left out: nothing to learn from was left of them within `max_length`."""
    lost_tokens: int
    """Tokens cut off, and those of the rows left out."""
    checkpointing: bool
    micro_batch_size: int
    peaks: Mapping[str, int | None] = field(default_factory=dict)
    energy_joules: float | None = None
    validation_loss: float | None = None
    """Of the held-out rows, with the weights that were kept."""
    validation: tuple[tuple[int, float], ...] = ()
    """Every look at what is monitored: (steps done, loss or headline)."""
    rewards: tuple[float, ...] = ()
    """Mean reward of each step's answers, for stages that learn from rewards."""
    held_out_losses: tuple[float, ...] = ()
    """Losses of the held-out rows, look by look."""
    best_step: int | None = None
    """The look whose weights were kept."""
    notes: tuple[str, ...] = ()
    """What is to be known of how it went: memory that ran out, an early stop."""


@dataclass(frozen=True)
class Benched:
    """Result of a `BenchJob`; seconds as measured, nothing thrown away."""

    load_seconds: float
    prompt_tokens: int
    new_tokens: int
    prefill_seconds: tuple[float, ...]
    decode_seconds: tuple[float, ...]
    """None of a reward model, which writes nothing."""
    base_prefill_seconds: tuple[float, ...]
    base_decode_seconds: tuple[float, ...]
    throughput: tuple[tuple[int, float], ...]
    probe_drift: float
    warmup: int
    repeats: int
    peaks: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Planned:
    """Result of a `PlanJob`: bytes, for a micro-batch of the longest rows."""

    parameters_total: int
    parameters_trainable: int
    weights_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    peak_bytes: int
    artifact_bytes: int
    largest_micro_batch: int
    """Rows of the greatest length that fit; 0: not one does."""


@dataclass(frozen=True)
class Request:
    """One sample as a model gets it: text only."""

    id: str
    mode: Literal["generate", "choose", "text"]
    contexts: tuple[str, ...]
    """One prompt; or one a choice; for `text` the empty string."""
    continuations: tuple[str, ...] = ()
    """What is scored after the context: the choices with their delimiter, or the text."""
    stop: tuple[str, ...] = ()
    max_tokens: int = 0
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    window: int | None = None
    stride: int | None = None

    @property
    def sha256(self) -> str:
        """Digest of everything that the model is asked, id left out."""
        content = {**vars(self), "id": None}
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True)
class Item:
    """A sample of a task with its request and its place in the task."""

    request: Request
    sample: Sample
    group: str | None
    cluster: str | None


@dataclass(frozen=True)
class Example:
    """What one training row becomes: the loss is on `completion` alone."""

    prompt: str
    completion: str
    """For stages that learn from rewards: the reference answer, which a reward function is given."""
    append_eos: bool = True
    rejected: str | None = None
    """The worse answer of a preference pair, whose better one is `completion`."""
