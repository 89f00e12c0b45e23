"""The tasks of a run as it scores them, and the prompts that a variant asks them in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.api import Metric, Task
from harness.config.parse import Config
from harness.config.variants import VariantSpec
from harness.data.model_files import Snapshot
from harness.data.sources import FORMATS, provenance, source
from harness.errors import UserError, did_you_mean
from harness.prompts.chat import ChatTemplate
from harness.prompts.render import Prompting
from harness.registry.find import find, source_digest
from harness.registry.load import load_task, task_metrics
from harness.registry.scan import Entry
from harness.registry.task_spec import TaskSpec, parse_task
from harness.storage import key

_TEMPLATES = {"chat": True, "none": False}
"""Values of a variant's `template`: whether its prompts go through the model's chat template."""


@dataclass(frozen=True)
class ScoredTask:
    """A task of this run."""

    name: str
    """The spec as typed."""
    spec: TaskSpec
    entry: Entry
    task: Task
    metrics: tuple[Metric, ...]
    """Those that the task names, found."""
    digest: str
    """Of the task's file and rows: what decides its samples."""
    data: str | None = None
    """Where its rows come from and which content they had."""


def scored_task(config: Config, text: str) -> ScoredTask:
    """A task as typed, with those of the run's task parameters that it has."""
    spec = parse_task(text, config.task_parameters)
    entry = find("task", spec.source)
    task = load_task(entry, spec.parameters)
    digest = key(
        file=source_digest(entry),
        parameters=spec.parameters,
        folders=_folder_digests(spec.parameters),
        data=source(task.data).digest(),
    )
    metrics = task_metrics(task, entry.path.parent)
    return ScoredTask(text, spec, entry, task, metrics, digest, provenance(task.data))


def _folder_digests(parameters: Mapping[str, Any]) -> dict[str, str]:
    """What folders that a task is given hold, such as a reward model's, which may be trained again in place."""
    return {name: Snapshot(name, Path(value)).digest for name, value in parameters.items() if _is_folder(value)}


def _is_folder(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(value) and Path(value).is_dir()
    except OSError:  # a text too long for a path
        return False


def unscored_task(name: str) -> ScoredTask:
    """A task that is only trained on."""
    try:
        entry = find("task", name)
    except UserError as error:
        raise UserError(
            f"training data `{name}`: {error.message}", hint=f"{error.hint}; a file ends in {' '.join(FORMATS)}"
        ) from error
    task = load_task(entry, {})
    return ScoredTask(
        name, TaskSpec(name, name), entry, task, task_metrics(task, entry.path.parent), source_digest(entry)
    )


def refuse_code(config: Config, tasks: Sequence[ScoredTask]) -> None:
    """Raises a `UserError` where a task runs what a model wrote and nobody has allowed that."""
    running = [task.name for task in tasks if task.task.executes_code]
    if running and not config.confirm_run_unsafe_code:
        raise UserError(
            f"task `{running[0]}` runs code that the model wrote",
            hint="if that is what you want on this machine, add `--confirm-run-unsafe-code`",
        )


def prompting_of(config: Config, spec: VariantSpec, template: ChatTemplate | None) -> Prompting:
    """How a variant is prompted: its own keys over what is said for all; `template` is the model's."""
    asked = spec.prompting.get("template")
    if asked not in (None, *_TEMPLATES):
        raise UserError(f"variant `{spec.name}`: unknown template `{asked}`", hint=did_you_mean(str(asked), _TEMPLATES))
    chat = config.apply_chat_template if asked is None else _TEMPLATES[asked]
    if chat and template is None:
        raise UserError(
            f"`{config.model}` has no chat template", hint="drop `--apply-chat-template`, or use an instruct model"
        )
    return Prompting(
        spec.prompting.get("shots", config.num_fewshot), spec.prompting.get("system"), template if chat else None
    )
