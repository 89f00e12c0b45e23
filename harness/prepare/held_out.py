"""Held-out rows: a share, a fold, or other data. Equal rows stay on one side, so that no held-out row is trained on.

Example:
    >>> data = TrainData("x", (), (Example("a", " b"), Example("a ", "b"), Example("c", " d")))
    >>> [len(part.examples) for part in held_out(data, 0.34)]
    [2, 1]
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from harness.errors import UserError
from harness.jobs import Example
from harness.prepare.copies import identity, near_copies_of
from harness.prepare.train_data import TrainData


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


def separate(data: TrainData, validation: TrainData, *, dedupe: bool, near: bool = False) -> TrainData:
    """The training data, given validation data of another name: rows that both have are removed, or counted in a note.

    Args:
        data: The training data.
        validation: The validation data, which stays as it is.
        dedupe: Whether rows that both have are removed.
        near: Whether rows that nearly repeat a row of the validation data are removed, too.

    Raises:
        UserError: No training row would be left.
    """
    held = {identity(example) for example in validation.examples}
    shared = {index for index, example in enumerate(data.examples) if identity(example) in held}
    if shared and not dedupe:
        note = f"{len(shared)} training rows of {data.name} are in the validation data {validation.name} too"
        return replace(data, notes=(*data.notes, note))
    notes = _left_out(data, shared, validation, "are in")
    if near:
        first = len(validation.examples)
        copies = near_copies_of([*validation.examples, *data.examples])
        close = {each.text - first for each in copies if each.of < first <= each.text} - shared
        notes += _left_out(data, close, validation, "nearly repeat rows of")
        shared |= close
    if not shared:
        return data
    if len(shared) == len(data.examples):
        raise UserError(f"every training row of {data.name} is in the validation data {validation.name}")
    return replace(_split(data, shared)[0], notes=(*data.notes, *notes))


def _left_out(data: TrainData, rows: set[int], validation: TrainData, why: str) -> list[str]:
    if not rows:
        return []
    return [f"{len(rows)} training rows of {data.name} were left out: they {why} the validation data {validation.name}"]


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
    rest = [index for index in range(len(data.examples)) if index not in chosen]
    return data.only(rest), replace(data.only(sorted(chosen)), notes=())
