"""What variants train on: examples, how many of them are copies, and which are held out.

Rows are equal where their texts are, after Unicode normalisation (NFC) and with runs of white space taken as one blank. Equal
rows stay on one side of every split, so that nothing that is held out was trained on.

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
from harness.prompts.training_rows import read_rows
from harness.registry.find import find
from harness.registry.task_spec import parse_task
from harness.settings import TrainSettings
from harness.storage import key


@dataclass(frozen=True)
class TrainData:
    """What variants train on."""

    name: str
    tasks: tuple[str, ...]
    """Names of the scored tasks whose train split it is, or is part of it."""
    examples: tuple[Example, ...]
    duplicates: int = 0
    """Rows that stood in the data already, counted before the weights of a mix."""
    notes: tuple[str, ...] = ()
    """What is to be known of it."""

    @cached_property
    def digest(self) -> str:
        """Of the examples: whatever file, column, prompt or template they came from."""
        return key(examples=[list(vars(each).values()) for each in self.examples])


def identity(example: Example) -> tuple[str, ...]:
    """What makes two rows the same: all of their text, however its white space is written."""
    texts = (example.prompt, example.completion, example.rejected or "")
    return tuple(" ".join(unicodedata.normalize("NFC", text).split()) for text in texts)


def without_copies(examples: Iterable[Example], seen: set[tuple[str, ...]]) -> list[Example]:
    """The examples that are not in `seen`, which they are put into, each once."""
    kept = []
    for example in examples:
        own = identity(example)
        if own not in seen:
            seen.add(own)
            kept.append(example)
    return kept


def held_out(data: TrainData, share: float) -> tuple[TrainData, TrainData]:
    """The data without a share of its rows, and those rows, drawn with a fixed seed.

    Raises:
        UserError: The share leaves one of the two empty.
    """
    wanted = round(share * len(data.examples)) if 0 < share < 1 else 0
    chosen: set[int] = set()
    for group in _groups(data.examples):
        if len(chosen) + len(group) <= wanted:
            chosen.update(group)
    if not 0 < len(chosen) < len(data.examples):
        raise UserError(
            f"`validation={share:g}` of {len(data.examples)} rows leaves nothing on one side",
            hint="a share between 0 and 1, such as 0.1, or the name of other data",
        )
    return _parted(data, chosen)


def fold(data: TrainData, number: int, of: int) -> tuple[TrainData, TrainData]:
    """The data without one of `of` parts of nearly equal size, and that part: for cross-validation.

    Args:
        data: The whole.
        number: Which part is held out, from 0.
        of: How many parts there are; each row is in one of them, whatever `number`.

    Raises:
        UserError: There are too few different rows.
    """
    groups = _groups(data.examples)
    if len(groups) < 2 * of:
        raise UserError(
            f"{len(groups)} different training rows are too few for `--folds {of}`",
            hint="use fewer folds, or more data",
        )
    parts: list[list[int]] = [[] for _ in range(of)]
    for group in groups:
        min(parts, key=len).extend(group)
    return _parted(data, set(parts[number]))


def beside(data: TrainData, validation: TrainData, *, dedupe: bool) -> TrainData:
    """The data to train on beside rows held out of it by name: with `dedupe` without those, else with a note of them."""
    held = {identity(example) for example in validation.examples}
    kept = tuple(example for example in data.examples if identity(example) not in held)
    shared = len(data.examples) - len(kept)
    if not shared:
        return data
    if not dedupe:
        note = f"{shared} training rows of {data.name} stand in the validation data {validation.name} too"
        return replace(data, notes=(*data.notes, note))
    if not kept:
        raise UserError(f"every training row of {data.name} stands in the validation data {validation.name}")
    note = f"{shared} training rows of {data.name} were left out: they stand in the validation data {validation.name}"
    return replace(data, examples=kept, notes=(*data.notes, note))


def _groups(examples: Sequence[Example]) -> list[list[int]]:
    """The places of equal rows together, in an order drawn with a fixed seed."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, example in enumerate(examples):
        groups.setdefault(identity(example), []).append(place)
    found = list(groups.values())
    random.Random(0).shuffle(found)
    return found


def _parted(data: TrainData, chosen: set[int]) -> tuple[TrainData, TrainData]:
    """The data without the chosen rows, and those."""
    parts: tuple[list[Example], list[Example]] = [], []
    for place, example in enumerate(data.examples):
        parts[place in chosen].append(example)
    return replace(data, examples=tuple(parts[0])), replace(data, examples=tuple(parts[1]), notes=())


