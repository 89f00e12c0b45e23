"""The tasks of a run, loaded, and how each variant is prompted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.api import Metric, Task
from harness.config.config import Config
from harness.config.variants import VariantSpec
from harness.data.digests import file_sha256
from harness.data.model_files import Snapshot
from harness.data.sources import FORMATS, provenance, source
from harness.errors import UserError, did_you_mean
from harness.prepare.thinking import thinking_template, thought_budget
from harness.prompts.chat import ChatTemplate
from harness.prompts.render import Prompting
from harness.registry.find import find, source_digest
from harness.registry.load import load_task, metric_digest, task_metrics
from harness.registry.scan import Entry
from harness.registry.task_spec import TaskSpec
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
    digest: str
    """Digest of the task's file, parameters and rows, which decide its samples."""
    data: str | None = None
    """Origin of its rows, and the digest of their content."""


def scored_task(spec: TaskSpec) -> ScoredTask:
    """Loads a task.

    Raises:
        UserError: The task does not exist, its file fails, or its rows cannot be found.
    """
    entry = find("task", spec.source)
    task = load_task(entry, spec.parameters, spec.groups)
    metrics = task_metrics(task, entry.path.parent)
    parameters = {parameter.name: parameter.default for parameter in entry.parameters} | spec.parameters
    digest = key(
        file=source_digest(entry),
        parameters=spec.parameters,
        files=_file_digests(parameters),
        data=source(task.data).digest(),
        metrics=[metric_digest(each, entry.path.parent) for each in task.metrics if isinstance(each, str)],
    )
    return ScoredTask(spec.text, spec, entry, task, metrics, digest, provenance(task.data))


def _file_digests(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Digest of every file and folder among the parameters of a task, such as a reward model, which may be overwritten."""
    return {
        name: Snapshot(name, path).digest if path.is_dir() else file_sha256(path)
        for name, value in parameters.items()
        if (path := _path(value)) is not None
    }


def _path(value: Any) -> Path | None:
    try:
        return Path(value) if isinstance(value, str) and value and Path(value).exists() else None
    except (OSError, ValueError):  # a text too long for a path, or with a null byte
        return None


def unscored_task(spec: TaskSpec) -> ScoredTask:
    """Loads a task that only gives training data.

    Raises:
        UserError: See `scored_task`.
    """
    try:
        entry = find("task", spec.source)
    except UserError as error:
        raise UserError(
            f"training data `{spec.text}`: {error.message}", hint=f"{error.hint}; a file ends in {' '.join(FORMATS)}"
        ) from error
    task = load_task(entry, {})
    return ScoredTask(spec.text, spec, entry, task, task_metrics(task, entry.path.parent), source_digest(entry))


def refuse_code(config: Config, tasks: Sequence[ScoredTask]) -> None:
    """Checks that tasks which run generated code are allowed to.

    Raises:
        UserError: Such a task is there without `--confirm-run-unsafe-code`.
    """
    running = [task.name for task in tasks if task.task.executes_code]
    if running and not config.confirm_run_unsafe_code:
        raise UserError(
            f"task `{running[0]}` runs code that the model generates",
            hint="to allow this on this machine, add `--confirm-run-unsafe-code`",
        )


class RunPrompting(Protocol):
    """Settings of a run that decide how its variants are prompted."""

    @property
    def model(self) -> str: ...
    @property
    def apply_chat_template(self) -> bool: ...
    @property
    def num_fewshot(self) -> int | None: ...
    @property
    def shared_shots(self) -> bool: ...


def prompting_of(config: RunPrompting, spec: VariantSpec, template: ChatTemplate | None) -> Prompting:
    """How a variant is prompted: its own keys override the settings of the run.

    Args:
        config: The run.
        spec: The variant.
        template: The model's chat template; None: it has none.

    Raises:
        UserError: The variant asks for an unknown template, or for a chat template that the model does not have, or for
            thoughts that the template does not know.
    """
    template_name = spec.prompting.get("template")
    if template_name not in (None, *_TEMPLATES):
        raise UserError(
            f"variant `{spec.name}`: unknown template `{template_name}`",
            hint=did_you_mean(str(template_name), _TEMPLATES),
        )
    chat = config.apply_chat_template if template_name is None else _TEMPLATES[template_name]
    if chat and template is None:
        raise UserError(
            f"`{config.model}` has no chat template", hint="leave out `--apply-chat-template`, or use an instruct model"
        )
    think = spec.prompting.get("think")
    if think is not None and not chat:
        raise UserError(
            f"variant `{spec.name}`: `think={think}` needs the model's chat template",
            hint="add `--apply-chat-template` or `template=chat`",
        )
    if template is not None:
        template = thinking_template(f"variant `{spec.name}`", template, think)
    return Prompting(
        spec.prompting.get("shots", config.num_fewshot),
        spec.prompting.get("system"),
        template if chat else None,
        think,
        thought_budget(think),
        config.shared_shots,
    )
