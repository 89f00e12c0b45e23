"""Training data: examples, counts of duplicates, and held-out rows.

Rows are equal if their texts are, after Unicode normalisation (NFC) and with each run of white space replaced by one blank.
Equal rows stay on one side of every split, so that no held-out row is trained on.

Example:
    >>> data = TrainData("x", (), (Example("a", " b"), Example("a ", "b"), Example("c", " d")))
    >>> [len(part.examples) for part in held_out(data, 0.34)]
    [2, 1]
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from harness.config.mixes import parse_mix, weighted
from harness.data.saved import is_saved
from harness.data.sources import FORMATS, source
from harness.errors import UserError
from harness.jobs import Example
from harness.prepare.tasks import ScoredTask, unscored_task
from harness.prompts.chat import ChatTemplate
from harness.prompts.render import Prompting, render_examples
from harness.prompts.row_notes import RowNotes
from harness.prompts.training_rows import read_rows
from harness.registry.find import find
from harness.registry.task_spec import parse_task
from harness.settings import TrainSettings
from harness.storage import key


@dataclass(frozen=True)
class TrainData:
    """Rows that variants train on or are evaluated on."""

    name: str
    tasks: tuple[str, ...]
    """Names of the scored tasks whose train splits are part of it."""
    examples: tuple[Example, ...]
    duplicates: int = 0
    """Rows that repeat an earlier row, counted before the weights of a mix."""
    notes: tuple[str, ...] = ()
    """Notes for the report."""

    @cached_property
    def digest(self) -> str:
        """Digest of the examples, independent of the file, columns, prompts or template that they were made from."""
        return key(examples=[list(vars(each).values()) for each in self.examples])


def identity(example: Example) -> tuple[str, ...]:
    """The text of a row, normalised: rows with equal identities are duplicates."""
    texts = (example.prompt, example.completion, example.rejected or "")
    return tuple(" ".join(unicodedata.normalize("NFC", text).split()) for text in texts)


def without_duplicates(examples: Iterable[Example], seen: set[tuple[str, ...]]) -> list[Example]:
    """The first of each group of equal examples, unless it is in `seen`; adds them to `seen`."""
    kept = []
    for example in examples:
        own = identity(example)
        if own not in seen:
            seen.add(own)
            kept.append(example)
    return kept


def held_out(data: TrainData, share: float) -> tuple[TrainData, TrainData]:
    """Splits off a share of the rows, drawn with a fixed seed.

    Returns:
        The data without those rows, and those rows.

    Raises:
        UserError: One of the two would be empty.
    """
    wanted = round(share * len(data.examples)) if 0 < share < 1 else 0
    chosen: set[int] = set()
    for group in _groups(data.examples):
        if len(chosen) + len(group) <= wanted:
            chosen.update(group)
    if not 0 < len(chosen) < len(data.examples):
        raise UserError(
            f"`validation={share:g}` of {len(data.examples)} rows leaves no rows to train on, or none to hold out",
            hint="give a share between 0 and 1, such as 0.1, or the name of other data",
        )
    return _split(data, chosen)


def fold(data: TrainData, number: int, of: int) -> tuple[TrainData, TrainData]:
    """Splits off one of `of` folds of nearly equal size, for cross-validation.

    Args:
        data: All rows.
        number: The fold that is held out, from 0.
        of: Number of folds; every row is in exactly one of them.

    Returns:
        The data without the fold, and the fold.

    Raises:
        UserError: There are fewer than two different rows for each fold.
    """
    groups = _groups(data.examples)
    if len(groups) < 2 * of:
        raise UserError(
            f"{len(groups)} different training rows are too few for `--folds {of}`",
            hint="use fewer folds, or more data",
        )
    folds: list[list[int]] = [[] for _ in range(of)]
    for group in groups:
        min(folds, key=len).extend(group)
    return _split(data, set(folds[number]))


def separate(data: TrainData, validation: TrainData, *, dedupe: bool) -> TrainData:
    """The training data, given validation data of another name: `dedupe` removes rows that both have, else a note counts them.

    Raises:
        UserError: No training row would be left.
    """
    held = {identity(example) for example in validation.examples}
    kept = tuple(example for example in data.examples if identity(example) not in held)
    shared = len(data.examples) - len(kept)
    if not shared:
        return data
    if not dedupe:
        note = f"{shared} training rows of {data.name} are in the validation data {validation.name} too"
        return replace(data, notes=(*data.notes, note))
    if not kept:
        raise UserError(f"every training row of {data.name} is in the validation data {validation.name}")
    note = f"{shared} training rows of {data.name} were left out: they are in the validation data {validation.name}"
    return replace(data, examples=kept, notes=(*data.notes, note))


def _groups(examples: Sequence[Example]) -> list[list[int]]:
    """Groups of the indices of equal rows, in an order drawn with a fixed seed."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(identity(example), []).append(index)
    found = list(groups.values())
    random.Random(0).shuffle(found)
    return found


