"""Converts the label of a row to the index of the right choice.

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
    """The index of a row's label in a list of labels.

    Labels are compared as texts, because some datasets write 1 and others "1".

    Args:
        row: The row.
        column: The column of the label.
        names: All labels, in the order of the choices; a text is a list of its letters.

    Raises:
        UserError: The label is not in the list, for example in a split with hidden answers.

    Example:
        >>> label({"label": 1}, "label", ["0", "1"])
        1
    """
    value = row[column]
    known = [str(name) for name in names]
    if str(value) not in known:
        raise UserError(
            f"the column `{column}` is {value!r}, not one of {', '.join(known)}",
            hint="a split with hidden answers cannot be scored: choose another split",
        )
    return known.index(str(value))
