"""The settings of training: each is declared once, in `TrainSettings`, with its type, its meaning and its default.

All variants share the `train:` block of `compare.yaml` (on the command line `-S KEY=VALUE`); a variant's own keys
(`lora:schedule=wsd,warmup=0.1`) override it. Everything else in this module follows from that class and from `STAGES`.

Example:
    >>> given = TrainSettings(lr="1e-5", warmup=0.1)
    >>> given.lr, given.batch_size, sorted(given.model_fields_set)
    (1e-05, 16, ['lr', 'warmup'])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from harness.errors import UserError, did_you_mean

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
    "label",
)
"""Columns of training data that `train.columns` can map to other names."""

StageName = Literal["sft", "pretrain", "reward", "dpo", "kto", "grpo", "ppo"]
Turns = Literal["last", "all"]
Schedule = Literal["cosine", "linear", "constant", "wsd", "staged"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Weights = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class StageSpec:
    """One stage: a kind of training."""

    module: str
    """Name of its module in `harness.finetune.stages`."""
    rows: Literal["single", "pair", "marked", "prompt"]
    """`single`: a prompt with its answer, or plain text. `pair`: a prompt with a better and a worse answer. `marked`: a prompt
    with an answer that is marked good or bad. `prompt`: a prompt alone; the model generates the answers during training, and a
    reward judges them."""
    packs: bool = False
    """Whether its rows can be packed (`packing=true`)."""
    tunes_lr: bool = True
    """Whether `--tune-lr` applies: it compares losses of held-out rows, which stages that learn from rewards do not have."""
    own_settings: tuple[str, ...] = ()
    """Settings that have a meaning only for the stages that list them."""


_REWARDED = ("beta", "reward", "generations", "max_tokens", "temperature")
STAGES: Mapping[StageName, StageSpec] = {
    "sft": StageSpec("sft", "single", packs=True, own_settings=("label_smoothing",)),
    "pretrain": StageSpec("sft", "single", packs=True, own_settings=("label_smoothing",)),
    "reward": StageSpec("reward", "pair"),
    "dpo": StageSpec("dpo", "pair", own_settings=("label_smoothing", "beta")),
    "kto": StageSpec("kto", "marked", own_settings=("beta", "desirable_weight", "undesirable_weight")),
    "grpo": StageSpec("grpo", "prompt", tunes_lr=False, own_settings=_REWARDED),
    "ppo": StageSpec("ppo", "prompt", tunes_lr=False, own_settings=_REWARDED),
}


def stages_of(setting: str) -> tuple[StageName, ...]:
    """Stages that a setting has a meaning for: those that list it as their own, else all.

    Example:
        >>> stages_of("beta")
        ('dpo', 'kto', 'grpo', 'ppo')
    """
    return tuple(stage for stage, spec in STAGES.items() if setting in spec.own_settings) or tuple(STAGES)


class Scope(Enum):
    """Properties of a setting that its type does not tell."""

    CHOOSES = (
        "It chooses rows, weights or a judge. Keys hold a digest of their content; the training loop does not read it."
    )
    SHARED = "It belongs to the `train:` block and is no key of a variant."
    VARIANT = "It is a key of a variant and does not belong to the `train:` block."


def mapped(value: Any) -> Any:
    """`a=b,c=d` as a mapping."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",")]
    if not all(key and equals and text for key, equals, text in pairs):
        raise ValueError("expected a=b,c=d")
    return {key.strip(): text.strip() for key, _, text in pairs}


def _known_columns(columns: dict[str, str] | None) -> dict[str, str] | None:
    for column in columns or {}:
        if column not in COLUMNS:
            raise ValueError(f"`{column}` is not a column of training data: {did_you_mean(column, COLUMNS)}")
    return columns


def _factors(value: Any) -> Any:
    """`1+0.1` as a list."""
    return [part.strip() for part in value.split("+") if part.strip()] if isinstance(value, str) else value


def _text_of_number(value: Any) -> Any:
    return str(value) if isinstance(value, float) else value


def _known_thinking(value: str) -> str:
    if value in ("on", "off") or (value.isdecimal() and int(value) > 0):
        return value
    raise ValueError("expected on, off or a number of tokens")


