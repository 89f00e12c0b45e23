"""The settings of one training run, resolved: the variant's own over the shared ones, defaults filled in, checked.

Example:
    >>> from harness.config.parse import configure
    >>> config = configure(["lora:batch_size=4"], train={"steps": 20})
    >>> [variant] = config.variants
    >>> settings = resolve(given_settings(config, variant), variant.entry, seed=0, embedded=True)
    >>> settings.steps, settings.batch_size, settings.micro_batch_size, settings.max_length
    (20, 4, 4, 1024)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from harness.config.config import Config
from harness.config.variants import VariantSpec
from harness.errors import UserError
from harness.registry.scan import Entry
from harness.settings import STAGES, TrainingSettings, TrainSettings, check_rates, optimizer_name, overridden, stages_of

DEFAULT_EPOCHS = 1.0
TINY_LR_SCALE, TINY_STEPS = 10.0, 150
"""The embedded model needs higher learning rates than a model with a billion parameters, and its demonstration should end
within minutes."""


def given_settings(config: Config, spec: VariantSpec) -> TrainSettings:
    """The settings given for a variant: the shared ones, overridden by its own."""
    own = {key: value for key, value in spec.training.items() if key != "seed"}
    return TrainSettings(**overridden(config.train.model_dump(exclude_unset=True), own))


def resolve(given: TrainSettings, method: Entry, *, seed: int, embedded: bool) -> TrainingSettings:
    """Fills in the settings that were not given.

    Args:
        given: The settings of the variant.
        method: The method, which has a learning rate of its own.
        seed: Seed of the training run.
        embedded: Whether the embedded model `tiny` is trained.

    Returns:
        All settings; `precision` may be `auto` until `on_machine`.

    Raises:
        UserError: Weights in bfloat16 are to be multiplied in another precision.
    """
    if given.weights == "bf16" and given.precision not in ("auto", "bf16"):
        raise UserError(
            f"`weights=bf16` is not possible with `precision={given.precision}`",
            hint="leave out `precision`, or `weights`",
        )
    settings = {**dict(given), "seed": seed}
    if given.lr is None:
        settings["lr"] = method.options["lr"] * (TINY_LR_SCALE if embedded else 1.0)
    if given.steps is None and given.epochs is None:
        settings |= {"steps": TINY_STEPS} if embedded else {"epochs": DEFAULT_EPOCHS}
    settings["micro_batch_size"] = min(given.micro_batch_size or given.batch_size, given.batch_size)
    return TrainingSettings(**settings)


def on_machine(settings: TrainingSettings, environment: Mapping[str, Any]) -> TrainingSettings:
    """The settings with the precision of the matrix products that fits the weights and the machine, unless one was given.

    Args:
        settings: As resolved.
        environment: The result of an `EnvironmentJob`.
    """
    if settings.precision != "auto":
        return settings
    if settings.weights == "bf16":
        precision = "bf16"
    else:
        precision = (
            "fp16" if environment["dtype"] == "float16" else "bf16" if environment["mixed_precision"] else "fp32"
        )
    return settings.model_copy(update={"precision": precision})


def check_given(spec: VariantSpec, given: TrainSettings, stages: Collection[str]) -> None:
    """Refuses settings that have no effect, or that the method does not support.

    Args:
        spec: The variant.
        given: Its settings.
        stages: The stages of all variants: a shared setting must have an effect in one of them.

    Raises:
        UserError: The first such setting.
    """
    assert spec.entry is not None
    for name in (name for name in TrainSettings.model_fields if name in given.model_fields_set):
        meant = stages_of(name)
        hint = "use it with " + ", ".join(f"`stage={stage}`" for stage in meant)
        if name in spec.training and given.stage not in meant:
            raise UserError(f"variant `{spec.name}`: `{name}` has no effect in the stage `{given.stage}`", hint)
        if not {*meant} & {*stages}:
            raise UserError(f"`{name}` has no effect in any of the stages: {', '.join(sorted(stages))}", hint)
    if given.min_row_tokens and given.max_row_tokens and given.min_row_tokens > given.max_row_tokens:
        raise UserError(
            f"variant `{spec.name}`: `min_row_tokens={given.min_row_tokens}` is above"
            f" `max_row_tokens={given.max_row_tokens}`: no row fits",
            hint="lower the first, or raise the second",
        )
    if given.turns == "all" and STAGES[given.stage].rows == "marked":
        raise UserError(
            f"variant `{spec.name}`: a row of `stage={given.stage}` has one mark, for its last answer",
            hint="leave out `turns=all`, and write a row for each answer",
        )
    if given.packing and not STAGES[given.stage].packs:
        raise UserError(
            f"variant `{spec.name}`: rows of the stage `{given.stage}` cannot be packed", hint="leave out `packing`"
        )
    if given.checkpointing and not spec.entry.options["checkpointing"]:
        raise UserError(
            f"variant `{spec.name}`: `{spec.entry.name}` does not support activation checkpointing",
            hint="leave out `checkpointing`, or train with a smaller `micro_batch_size`",
        )
    optimizer_name(given.optimizer)
    check_rates(given.schedule, given.rates)