def _split(data: TrainData, chosen: set[int]) -> tuple[TrainData, TrainData]:
    """The data without the chosen rows, and the chosen rows."""
    rest: list[Example] = []
    split_off: list[Example] = []
    for index, example in enumerate(data.examples):
        (split_off if index in chosen else rest).append(example)
    return replace(data, examples=tuple(rest)), replace(data, examples=tuple(split_off), notes=())


def train_data(
    name: str,
    tasks: Sequence[ScoredTask],
    given: TrainSettings,
    prompting: Prompting,
    template: ChatTemplate | None,
) -> TrainData:
    """Reads training or validation data: a task, a file, a `hub:` address, or a mix of them; '' means the tasks' own.

    Args:
        name: As typed.
        tasks: The tasks of the run.
        given: Settings of the variant: columns, samples, stage, turns, dedupe.
        prompting: How the variant is prompted, and so trained: its system prompt, and its chat template if it has one.
        template: The chat template for rows of messages: the model's, also for variants without it in other prompts.

    Raises:
        UserError: There is nothing to train on, or it cannot be read.
    """
    parts = parse_mix(name)
    files = {part.source: source(part.source).load() for part in parts if _is_file(part.source)}
    is_data = name == (given.data or "")  # `columns` belong to `data`; validation data has columns of its own
    if given.columns and not files and is_data:
        raise UserError("`--train-columns` needs a file or `hub:`, not a task", hint="leave it out")
    columns = given.columns or {}
    fitting = {file for file, rows in files.items() if rows and set(columns.values()) <= rows[0].keys()}
    used: list[ScoredTask] = []
    examples: list[Example] = []
    seen: set[tuple[str, ...]] = set()
    notes: list[str] = []
    rows = duplicates = 0
    for part in parts:
        if part.source in files:
            read = read_rows(
                part.source,
                files[part.source],
                # in a mix, files that have our columns need no mapping
                columns=columns if part.source in fitting or (is_data and not fitting) else None,
                template=template,
                chat=prompting.template is not None,
                system=prompting.system,
                stage=given.stage,
                every_turn=given.turns == "all",
            )
            found = read.examples
            notes += read.notes
        else:
            own = _train_tasks(part.source, tasks)
            distinct = {(task.spec.source, key(parameters=task.spec.parameters)): task for task in own}.values()
            plain = replace(prompting, shots=None)
            found = []
            for task in distinct:
                counts = RowNotes()
                found += render_examples(task.name, task.task, plain, counts)
                notes += counts.lines(task.name, len(found))
            used += own
        kept = without_duplicates(found, seen)
        rows, duplicates = rows + len(found), duplicates + len(found) - len(kept)
        examples += weighted(kept if given.dedupe else found, part.weight)
    if not examples:
        raise UserError(f"the weights of `{name}` leave none of its {rows} rows", hint="raise them")
    if given.samples is not None and given.samples < len(examples):
        examples = random.Random(0).sample(examples, given.samples)
    names = tuple(dict.fromkeys(task.name for task in used))
    data = TrainData(name or "+".join(names), names, tuple(examples), duplicates)
    return replace(data, notes=(*notes, *_duplicates(data, rows, given), *_empty_answers(data, given)))


def _duplicates(data: TrainData, rows: int, given: TrainSettings) -> list[str]:
    """A note that counts duplicates, if there are any."""
    if not data.duplicates:
        return []
    found = f"{data.duplicates} of {rows} training rows of {data.name} repeat earlier rows"
    return [f"{found} and were left out" if given.dedupe else f"{found}; `dedupe=true` leaves them out"]


def _empty_answers(data: TrainData, given: TrainSettings) -> list[str]:
    """A note that counts empty answers, if there are any.

    Raises:
        UserError: All answers are empty.
    """
    empty = sum(not example.completion.strip() for example in data.examples) if given.stage == "sft" else 0
    if not empty:
        return []
    if empty == len(data.examples):
        raise UserError(
            f"every answer of the training data `{data.name}` is empty: the model would only learn to end its text",
            hint="check the column of the answers: `--train-columns prompt=COLUMN,completion=COLUMN`",
        )
    return [
        f"{empty} of {len(data.examples)} training rows of {data.name} have an empty answer: they teach the model to"
        " end its text at once"
    ]


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
