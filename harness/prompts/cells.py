"""Cells of training rows: which of them are missing, which are texts, and where a wrong one is.

Example:
    >>> TrainingRow("training data `x`: row 0", {"prompt": "1 + 1 ="}, {}).text("prompt")
    '1 + 1 ='
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError

_EMPTY = ("", "[]", "{}")
"""Cells of CSV files in which a program wrote an empty list or object."""


@dataclass(frozen=True)
class TrainingRow:
    """One row under our column names."""

    where: str
    """The data and the number of the row, with which messages begin."""
    cells: Mapping[str, Any]
    """The values by our column names, only those that the row's format reads."""
    names: Mapping[str, str]
    """Our column names to the data's, where they differ."""

    def get(self, column: str) -> Any:
        """The value in a column; None if the row lacks the column, or the cell is null or NaN."""
        value = self.cells.get(column)
        return None if is_missing(value) else value

    def name(self, column: str) -> str:
        """The data's name of a column."""
        return self.names.get(column, column)

    def text(self, column: str) -> str:
        """The text in a column.

        Raises:
            UserError: The cell is not a text.
        """
        return as_text(self.where, self.name(column), self.cells.get(column))

    def optional_text(self, column: str) -> str:
        """The text in a column; empty if there is none."""
        value = self.get(column)
        return "" if value is None else as_text(self.where, self.name(column), value)


def is_missing(value: Any) -> bool:
    """Whether a cell is null or NaN, which is how pandas writes null."""
    return value is None or (isinstance(value, float) and value != value)


def has_content(value: Any) -> bool:
    """Whether a cell is neither missing nor an empty text, list or object."""
    if isinstance(value, str):
        return value not in _EMPTY
    return not is_missing(value) and not (hasattr(value, "__len__") and len(value) == 0)


def as_text(where: str, column: str, value: Any) -> str:
    """Checks that a value is a text.

    Args:
        where: The data and the row.
        column: The data's name of the column, or the turn.
        value: The value.

    Raises:
        UserError: It is null, NaN, or of another type.
    """
    if isinstance(value, str):
        return value
    if is_missing(value):
        raise UserError(
            f"{where} has {'null' if value is None else 'NaN'} in `{column}`, not text",
            hint="write a text (an empty one is allowed), or leave the row out",
        )
    raise UserError(
        f"{where} has {type(value).__name__} in `{column}`, not text", hint="every prompt and answer must be a string"
    )


def from_json(where: str, column: str, value: Any) -> Any:
    """A value that may be written as JSON text, as in CSV files and in LLaMA-Factory's `tools`.

    Raises:
        UserError: It is a text but not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} has a text in `{column}` that is not JSON", hint="write it as JSON") from error
