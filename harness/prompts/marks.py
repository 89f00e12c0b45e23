"""Marks of answers: good or bad, as data for KTO write them."""

from __future__ import annotations

from typing import Any

from harness.errors import UserError
from harness.prompts.cells import is_missing

MARKS = {"true": True, "1": True, "1.0": True, "desirable": True, "good": True} | {
    "false": False,
    "0": False,
    "0.0": False,
    "undesirable": False,
    "bad": False,
}
"""Spellings, in lower case."""
BOOLEAN = ("true", "1", "1.0", "false", "0", "0.0")
"""Spellings that mean a mark even where another stage reads the row; a word may also name a class."""


def read_mark(where: str, column: str, value: Any) -> bool:
    """Reads the mark of an answer.

    Args:
        where: The data and the row, for messages.
        column: The data's name of the column.
        value: true, false, 1, 0, or a text of `MARKS` in any case.

    Raises:
        UserError: It is something else.

    Example:
        >>> read_mark("row 0", "label", "Desirable"), read_mark("row 0", "label", 0)
        (True, False)
    """
    mark = None if is_missing(value) else MARKS.get(str(value).strip().lower())
    if mark is None:
        raise UserError(
            f"{where} has {value!r} in `{column}`, which marks its answer neither as good nor as bad",
            hint="write true or false (or 1 or 0, `desirable` or `undesirable`, `good` or `bad`), or leave the row out",
        )
    return mark
