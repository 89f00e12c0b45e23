"""Training data: the rows of all sources as examples, copies counted, filters applied, weights and samples drawn.

Example:
    >>> TrainData("x", (), (Example("a", " b"), Example("c", " d"))).only([1]).examples[0].prompt
    'c'
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from harness.config.mixes import weighted
from harness.errors import UserError
from harness.jobs import Example
from harness.prepare.copies import without_copies
from harness.prepare.row_filters import CountTokens, LeftOut, filter_rows, left_out_note
from harness.prepare.row_sources import RowSource, row_sources
from harness.prepare.tasks import ScoredTask
from harness.prompts.chat import ChatTemplate
from harness.prompts.render import Prompting
from harness.settings import TrainSettings
from harness.storage import key

Origin = tuple[int, int]
LEAST_RATIO, MOST_RATIO = 0.75, 1.5
"""Ratios of the weights of good and bad answers, in sum, that need no note; KTO's paper advises 1 or slightly more."""


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
    left_out: tuple[LeftOut, ...] = ()
    """Rows that filters left out."""
    sources: tuple[RowSource, ...] = ()
    """Where the rows come from; kept only for `augment`."""
    origins: tuple[Origin, ...] = ()
    """The source and the row of each example, as two indices; kept only for `augment`."""
    made: tuple[int, ...] = ()
    """Indices of the examples that `augment` made and that are no row of the data."""

    @cached_property
    def digest(self) -> str:
        """Digest of the examples, independent of the file, columns, prompts or template that they were made from."""
        return key(examples=[_values(each) for each in self.examples])

    def only(self, rows: Sequence[int]) -> TrainData:
        """The same data with some of its rows, by index."""
        origins = tuple(self.origins[row] for row in rows) if self.origins else ()
        return replace(self, examples=tuple(self.examples[row] for row in rows), origins=origins)


def train_data(
    name: str,
    tasks: Sequence[ScoredTask],
    given: TrainSettings,
    prompting: Prompting,
    template: ChatTemplate | None,
    count: CountTokens | None = None,
) -> TrainData:
    """Reads training or validation data: a task, a file, a `hub:` address, or a mix of them; '' means the tasks' own.

    Args:
        name: As typed.
        tasks: The tasks of the run.
        given: Settings of the variant: columns, samples, stage, turns, and which rows are left out.
        prompting: How the variant is prompted, and so trained: its system prompt, and its chat template if it has one.
        template: The chat template for rows of messages: the model's, also for variants without it in other prompts.
        count: Counts the tokens of examples; needed for `min_row_tokens` and `max_row_tokens`.

    Raises:
        UserError: There is nothing to train on, or it cannot be read.
    """
    parts = row_sources(name, tasks, given, prompting, template)
    names = tuple(dict.fromkeys(task for part in parts for task in part.tasks))
    shown = name or "+".join(names)
    examples: list[Example] = []
    as_read: list[int] = []
    sources: list[RowSource] = []
    origins: list[Origin] = []
    ends: list[int] = []
    notes: list[str] = []
    seen: set[tuple[str, ...]] = set()
    rows = duplicates = 0
    for part in parts:
        read = [source.read(source.rows) for source in part.sources]
        notes += [note for each in read for note in each.notes]
        found = [example for each in read for example in each.examples]
        kept = without_copies(found, seen)
        duplicates += len(found) - len(kept)
        used = kept if given.drops_copies else range(len(found))
        examples += [found[index] for index in used]
        if given.augment is not None:
            own = [(len(sources) + source, row) for source, each in enumerate(read) for row in each.rows]
            origins += [own[index] for index in used]
            sources += part.sources
        as_read += [rows + index for index in used]
        rows += len(found)
        ends.append(len(examples))
    left_out = filter_rows(examples, given, count)
    gone = {row for each in left_out for row in each.rows}
    chosen: list[int] = []
    for part, start, end in zip(parts, [0, *ends], ends, strict=False):
        chosen += weighted([row for row in range(start, end) if row not in gone], part.weight)
    if not chosen:
        raise _nothing_left(shown, rows, left_out)
    if given.samples is not None and given.samples < len(chosen):
        chosen = random.Random(0).sample(chosen, given.samples)
    left_out = [replace(each, rows=tuple(as_read[row] for row in each.rows)) for each in left_out]
    data = TrainData(
        shown,
        names,
        tuple(examples),
        duplicates,
        left_out=tuple(left_out),
        sources=tuple(sources),
        origins=tuple(origins),
    ).only(chosen)
    filtered = left_out_note(shown, len(examples), left_out)
    notes += [*_duplicates(data, rows, given), *filtered]
    if given.augment is None:
        notes += answer_notes(data, given)
    return replace(data, notes=tuple(notes))


def answer_notes(data: TrainData, given: TrainSettings) -> list[str]:
    """Notes on the answers that will be learned: empty ones, and how they are marked.

    Raises:
        UserError: All answers are empty.
    """
    return [*_empty_answers(data, given), *_marks(data, given)]


def _values(example: Example) -> list[Any]:
    """The fields of an example; without a mark, those that examples of every stage have, so that digests stay the same."""
    return [value for name, value in vars(example).items() if name != "desirable" or value is not None]


def _nothing_left(name: str, rows: int, left_out: Sequence[LeftOut]) -> UserError:
    if left_out:
        reasons = ", ".join(map(str, left_out))
        return UserError(
            f"the filters leave none of the {rows} training rows of `{name}`: {reasons}", hint="relax them"
        )
    return UserError(f"the weights of `{name}` leave none of its {rows} rows", hint="raise them")


def _duplicates(data: TrainData, rows: int, given: TrainSettings) -> list[str]:
    """A note that counts duplicates, if there are any."""
    if not data.duplicates:
        return []
    found = f"{data.duplicates} of {rows} training rows of {data.name} repeat earlier rows"
    return [f"{found} and were left out" if given.drops_copies else f"{found}; `dedupe=true` leaves them out"]


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


def _marks(data: TrainData, given: TrainSettings) -> list[str]:
    """A note on answers that are marked good or bad, if one kind is missing or outweighs the other."""
    marks = [example.desirable for example in data.examples if example.desirable is not None]
    good, bad = marks.count(True), marks.count(False)
    if not marks or not good or not bad:
        kind = "good" if good else "bad"
        return [f"all {len(marks)} answers of {data.name} are marked {kind}; KTO learns from both kinds"] * bool(marks)
    ratio = given.desirable_weight * good / (given.undesirable_weight * bad)
    if LEAST_RATIO <= ratio <= MOST_RATIO:
        return []
    advice = (
        f"`undesirable_weight={given.undesirable_weight * ratio:.2g}`"
        if ratio > 1
        else f"`desirable_weight={given.desirable_weight / ratio:.2g}`"
    )
    return [
        f"{good} answers of {data.name} are marked good and {bad} bad: in sum, good answers have {ratio:.2g} times the weight"
        f" of bad ones; {advice} makes them equal"
    ]
