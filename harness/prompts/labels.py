"""The right answer as a dataset writes it, turned into the index that a sample wants.

Example:
    >>> label({"answerKey": "C"}, "answerKey", "ABCD")
    2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.api import Row
from harness.errors import UserError


def label(row: Row, column: str, names: Sequence[Any]) -> int:
    """The place of a row's label among the names that it may have.

    A number equals the digits that write it: datasets disagree about 1 and "1".

    Args:
        row: The row.
        column: Where its label stands.
        names: The labels there are, in the order of the choices; a text means its letters.

    Raises:
        UserError: The label is none of them, as in splits that hide their answers.

    Example:
        >>> label({"label": 1}, "label", ["0", "1"])
        1
    """
    value = row[column]
    known = [str(name) for name in names]
    if str(value) not in known:
        raise UserError(
            f"the column `{column}` is {value!r}, not one of {', '.join(known)}",
            hint="splits whose answers are hidden cannot be scored",
        )
    return known.index(str(value))
