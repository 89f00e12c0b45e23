"""Augmentation: a user's function makes a list of rows from each training row, never from a row that is held out.

A function that asks each question twice, once in lower case, given as `augment=./more.py@twice`:

    def twice(row):
        return [row, {**row, "prompt": row["prompt"].lower()}]

It receives a row as it is in the file, the data set or the task's train split, and its list replaces the row. The random
numbers of Python and NumPy have a fixed seed. The rows that it makes are part of the digest of the data, and so of the key
of the training run: a change of the function, or of anything that it reads, counts if it changes a row.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from harness.api import Row
from harness.errors import UserError, plugin_error
from harness.jobs import Example
from harness.prepare.copies import identity, without_copies
from harness.prepare.row_filters import CountTokens, filter_rows
from harness.prepare.row_sources import RowSource
from harness.prepare.train_data import Origin, TrainData, answer_notes
from harness.registry.find import split_path
from harness.registry.load import load_function
from harness.settings import TrainSettings
from harness.user_code import user_code

_HINT = "it receives a row as a dict and returns a list of rows: `return [row]` changes nothing"
_MOST = 1000
"""Rows that may be made of one row: more is a mistake, such as a generator without an end."""


class RowFunction:
    """A user's function from a row to a list of rows.

    Args:
        text: As typed: `FILE.py@function`.

    Raises:
        UserError: There is no such file or function, or the import fails.
    """

    def __init__(self, text: str) -> None:
        self._path, name = split_path(text)
        if not self._path.is_file() or self._path.suffix != ".py" or name is None:
            raise UserError(
                f"`augment={text}` names no function",
                hint="write `augment=FILE.py@function`"
                + ("" if self._path.is_file() else f"; there is no file `{self._path}`"),
            )
        self.name = name
        self._function = load_function(self._path.resolve(), name)

    def __call__(self, row: Row, where: str) -> list[Row]:
        """The rows that the function makes of one row.

        Raises:
            UserError: It fails (only the frames of the user's files are shown), or returns something else.
        """
        found: list[Any] = []
        with user_code(self._path, f"`{self.name}` for {where}"):
            try:
                given = self._function(copy.deepcopy(dict(row)))
                if given is None or isinstance(given, str | bytes | Mapping):
                    raise UserError(
                        f"`{self.name}` returned {type(given).__name__} for {where}, not a list of rows", _HINT
                    )
                found += islice(given, _MOST + 1)
            except (Exception, SystemExit) as error:
                what = f"the function `{self.name}` failed for {where}, in"
                raise plugin_error(self._path, error, hint=_HINT, what=what) from error
        if len(found) > _MOST:
            raise UserError(f"`{self.name}` made more than {_MOST} rows of {where}", _HINT)
        if wrong := [each for each in found if not isinstance(each, Mapping)]:
            raise UserError(f"`{self.name}` made a {type(wrong[0]).__name__} of {where}, not a row", _HINT)
        return [dict(each) for each in found]


def augmented(data: TrainData, held: TrainData | None, given: TrainSettings, count: CountTokens | None) -> TrainData:
    """Training data after `augment`.

    Args:
        data: The training rows, without the held-out ones.
        held: The held-out rows. A row is not augmented if a part of it is held out (another turn of its conversation, or
            the same text), and no row that equals a held-out one is added.
        given: Settings of the variant.
        count: Counts the tokens of examples.

    Raises:
        UserError: The function cannot be loaded, fails, or leaves no rows.
    """
    assert given.augment is not None
    function = RowFunction(given.augment)
    name = function.name
    forbidden = {identity(example) for example in held.examples} if held else set()
    apart = {*held.origins} if held and held.sources is data.sources else set()
    apart |= {o for example, o in zip(data.examples, data.origins, strict=True) if identity(example) in forbidden}
    own: dict[Origin, list[Example]] = defaultdict(list)
    for example, origin in zip(data.examples, data.origins, strict=True):
        own[origin].append(example)
    chosen = [origin for origin in own if origin not in apart]
    with _seeded():
        rows = {(source, row): function(*_row(data.sources[source], row)) for source, row in chosen}
    made, notes = _read(data, rows, name)
    notes.insert(0, f"`{name}` made {len(made)} rows of {len(chosen)} training rows of {data.name}")
    if len(own) > len(chosen):
        notes.append(f"{len(own) - len(chosen)} rows of {data.name} not augmented: a part of them is held out")
    kept = [pair for pair in made if identity(pair[1]) not in forbidden]
    if len(kept) < len(made):
        notes.append(f"{len(made) - len(kept)} rows that `{name}` made were left out: they are held out")
    if given.drops_copies:
        first = [kept[index] for index in without_copies([example for _, example in kept], set())]
        if len(first) < len(kept):
            notes.append(f"{len(kept) - len(first)} rows that `{name}` made were left out: they repeat others")
        kept = first
    limits = given.model_copy(update={"drop_near_duplicates": False})
    left_out = filter_rows([example for _, example in kept], limits, count)
    gone = {row for each in left_out for row in each.rows}
    if gone:
        notes.append(f"{len(gone)} rows that `{name}` made were left out: {', '.join(map(str, left_out))}")
    kept = [pair for index, pair in enumerate(kept) if index not in gone]
    found = _joined(data, own, apart, kept)
    return replace(found, notes=(*data.notes, *notes, *answer_notes(found, given)))


def _row(source: RowSource, row: int) -> tuple[Row, str]:
    return source.rows[row], f"row {row} of `{source.name}`"


def _read(
    data: TrainData, rows: Mapping[Origin, Sequence[Row]], name: str
) -> tuple[list[tuple[Origin, Example]], list[str]]:
    """The examples of rows that were made, each with the origin of its row, and notes on them."""
    found: list[tuple[Origin, Example]] = []
    notes: list[str] = []
    for number, source in enumerate(data.sources):
        made = [(origin, row) for origin, several in rows.items() if origin[0] == number for row in several]
        if not made:
            continue
        try:
            read = source.read([row for _, row in made])
        except UserError as error:
            raise UserError(f"in the rows that `{name}` made: {error.message}", error.hint) from error
        found += [(made[row][0], example) for example, row in zip(read.examples, read.rows, strict=True)]
        notes += [f"in the rows that `{name}` made: {note}" for note in read.notes if note not in data.notes]
    return found, notes


def _joined(
    data: TrainData,
    own: Mapping[Origin, Sequence[Example]],
    apart: set[Origin],
    made: Sequence[tuple[Origin, Example]],
) -> TrainData:
    """The data with the rows that were made in place of their own, as often as the weights of the mix repeat a row."""
    by_origin: dict[Origin, list[Example]] = defaultdict(list)
    for origin, example in made:
        by_origin[origin].append(example)
    pairs: list[tuple[Origin, Example]] = []
    for origin, examples in own.items():
        times = Counter(examples).most_common(1)[0][1]
        pairs += [(origin, each) for each in (examples if origin in apart else by_origin[origin] * times)]
    if not pairs:
        raise UserError(f"`augment` leaves none of the training rows of {data.name}", hint=_HINT)
    known = {identity(example) for example in data.examples}
    return replace(
        data,
        examples=tuple(example for _, example in pairs),
        origins=tuple(origin for origin, _ in pairs),
        made=tuple(index for index, (_, example) in enumerate(pairs) if identity(example) not in known),
    )


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Seeds the random numbers of Python and NumPy, and restores their state."""
    states = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(0)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
