"""The typed settings of a comparison, frozen: what `spec.configure` makes and everything else reads.

Example:
    >>> Config(limit="50").limit
    50
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf

from harness.config.gates import Gate, parse_gate
from harness.config.variants import VariantSpec
from harness.registry.task_spec import TaskSpec, parse_task
from harness.settings import Count, TrainSettings, known_trackers, mapped

MINI_TASKS = (
    "mini_mmlu",
    "mini_gsm8k",
    "mini_code",
    "mini_ceval",
    "mini_translation",
    "mini_summary",
    "mini_text",
)
"""The tasks of the embedded model."""


def listed(value: Any) -> Any:
    """`a,b` as a list."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Config(BaseModel):
    """A comparison, resolved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, Field(min_length=1)] = "tiny"
    tasks: Annotated[tuple[str, ...], BeforeValidator(listed)] = MINI_TASKS
    """As typed; a file that holds several tasks is written out as `FILE@NAME` each."""
    variants: tuple[InstanceOf[VariantSpec], ...] = ()
    """With `seeds` above 1, trained variants are followed by their replicas `NAME.seed1`, `NAME.seed2` …; with `folds`, by
    `NAME.fold1` …"""
    task_parameters: Annotated[dict[str, Any], BeforeValidator(mapped)] = {}
    """Given to every task that has such a parameter."""
    train: TrainSettings = TrainSettings()
    limit: Count | None = None
    """Samples a task, spread over its groups."""
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Solved examples before each prompt; None: what the task says."""
    batch_size: Count | None = None
    """Samples that go through the model at once; changes no score."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    seeds: Count = 1
    """Trainings of each trained variant, with seeds `seed`, `seed` + 1, …, each a row of its own."""
    tune_lr: Annotated[int, Field(ge=2)] | None = None
    """Rates tried for each training whose rate is not given, judged by the loss of held-out rows."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Parts of the training data: each trained variant is trained without each of them in turn, which is then held out."""
    numerics: Literal["fp32", "lm-eval"] = "fp32"
    engine: Literal["auto", "plain"] = "auto"
    apply_chat_template: bool = False
    trust_remote_code: bool = False
    confirm_run_unsafe_code: bool = False
    baseline: str | None = None
    """Name of the variant that others are compared with; None: the first."""
    report_to: Annotated[tuple[str, ...], BeforeValidator(listed), AfterValidator(known_trackers)] = ()
    """Trackers that are told of every training step: `tensorboard`, `wandb`, `mlflow`."""
    output_dir: Path = Path("runs")
    fail_if: Annotated[tuple[str, ...], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)] = ()

    @property
    def task_specs(self) -> tuple[TaskSpec, ...]:
        """The tasks parsed, each with those of `task_parameters` that it has, typed."""
        return tuple(parse_task(text, self.task_parameters) for text in self.tasks)

    @property
    def gates(self) -> tuple[Gate, ...]:
        """`fail_if`, parsed."""
        names = [variant.name for variant in self.variants]
        return tuple(parse_gate(text, names, self.tasks) for text in self.fail_if)

    @property
    def sha256(self) -> str:
        """Digest of what is computed: equal for equal work, wherever it is written and whatever gates it."""
        content = {
            key: value for key, value in self.to_dict().items() if key not in ("output_dir", "report_to", "fail_if")
        }
        content["variants"] = [[variant.name, variant.canonical] for variant in self.variants]
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def one_training(self) -> Config:
        """The first variant alone, as typed: trained with one seed, on all of its rows."""
        once = {"seeds": 1, "folds": None, "variants": (replace(self.variants[0], fold=None),)}
        return self.model_copy(update=once)

    def to_dict(self) -> dict[str, Any]:
        """The resolved configuration as plain data, in the schema of `compare.yaml`, fields that are None left out."""
        content = {
            key: value
            for key, value in self.model_dump(mode="json", exclude={"variants"}).items()
            if value not in (None, {}, [])
        }
        content["train"] = {key: value for key, value in content["train"].items() if value is not None}
        content["variants"] = {variant.name: _entry(variant) for variant in self.variants if variant.replica == 0}
        return {key: content[key] for key in type(self).model_fields if content.get(key) not in (None, {})}

    def to_yaml(self) -> str:
        """The resolved configuration as a `compare.yaml` that loads back to an equal one."""
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=120)


def _entry(variant: VariantSpec) -> dict[str, Any]:
    """A variant as its YAML entry."""
    keys = {**variant.hyperparameters, **variant.training, **variant.prompting}
    source = variant.full_source + variant.transforms
    if variant.kind == "base" and source == variant.name:
        return keys
    return {"adapter" if variant.kind == "adapter" else "method": source, **keys}
