"""How variants are trained: every setting once, with its type, its meaning and what leaving it out gives.

They are the `train:` block of `compare.yaml`, the keys of a variant (`lora:schedule=wsd,warmup=0.1`), and `-S KEY=VALUE`
on the command line. A variant's own key wins over the shared one.

Example:
    >>> TrainSettings(lr="1e-5", warmup=0.1).lr
    1e-05
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import UserError, did_you_mean

if TYPE_CHECKING:
    pass

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

COLUMNS = (
    "prompt",
    "completion",
    "messages",
    "text",
    "chosen",
    "rejected",
    "instruction",
    "input",
    "output",
    "system",
)
"""Columns of training data that others may be mapped to."""

Stage = Literal["sft", "pretrain", "reward", "dpo", "grpo", "ppo"]
Turns = Literal["last", "all"]
Schedule = Literal["cosine", "linear", "constant", "wsd", "staged"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]

PAIRED_STAGES: tuple[Stage, ...] = ("reward", "dpo")
"""Learn from a better and a worse answer."""
ONLINE_STAGES: tuple[Stage, ...] = ("grpo", "ppo")
"""Learn from answers that the model writes meanwhile, and what a reward says of them."""

TRAINING = {
    "lr": "float",
    "steps": "int",
    "epochs": "float",
    "batch_size": "int",
    "micro_batch_size": "int",
    "max_length": "int",
    "seed": "int",
    "data": "str",
    "samples": "int",
    "dedupe": "bool",
    "turns": f"Literal{list(get_args(Turns))}",
    "packing": "bool",
    "schedule": f"Literal{list(get_args(Schedule))}",
    "rates": "Sequence[float]",
    "warmup": "float",
    "weight_decay": "float",
    "clip": "float",
    "label_smoothing": "float",
    "neftune": "float",
    "layer_decay": "float",
    "optimizer": "str",
    "precision": f"Literal{list(get_args(Precision))}",
    "checkpointing": "bool",
    "validation": "float | str",
    "evaluate_every": "int",
    "patience": "int",
    "monitor": "str",
    "stage": f"Literal{list(get_args(Stage))}",
    "start": "str",
    "reward": "str",
    "beta": "float",
    "generations": "int",
    "max_tokens": "int",
    "temperature": "float",
}
"""Keys of a variant that decide its training, and their types as `harness.registry.values` reads them."""

ONLY_FOR: dict[str, tuple[Stage, ...]] = {
    "label_smoothing": ("sft", "pretrain", "dpo"),
    "beta": ("dpo", *ONLINE_STAGES),
    **dict.fromkeys(("reward", "generations", "max_tokens", "temperature"), ONLINE_STAGES),
}
"""Settings that mean nothing to the other stages: no variant may give one itself to such a stage, and one that all variants share
must mean something to one of them."""

TRACKERS = ("tensorboard", "wandb", "mlflow")
"""Who can be told of every step; each is a package of that name."""

MAY_BE_ZERO = ("seed", "warmup", "weight_decay", "clip", "label_smoothing", "neftune", "beta")
"""Numbers that 0 is a sensible value of; all others are above it."""


def mapped(value: Any) -> Any:
    """`a=b,c=d` as a mapping."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",")]
    if not all(key and equals and text for key, equals, text in pairs):
        raise ValueError("expected a=b,c=d")
    return {key.strip(): text.strip() for key, _, text in pairs}


def known_trackers(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, where each is a tracker that is installed.

    Raises:
        UserError: One is not.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"`--report-to {name}`: unknown tracker", hint=did_you_mean(name, TRACKERS))
        if find_spec(name) is None:
            raise UserError(f"`--report-to {name}` needs the package `{name}`", hint=f"pip install {name}")
    return names


def _columns(columns: dict[str, str] | None) -> dict[str, str] | None:
    for column in columns or {}:
        if column not in COLUMNS:
            raise ValueError(f"`{column}` is no column of ours: {did_you_mean(column, COLUMNS)}")
    return columns


def _factors(value: Any) -> Any:
    """`1+0.1` as a list."""
    return [part.strip() for part in value.split("+") if part.strip()] if isinstance(value, str) else value