def train_data(
    name: str,
    tasks: Sequence[ScoredTask],
    settings: TrainSettings,
    prompting: Prompting,
    template: ChatTemplate | None,
) -> TrainData:
    """Reads what `--train` names: a task, a file, a `hub:` address, or a mix of them; '' means the tasks' own.

    Args:
        name: As typed.
        tasks: The tasks of the run.
        settings: Columns, stage, turns, and whether copies of rows are left out.
        prompting: How the variant is prompted, and so trained: its system prompt, and its chat template where it has one.
        template: What message data is written in: the model's chat template, whether other prompts go through it or not.

    Raises:
        UserError: There is nothing to train on, or it cannot be read.
    """
    parts = parse_mix(name)
    files = {part.source: source(part.source).load() for part in parts if _is_file(part.source)}
    is_data = name == (settings.data or "")  # rows that are held out by name may have columns of their own
    if settings.columns and not files and is_data:
        raise UserError("`--train-columns` goes with a file or `hub:`, not with a task", hint="drop it")
    columns = settings.columns or {}
    fitting = {file for file, given in files.items() if given and set(columns.values()) <= given[0].keys()}
    chosen: list[ScoredTask] = []
    examples: list[Example] = []
    seen: set[tuple[str, ...]] = set()
    notes: list[str] = []
    rows = duplicates = 0
    for part in parts:
        if part.source in files:
            read = read_rows(
                part.source,
                files[part.source],
                # a part of a mix may need none
                columns=columns if part.source in fitting or (is_data and not fitting) else None,
                template=template,
                chat=prompting.template is not None,
                system=prompting.system,
                stage=settings.stage or "sft",
                every_turn=settings.turns == "all",
            )
            found = read.examples
            notes += read.notes
        else:
            own = _train_tasks(part.source, tasks)
            distinct = {(task.spec.source, key(parameters=task.spec.parameters)): task for task in own}.values()
            plain = replace(prompting, shots=None)
            found = [example for task in distinct for example in render_examples(task.name, task.task, plain)]
            chosen += own
        kept = without_copies(found, seen)
        rows, duplicates = rows + len(found), duplicates + len(found) - len(kept)
        examples += weighted(kept if settings.dedupe else found, part.weight)
    if not examples:
        raise UserError(f"the weights of `{name}` leave none of its {rows} rows", hint="raise them")
    if settings.samples is not None and settings.samples < len(examples):
        examples = random.Random(0).sample(examples, settings.samples)
    names = tuple(dict.fromkeys(task.name for task in chosen))
    known = TrainData(name or "+".join(names), names, tuple(examples), duplicates)
    if duplicates:
        notes.append(_duplicates(known.name, duplicates, rows, settings))
    empty = sum(not example.completion.strip() for example in examples) if settings.stage in (None, "sft") else 0
    if examples and empty == len(examples):
        raise UserError(
            f"every answer of the training data `{known.name}` is empty: nothing but the end of the text would be learned",
            hint="is the right column the answer? `--train-columns prompt=COLUMN,completion=COLUMN`",
        )
    if empty:
        notes.append(
            f"{empty} of {len(examples)} training rows of {known.name} have an empty answer: they teach to end"
        )
    return replace(known, notes=tuple(notes))


def _is_file(name: str) -> bool:
    """Whether training data is read from files, or from the Hub, rather than rendered by a task."""
    if name.startswith("hub:") or Path(name).suffix in FORMATS or ("/" in name and Path(name).is_dir()):
        return True
    return bool(name) and is_saved(Path(name)) and not _is_task(name)


def _is_task(name: str) -> bool:
    try:
        find("task", parse_task(name).source)
    except UserError:
        return False
    return True


def _duplicates(name: str, duplicates: int, rows: int, settings: TrainSettings) -> str:
    if settings.dedupe:
        return f"{duplicates} of {rows} training rows of {name} are copies of earlier ones and were left out"
    return f"{duplicates} of {rows} training rows of {name} are copies of earlier ones; `dedupe=true` leaves them out"


def _train_tasks(name: str, tasks: Sequence[ScoredTask]) -> list[ScoredTask]:
    """The tasks whose train split is meant; of the scored ones, all that share it."""
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
        raise UserError(f"`{name}`: a train split is taken whole", hint=f"write `{spec.source}`")
    return [task for task in tasks if task.spec.source == spec.source] or [unscored_task(name)]
