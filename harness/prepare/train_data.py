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

from harness.errors import UserError
from harness.prompts.render import Example
from harness.runs.folder import key


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