Count = Annotated[int, Field(gt=0)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class TrainSettings(BaseModel):
    """What all trainings share, unless a variant says otherwise; None: the default of the method or trainer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str | None = None
    """A task (its train split), a file or folder, `hub:owner/name[:config[:split]]`, or a mix: `gsm8k*3 + data.jsonl`; None:
    the train splits of the tasks."""
    columns: Annotated[dict[str, str] | None, BeforeValidator(mapped), AfterValidator(_columns)] = None
    """Our column to theirs: `prompt=question,completion=answer`."""
    samples: Count | None = None
    """So many rows of the data, drawn with a fixed seed; None: all."""
    dedupe: bool | None = None
    """Leave out rows that stand in the data already."""
    turns: Turns | None = None
    """Which of the assistant's turns of a conversation are learned; `all`: each is an example after what came before it."""
    steps: Count | None = None
    """Optimizer steps."""
    epochs: Amount | None = None
    """Passes over the data."""
    lr: Amount | None = None
    """Highest learning rate; None: the method's own."""
    batch_size: Count | None = None
    """Rows an optimizer step."""
    micro_batch_size: Count | None = None
    """Rows that go through the model at once; None: the batch, halved where memory runs out. Changes no result."""
    max_length: Count | None = None
    """Tokens of a row at most; longer ones are cut on the right and counted."""
    packing: bool | None = None
    """Rows of a batch laid end to end instead of padded, each blind to the others. Changes no result."""
    schedule: Schedule | None = None
    """How the rate goes after the warm-up: `wsd` is level and falls over the last fifth, `staged` follows `rates`."""
    rates: Annotated[tuple[Amount, ...] | None, BeforeValidator(_factors)] = None
    """Factors of the rate over equal parts of the training, for `staged`."""
    warmup: NotNegative | None = None
    """Share of the steps below 1, else steps, over which the rate rises from 0."""
    weight_decay: NotNegative | None = None
    """AdamW's, on matrices alone."""
    clip: NotNegative | None = None
    """Largest norm of the gradient; 0: any."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of each target that is spread (`sft`, `pretrain`); share of pairs taken to be labelled wrongly (`dpo`)."""
    neftune: NotNegative | None = None
    """Noise on the embeddings (arXiv 2310.05914): its alpha; 0: none."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Factor of the rate from each layer to the one below it."""
    optimizer: str | None = None
    precision: Precision | None = None
    """Of the matrix products; `auto`: bfloat16 where the machine multiplies it natively."""
    checkpointing: bool | None = None
    """Activations are computed again in the backward pass instead of kept."""
    validation: Annotated[str | None, BeforeValidator(lambda v: str(v) if isinstance(v, float) else v)] = None
    """Held out: a share of the rows (`0.1`), or data named as `data` is."""
    evaluate_every: Count | None = None
    """Steps between two looks at the held-out rows; None: ten looks a training."""
    patience: Count | None = None
    """Looks without a gain after which training stops; None: it goes on to the end."""
    monitor: str | None = None
    """What a gain is: `loss` of the held-out rows, or the headline of a task (not one that is scored)."""
    stage: Stage | None = None
    """What is learned from: answers (`sft`), plain text (`pretrain`), pairs (`reward`, `dpo`), rewards (`grpo`, `ppo`)."""
    start: str | None = None
    """Training goes on from another variant of the comparison, or from an adapter or checkpoint by path."""
    reward: str | None = None
    """What judges answers: a variant of stage `reward`, its folder, or `FILE.py@function`."""
    beta: NotNegative | None = None
    """How strongly the model is held to where it started (`dpo`, `grpo`, `ppo`)."""
    generations: Count | None = None
    """Answers written for each prompt (`grpo`, `ppo`)."""
    max_tokens: Count | None = None
    """Tokens of a written answer at most (`grpo`, `ppo`)."""
    temperature: Amount | None = None
    """Of the written answers (`grpo`, `ppo`)."""

    @model_validator(mode="after")
    def _one_length(self) -> TrainSettings:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("both `steps` and `epochs` are given: keep one")
        return self


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one training, every default resolved."""

    lr: float
    steps: int | None
    epochs: float | None
    batch_size: int
    micro_batch_size: int
    """Rows that go through the model at once, at most."""
    max_length: int
    seed: int
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the matrix products; weights and optimizer stay as loaded."""
    stage: Stage = "sft"
    packing: bool = False
    checkpointing: bool = False
    optimizer: str = "adamw"
    schedule: Schedule = "cosine"
    rates: Sequence[float] = ()
    """Factors of the rate over equal parts of the training, for the schedule `staged`."""
    warmup: float = 0.05
    """Share of the steps below 1, else steps."""
    weight_decay: float = 0.0
    clip: float = 1.0
    """Largest norm of the gradient; 0: any."""
    label_smoothing: float = 0.0
    neftune: float = 0.0
    layer_decay: float = 1.0
    evaluate_every: int | None = None
    """Steps between two looks at the held-out rows; None: ten looks a training."""
    patience: int | None = None
    """Looks without a gain after which training stops; None: it goes on to the end."""
    beta: float | None = None
    """How strongly the model is held to where it started; None: the stage's own."""
    generations: int = 8
    max_tokens: int = 64
    temperature: float = 1.0


OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
    "adagrad": "adagrad",
    "rmsprop": "rmsprop",
    "lion": "lion_32bit",
    "lion_8bit": "lion_8bit",
    "paged_lion": "paged_lion_32bit",
    "paged_lion_8bit": "paged_lion_8bit",
    "ademamix": "ademamix",
    "ademamix_8bit": "ademamix_8bit",
}
"""Our names to transformers'. Those of 8 bits keep their state in a quarter of the memory; paged ones move it to the host
when the GPU is full."""


def optimizer_name(name: str) -> str:
    """What transformers calls an optimizer.

    Raises:
        UserError: There is none of that name.

    Example:
        >>> optimizer_name("adamw_8bit")
        'adamw_bnb_8bit'
    """
    if name not in OPTIMIZERS:
        raise UserError(f"unknown optimizer `{name}`", hint=did_you_mean(name, OPTIMIZERS))
    return OPTIMIZERS[name]


def check_rates(name: str | None, rates: Sequence[float] | None) -> None:
    """Whether a schedule has the rates that it needs.

    Raises:
        UserError: `staged` without `rates`, or `rates` without `staged`.
    """
    if (name == "staged") != bool(rates):
        raise UserError(
            "`schedule=staged` and `rates` go together", hint="for example `schedule=staged,rates=1+0.5+0.1`"
        )
