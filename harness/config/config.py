"""The configuration of a comparison, typed and frozen: `harness.config.parse.configure` makes it.

Example:
    >>> Config(limit="50").limit
    50
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf

from harness.config.gates import Flag, Gate, parse_gate
from harness.config.points import checked
from harness.config.variants import VariantSpec
from harness.errors import UserError, did_you_mean
from harness.prompts.chat import RESERVED_VARIABLES
from harness.registry.task_spec import TaskSpec, parse_task
from harness.registry.values import read
from harness.report.price import price_text, read_price
from harness.results import Price
from harness.settings import Count, TrainSettings, mapped
from harness.tiny.world import TASKS as MINI_TASKS

TRACKERS = ("tensorboard", "wandb", "mlflow")
"""Experiment trackers; each needs the package of the same name."""


_MOST_TRAININGS = 1000
"""Training runs that one setting may ask for; each is a row of the table, made before anything runs."""

TemplateOption = bool | int | Annotated[float, Field(allow_inf_nan=False)] | str
"""Value of a variable of the chat template."""


def read_template_options(options: Any) -> Any:
    """Variables of the chat template, typed: true, false, numbers and texts.

    Raises:
        UserError: Something else sets one of them, or it has another type.
    """
    return (
        {name: _template_option(name, value) for name, value in options.items()}
        if isinstance(options, dict)
        else options
    )


def _template_option(name: str, value: Any) -> Any:
    if name == "enable_thinking":
        raise UserError(
            f"`--template-option {name}`: a variant decides it",
            hint="write `think=on` or `think=off` in the variant, such as `base:think=off`",
        )
    if name in RESERVED_VARIABLES:
        raise UserError(f"`--template-option {name}`: prompts and training data decide `{name}`", hint="leave it out")
    try:
        return read(value, "bool | int | float | str")
    except ValueError as error:
        raise UserError(f"`--template-option {name}`: {error}") from error


def listed(value: Any) -> Any:
    """`a,b` as a list."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def known_trackers(names: tuple[str, ...]) -> tuple[str, ...]:
    """Checks that every name is a tracker whose package is installed, and returns the names.

    Raises:
        UserError: A tracker is unknown or not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"`--report-to {name}`: unknown tracker", hint=did_you_mean(name, TRACKERS))
        if find_spec(name) is None:
            raise UserError(f"`--report-to {name}` needs the package `{name}`", hint=f"pip install {name}")
    return names


def _known_price(value: Any) -> Any:
    is_price = isinstance(value, str | int | float) and not isinstance(value, bool)
    return price_text(read_price(value)) if is_price else value


def _without_seed(train: TrainSettings) -> TrainSettings:
    if "seed" in train.model_fields_set:
        raise ValueError(
            "`seed` does not belong to the settings of training: give it as `--seed`, or as a key of a variant"
        )
    return train


class Config(BaseModel):
    """A comparison, with every setting resolved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, Field(min_length=1)] = "tiny"
    tokenizer: Annotated[str, Field(min_length=1)] | None = None
    """Folder or Hub id of the tokenizer of a served model; None: prompts are sent as text or messages."""
    tasks: Annotated[tuple[str, ...], BeforeValidator(listed)] = MINI_TASKS
    """As typed; a file with several tasks is written out as one `FILE@NAME` for each."""
    variants: tuple[InstanceOf[VariantSpec], ...] = ()
    """Trained variants are followed by their replicas: `NAME.seed1`, `NAME.seed2` … for `seeds` above 1, `NAME.fold1` … for
    `folds`."""
    task_parameters: Annotated[dict[str, Any], BeforeValidator(mapped)] = {}
    """Parameters of tasks; each is passed to every task that declares it."""
    train: Annotated[TrainSettings, AfterValidator(_without_seed)] = TrainSettings()
    limit: Count | None = None
    """Number of samples for each task, spread over its groups; None: all."""
    until_decided: bool = False
    """Whether scoring stops where a difference from the baseline is decided."""
    smallest: Annotated[str, BeforeValidator(checked)] | None = None
    """The smallest difference that matters, such as `5pts`; with `until_decided`, smaller ones are decided, too."""
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Solved examples before each prompt; None: the task's own number."""
    shared_shots: bool = False
    """Whether all samples of a task, or of a group, have the same solved examples, instead of drawn ones."""
    batch_size: Count | None = None
    """Samples that pass through the model at once; changes no score."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    seeds: Annotated[int, Field(gt=0, le=_MOST_TRAININGS)] = 1
    """Training runs of each trained variant, with the seeds `seed`, `seed` + 1, …; each is one row of the table."""
    tune_lr: Annotated[int, Field(ge=2, le=_MOST_TRAININGS)] | None = None
    """Learning rates to try for each training run without a given one; the lowest loss on held-out rows wins."""
    folds: Annotated[int, Field(ge=2, le=_MOST_TRAININGS)] | None = None
    """Folds of a cross-validation: each trained variant has one training run per fold, which holds that fold out."""
    numerics: Literal["fp32", "lm-eval"] = "fp32"
    engine: Literal["auto", "plain"] = "auto"
    writer: Literal["auto", "slots", "vllm"] = "auto"
    """Who generates texts: our own engine (`slots`), vLLM, or vLLM where it is installed and saves more than its start costs."""
    apply_chat_template: bool = False
    template_options: Annotated[dict[str, TemplateOption], BeforeValidator(read_template_options)] = {}
    """Variables of the chat template."""
    allow_cut: bool = False
    """Whether more than 5 % of a task's prompts may be cut to fit the model's context."""
    no_timing: bool = False
    """Whether variants are scored and not timed."""
    time_budget: Annotated[float, Field(gt=0)] | None = None
    """Seconds for timing all variants; None: a tenth of the run."""
    price_per_hour: Annotated[str | None, BeforeValidator(_known_price)] = None
    """Price of the machine, such as `2.5 EUR`: costs are shown in money as well."""
    trust_remote_code: bool = False
    confirm_run_unsafe_code: bool = False
    baseline: str | None = None
    """Name of the variant that the others are compared with; None: the first."""
    report_to: Annotated[tuple[str, ...], BeforeValidator(listed), AfterValidator(known_trackers)] = ()
    """Trackers that receive the figures of every training step: `tensorboard`, `wandb`, `mlflow`."""
    allow_code: tuple[Path, ...] = ()
    """Python files that adapters and `compare.yaml` may name; the files of the given variants and tasks need no entry."""
    output_dir: Path = Path("runs")
    fail_if: Annotated[tuple[str, ...], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)] = ()
    fail_unless: Annotated[tuple[str, ...], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)] = ()

    @functools.cached_property
    def task_specs(self) -> tuple[TaskSpec, ...]:
        """The tasks, parsed once, each with the `task_parameters` that it declares, typed."""
        return tuple(parse_task(text, self.task_parameters) for text in self.tasks)

    @property
    def price(self) -> Price | None:
        """`price_per_hour`, parsed."""
        return None if self.price_per_hour is None else read_price(self.price_per_hour)

    @property
    def gates(self) -> tuple[Gate, ...]:
        """`fail_if` and `fail_unless`, parsed."""
        names = [variant.name for variant in self.variants]
        return tuple(parse_gate(text, names, self.tasks, flag) for flag, text in self.gate_texts)

    @property
    def gate_texts(self) -> tuple[tuple[Flag, str], ...]:
        """The gates as typed, each with its flag."""
        given: dict[Flag, tuple[str, ...]] = {"--fail-if": self.fail_if, "--fail-unless": self.fail_unless}
        return tuple((flag, text) for flag, texts in given.items() for text in texts)

    @property
    def sha256(self) -> str:
        """Digest of the work: independent of the output folder, trackers, gates, what is allowed, the price, and how long is timed.

        `allow_code` is not in it either: it is not in the dictionary.
        """
        ignored = (
            "output_dir",
            "report_to",
            "fail_if",
            "fail_unless",
            "allow_cut",
            "confirm_run_unsafe_code",
            "no_timing",
            "time_budget",
            "price_per_hour",
        )
        content = {key: value for key, value in self.to_dict().items() if key not in ignored}
        if content["writer"] == "auto":
            del content["writer"]  # so that earlier runs are continued
        content["variants"] = [[variant.name, variant.canonical] for variant in self.variants]
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @property
    def method_files(self) -> tuple[Path, ...]:
        """Python files that may run as the method of a given adapter: `allow_code`, and the files of this run's own methods."""
        own = [variant.entry.path for variant in self.variants if variant.entry and variant.entry.module is None]
        return tuple(dict.fromkeys([*self.allow_code, *own]))

    def one_training(self) -> Config:
        """The configuration of the first variant alone: one training run, on all of its rows."""
        once = {"seeds": 1, "folds": None, "variants": (replace(self.variants[0], fold=None),)}
        return self.model_copy(update=once)

    def to_dict(self) -> dict[str, Any]:
        """The resolved configuration as plain data, in the schema of `compare.yaml`, without fields that are None."""
        content = {
            key: value
            for key, value in self.model_dump(mode="json", exclude={"variants", "allow_code"}).items()
            if value not in (None, {}, [])
        }
        content["train"] = self.train.model_dump(mode="json", exclude_unset=True)
        content["variants"] = {variant.name: _entry(variant) for variant in self.variants if variant.replica == 0}
        return {key: content[key] for key in type(self).model_fields if content.get(key) not in (None, {})}

    def to_yaml(self) -> str:
        """The resolved configuration as a `compare.yaml`, which loads back to an equal configuration."""
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=120)


def _entry(variant: VariantSpec) -> dict[str, Any]:
    """A variant as its YAML entry."""
    keys = {**variant.hyperparameters, **variant.training, **variant.prompting}
    source = variant.full_source + variant.transforms
    if variant.kind == "base" and source == variant.name:
        return keys
    return {"adapter" if variant.kind in ("adapter", "endpoint") else "method": source, **keys}
