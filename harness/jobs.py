"""What the parent process asks of a child, and what comes back: plain data, no torch.

A child loads one base and does one job: train a variant, score variants that share the base, or time one. Everything it is
told is here, so a job can be pickled, sent elsewhere, and repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.render import Example, Request

Bits = Literal[4, 8] | None

TRAINED_FILE = "trained.json"
"""In an artifact's folder: its train key, and the figures of its training."""


@dataclass(frozen=True)
class Base:
    """A set of weights as loaded: variants with equal bases share one load."""

    folder: Path
    device: str
    dtype: str
    """`float32`, `bfloat16` or `float16`."""
    bits: Bits = None
    """4: NF4 with double quantization; 8: LLM.int8."""
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Method:
    """A method a child can find again: the file and the function's name."""

    name: str
    path: Path
    module: str | None
    hyperparameters: Mapping[str, Any]


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
class Training:
    """Settings of one training, every default resolved."""

    lr: float
    steps: int | None
    epochs: float | None
    batch_size: int
    micro_batch_size: int
    max_length: int
    seed: int
    bf16: bool
    """Mixed precision: matrix products in bfloat16, weights and optimizer as loaded."""
    checkpointing: bool = False
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0


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
    training: Training
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
Job = EnvironmentJob | TrainJob | ScoreJob | BenchJob


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
    checkpointing: bool
    micro_batch_size: int
    peaks: Mapping[str, int | None] = field(default_factory=dict)
    energy_joules: float | None = None


@dataclass(frozen=True)
class Benched:
    """Result of a `BenchJob`; seconds as measured, nothing thrown away."""

    load_seconds: float
    prompt_tokens: int
    new_tokens: int
    prefill_seconds: tuple[float, ...]
    decode_seconds: tuple[float, ...]
    base_prefill_seconds: tuple[float, ...]
    base_decode_seconds: tuple[float, ...]
    throughput: tuple[tuple[int, float], ...]
    probe_drift: float
    warmup: int
    repeats: int
    peaks: Mapping[str, int | None] = field(default_factory=dict)