Count = Annotated[int, Field(gt=0)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class TrainSettings(BaseModel):
    """Settings as given: by one variant, for all variants, or the first over the second.

    The default of a field is the value of a setting that was left out; None means that the method, the stage or the model
    decides it. `model_fields_set` has the names that were given. The order of the fields is the order of the keys in specs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lr: Amount | None = None
    """Highest learning rate; None: the method's own."""
    steps: Count | None = None
    """Optimizer steps; with neither `steps` nor `epochs`, one epoch."""
    epochs: Amount | None = None
    """Passes over the data."""
    batch_size: Count = 16
    """Rows of an optimizer step."""
    micro_batch_size: Count | None = None
    """Rows that pass through the model at once; None: the whole batch, halved when memory runs out. Changes no result."""
    max_length: Count = 1024
    """Greatest number of tokens of a row; longer rows are cut on the right and counted."""
    seed: Annotated[int, Field(ge=0), Scope.VARIANT] = 0
    data: Annotated[str | None, Scope.CHOOSES] = None
    """A task (its train split), a file or folder, `hub:owner/name[:config[:split]]`, or a mix: `gsm8k*3 + data.jsonl`; None:
    the train splits of the tasks."""
    columns: Annotated[
        dict[str, str] | None, BeforeValidator(mapped), AfterValidator(_known_columns), Scope.CHOOSES, Scope.SHARED
    ] = None
    """Names of our columns in the data: `prompt=question,completion=answer`."""
    samples: Annotated[Count | None, Scope.CHOOSES] = None
    """Number of rows to use, drawn with a fixed seed; None: all."""
    dedupe: Annotated[bool, Scope.CHOOSES] = False
    """Leave out rows that repeat an earlier row."""
    min_row_tokens: Annotated[Count | None, Scope.CHOOSES] = None
    """Leave out rows with fewer tokens; prompt and answer are counted, of a pair the longer answer."""
    max_row_tokens: Annotated[Count | None, Scope.CHOOSES] = None
    """Leave out rows with more tokens, instead of cutting them to `max_length`."""
    drop_near_duplicates: Annotated[bool, Scope.CHOOSES] = False
    """Leave out rows that repeat or nearly repeat an earlier row."""
    augment: Annotated[str | None, Scope.CHOOSES] = None
    """`FILE.py@function`: makes a list of rows from a training row; held-out rows stay as they are."""
    turns: Annotated[Turns, Scope.CHOOSES] = "last"
    """Assistant turns of a conversation to learn; `all` makes an example of each, with the turns before it as the prompt."""
    packing: bool = False
    """Put the rows of a batch end to end instead of padding them; rows do not attend to each other. Changes no result."""
    schedule: Schedule = "cosine"
    """Learning rate after the warm-up: `wsd` keeps it constant and lowers it over the last fifth, `staged` follows `rates`."""
    rates: Annotated[tuple[Amount, ...], BeforeValidator(_factors)] = ()
    """Factors of the learning rate over equal parts of the steps, for `schedule=staged`."""
    warmup: NotNegative = 0.05
    """Steps over which the learning rate rises from 0; a number below 1 is a share of all steps."""
    weight_decay: NotNegative = 0.0
    """Weight decay of AdamW, applied to matrices only."""
    clip: NotNegative = 1.0
    """Largest norm of the gradient; 0: no limit."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each target that is spread over the vocabulary (`sft`, `pretrain`), or of pairs assumed to be labelled wrongly
    (`dpo`)."""
    neftune: NotNegative = 0.0
    """Alpha of the noise added to the embeddings (NEFTune, arXiv 2310.05914); 0: no noise."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from each layer to the one below it."""
    optimizer: str = "adamw"
    """A name of `OPTIMIZERS`."""
    precision: Precision = "auto"
    """Precision of the matrix products; `auto`: bfloat16 where the machine multiplies it natively, or with `weights=bf16`."""
    weights: Weights = "fp32"
    """Precision in which trained weights, their gradients and the optimizer's state are held. `bf16` halves their memory, and
    loses updates below 1/256 of a weight."""
    checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    validation: Annotated[float | str | None, BeforeValidator(_text_of_number), Scope.CHOOSES] = None
    """Held-out rows: a share of the data (`0.1`), or other data, named as `data` is."""
    evaluate_every: Count | None = None
    """Steps between two evaluations on the held-out rows; None: ten evaluations in a training run."""
    patience: Count | None = None
    """Evaluations without an improvement after which training stops; None: it never stops early."""
    monitor: Annotated[str | None, Scope.CHOOSES] = None
    """Measure of improvement: `loss` on the held-out rows, or the headline of a task that the run does not score."""
    stage: StageName = "sft"
    """Learn from answers (`sft`), plain text (`pretrain`), pairs (`reward`, `dpo`), answers marked good or bad
    (`kto`), or rewards (`grpo`, `ppo`)."""
    start: Annotated[str | None, Scope.CHOOSES] = None
    """Starting point: another variant of the comparison, or an adapter or checkpoint by path."""
    reward: Annotated[str | None, Scope.CHOOSES] = None
    """Judge of the answers: a variant of `stage=reward`, its folder, or `FILE.py@function`."""
    beta: NotNegative | None = None
    """Strength of the pull towards the reference policy (`dpo`, `kto`, `grpo`, `ppo`); None: the stage's own."""
    desirable_weight: Amount = 1.0
    """Weight of the answers that are marked good (`kto`)."""
    undesirable_weight: Amount = 1.0
    """Weight of the answers that are marked bad (`kto`)."""
    generations: Count = 8
    """Answers generated for each prompt (`grpo`, `ppo`)."""
    max_tokens: Count = 64
    """Greatest number of tokens of a generated answer (`grpo`, `ppo`)."""
    temperature: Amount = 1.0
    """Sampling temperature of the generated answers (`grpo`, `ppo`)."""

    @model_validator(mode="after")
    def _one_length(self) -> TrainSettings:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("both `steps` and `epochs` are given: keep one")
        return self

    @property
    def drops_copies(self) -> bool:
        """Whether rows that repeat an earlier row are left out."""
        return self.dedupe or self.drop_near_duplicates


class TrainingSettings(TrainSettings):
    """Settings of one training run, resolved: a child receives these."""

    lr: Amount
    micro_batch_size: Count
    precision: Precision = "fp32"
    """`auto` until the machine is known."""

    def of_the_loop(self) -> dict[str, Any]:
        """The settings that the training loop reads, by name; the others choose its rows, weights and judge.

        Later settings are left out where they have their defaults, so that keys of earlier training runs stay.
        """
        return self.model_dump(exclude=_scoped(Scope.CHOOSES) | ({"weights"} if self.weights == "fp32" else set()))


def overridden(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Shared settings, overridden by own ones; an own `steps` also removes a shared `epochs`, and vice versa.

    Example:
        >>> overridden({"steps": 9, "lr": 0.1}, {"epochs": 2})
        {'lr': 0.1, 'epochs': 2}
    """
    lengths = {"steps", "epochs"}
    kept = {key: value for key, value in shared.items() if not (key in lengths and lengths & own.keys())}
    return {**kept, **own}


class PromptSettings(BaseModel):
    """Keys of a variant that decide its prompts; None: as the run has it for all variants."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shots: Annotated[int, Field(ge=0)] | None = None
    """Solved examples before each prompt."""
    system: str | None = None
    """System prompt."""
    template: str | None = None
    """`chat`: prompts go through the model's chat template; `none`: they do not."""
    think: Annotated[str, AfterValidator(_known_thinking)] | None = None
    """`on`, `off`, or the tokens of a thought before an answer (`harness.prepare.thinking`)."""


def _scoped(scope: Scope) -> set[str]:
    return {name for name, field in TrainSettings.model_fields.items() if scope in field.metadata}


def _types(model: type[BaseModel]) -> dict[str, str]:
    """The type of each field as `harness.registry.values` reads it."""
    return {name: _type_text(field.annotation) for name, field in model.model_fields.items()}


def _type_text(annotation: Any) -> str:
    """An annotation as text, without None and without limits.

    Example:
        >>> _type_text(Amount | None), _type_text(tuple[Count, ...]), _type_text(Turns)
        ('float', 'Sequence[int]', "Literal['last', 'all']")
    """
    kind, inside = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return _type_text(inside[0])
    if kind in (Union, UnionType):
        return " | ".join(_type_text(each) for each in inside if each is not NoneType)
    if kind is Literal:
        return f"Literal{list(inside)}"
    if kind is tuple:
        return f"Sequence[{_type_text(inside[0])}]"
    return str(annotation.__name__)


TRAINING_KEYS = {key: text for key, text in _types(TrainSettings).items() if key not in _scoped(Scope.SHARED)}
"""Keys of a variant that decide its training, with the text of their types."""
PROMPTING_KEYS = _types(PromptSettings)
"""Keys of a variant that decide its prompts, with the text of their types."""
RESERVED_KEYS = (*TRAINING_KEYS, *PROMPTING_KEYS)
"""Keys of a variant that have the same meaning for every method; a method cannot declare a hyperparameter of that name."""
SHARED_KEYS = tuple(name for name in TrainSettings.model_fields if name not in _scoped(Scope.VARIANT))
"""Keys of the `train:` block."""

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
"""Our names of optimizers, with the names in transformers. 8-bit optimizers keep their state in a quarter of the memory; paged
ones move it to the host when the GPU is full."""


def optimizer_name(name: str) -> str:
    """The name of an optimizer in transformers.

    Raises:
        UserError: The optimizer is unknown.

    Example:
        >>> optimizer_name("adamw_8bit")
        'adamw_bnb_8bit'
    """
    if name not in OPTIMIZERS:
        raise UserError(f"unknown optimizer `{name}`", hint=did_you_mean(name, OPTIMIZERS))
    return OPTIMIZERS[name]


def check_rates(schedule: str, rates: Sequence[float]) -> None:
    """Checks that `rates` are given with the schedule `staged`, and with no other.

    Raises:
        UserError: One of the two is given without the other.
    """
    if (schedule == "staged") != bool(rates):
        raise UserError(
            "`schedule=staged` and `rates` go together", hint="for example `schedule=staged,rates=1+0.5+0.1`"
        )
