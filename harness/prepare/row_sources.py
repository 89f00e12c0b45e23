"""Sources of training rows: files, data sets of the Hub, and train splits of tasks, each with the way its rows are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from harness.api import Row
from harness.config.mixes import parse_mix
from harness.data.saved import is_saved
from harness.data.sources import FORMATS, source
from harness.errors import UserError
from harness.prepare.tasks import ScoredTask, unscored_task
from harness.prompts.chat import ChatTemplate
from harness.prompts.render import Prompting, render_rows, train_rows
from harness.prompts.row_notes import RowNotes
from harness.prompts.training_rows import TrainingRows, is_conversational, read_rows
from harness.registry.find import find
from harness.registry.task_spec import parse_task
from harness.settings import TrainSettings
from harness.storage import key


@dataclass(frozen=True)
class RowSource:
    """The rows of one file, data set or task."""

    name: str
    rows: Sequence[Row]
    read: Callable[[Sequence[Row]], TrainingRows]
    """Converts these or other rows of the same kind to examples."""


@dataclass(frozen=True)
class WeightedSources:
    """One part of a mix; the tasks' own train splits, if no data are named, are one part together."""

    weight: float
    sources: tuple[RowSource, ...]
    tasks: tuple[str, ...] = ()
    """Names of the scored tasks whose train split it is; tasks that differ only in their groups share one source."""


def row_sources(
    name: str,
    tasks: Sequence[ScoredTask],
    given: TrainSettings,
    prompting: Prompting,
    template: ChatTemplate | None,
) -> list[WeightedSources]:
    """Loads the rows of data as typed; for the arguments see `harness.prepare.train_data.train_data`.

    Raises:
        UserError: There is nothing to train on, or it cannot be loaded.
    """
    parts = parse_mix(name)
    files = {part.source: source(part.source).load() for part in parts if _is_file(part.source)}
    is_data = name == (given.data or "")  # `columns` belong to `data`; validation data has columns of its own
    if given.columns and not files and is_data:
        raise UserError("`--train-columns` needs a file or `hub:`, not a task", hint="leave it out")
    columns = given.columns or {}
    fitting = {file for file, rows in files.items() if rows and set(columns.values()) <= rows[0].keys()}
    plain = replace(prompting, shots=None, shared_shots=False)
    found = []
    for part in parts:
        if part.source in files:
            read = partial(
                read_rows,
                part.source,
                # in a mix, files that have our columns need no mapping
                columns=columns if part.source in fitting or (is_data and not fitting) else None,
                template=template,
                chat=prompting.template is not None,
                system=prompting.system,
                stage=given.stage,
                every_turn=given.turns == "all",
            )
            if given.augment is not None:  # some of the rows are read again, in the same form
                read = partial(read, turned=is_conversational(files[part.source]))
            found.append(WeightedSources(part.weight, (RowSource(part.source, files[part.source], read),)))
        else:
            own = _train_tasks(part.source, tasks)
            distinct = {(task.spec.source, key(parameters=task.spec.parameters)): task for task in own}.values()
            sources = tuple(_of_task(task, plain) for task in distinct)
            found.append(WeightedSources(part.weight, sources, tuple(task.name for task in own)))
    return found


def _of_task(task: ScoredTask, prompting: Prompting) -> RowSource:
    def read(rows: Sequence[Row]) -> TrainingRows:
        notes = RowNotes()
        examples = render_rows(task.name, task.task, rows, prompting, notes)
        return TrainingRows(examples, notes.lines(task.name, len(rows)), list(range(len(examples))))

    return RowSource(task.name, train_rows(task.name, task.task), read)


def _is_file(name: str) -> bool:
    """Whether data comes from files or from the Hub rather than from a task."""
    if name.startswith("hub:") or Path(name).suffix in FORMATS or ("/" in name and Path(name).is_dir()):
        return True
    return bool(name) and is_saved(Path(name)) and not _is_task(name)


def _is_task(name: str) -> bool:
    try:
        find("task", parse_task(name).source)
    except UserError:
        return False
    return True


def _train_tasks(name: str, tasks: Sequence[ScoredTask]) -> list[ScoredTask]:
    """The tasks whose train split a name means: of the scored tasks, all that share it."""
    if not name:
        found = [task for task in tasks if task.task.train is not None]
        if not found:
            raise UserError(
                "there is nothing to train on: none of the tasks has a train split",
                hint="name training data: `--train gsm8k`, `--train data.jsonl` or `--train hub:OWNER/NAME`",
            )
        return found
    spec = parse_task(name)
    if spec.groups:
        raise UserError(f"`{name}`: a train split has no groups", hint=f"write `{spec.source}`")
    return [task for task in tasks if task.spec.source == spec.source] or [unscored_task(spec)]
