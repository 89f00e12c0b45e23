"""Columns of training rows: maps the names in a dataset to those of the known formats, and suggests such a mapping.

Example:
    >>> rename("data.jsonl", 0, {"question": "1+1", "answer": "2"}, {"prompt": "question", "completion": "answer"})
    {'prompt': '1+1', 'completion': '2'}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.api import Row
from harness.errors import UserError
from harness.settings import ONLINE_STAGES, PAIRED_STAGES, Stage

_FORMATS: tuple[frozenset[str], ...] = (
    frozenset({"prompt", "completion", "system"}),
    frozenset({"instruction", "input", "output", "system"}),
    frozenset({"messages", "system", "chosen", "rejected"}),
    frozenset({"prompt", "system", "chosen", "rejected"}),
    frozenset({"instruction", "input", "system", "chosen", "rejected"}),
)
"""The columns of each format: if some of them are mapped, the others keep their names."""
_OTHER_NAMES = {
    "prompt": ("question", "problem", "query", "input"),
    "completion": ("answer", "output", "response", "solution"),
    "output": ("response", "answer", "completion", "solution"),
}
"""Names that datasets often use for our columns."""


def complete_mapping(columns: Mapping[Any, str], present: Sequence[str]) -> Mapping[Any, str]:
    """Adds the other columns of the same format to a mapping, under their own names.

    Args:
        columns: Our names to the dataset's, as in `--train-columns`.
        present: The dataset's columns.

    Example:
        >>> sorted(complete_mapping({"prompt": "question"}, ["question", "completion"]).items())
        [('completion', 'completion'), ('prompt', 'question')]
    """
    formats = [format for format in _FORMATS if columns.keys() <= format]
    return {**{column: column for format in formats for column in format if column in present}, **columns}


def rename(name: str, index: int, row: Row, columns: Mapping[Any, str]) -> Row:
    """A row under our column names.

    Args:
        name: Name of the data, for messages.
        index: Number of the row, from 0.
        row: The row.
        columns: Our names to the dataset's.

    Raises:
        UserError: The row lacks a column.
    """
    missing = [theirs for theirs in columns.values() if theirs not in row]
    if missing:
        where = f", row {index}," if index else ""
        raise UserError(
            f"training data `{name}`{where} has no column {', '.join(f'`{c}`' for c in missing)}",
            hint=f"its columns: {', '.join(row)}",
        )
    return {ours: row[theirs] for ours, theirs in columns.items()}


def suggest_mapping(present: Sequence[str], stage: Stage) -> str:
    """A hint: the `--train-columns` that could make rows fit the stage.

    Args:
        present: The dataset's columns.
        stage: The training stage.
    """
    ours = ["prompt", "completion"]
    if stage in PAIRED_STAGES:
        ours = ["chosen", "rejected"]
    elif stage in ONLINE_STAGES:
        ours = ["prompt"]
    elif "instruction" in present:  # `instruction` and `input` together are the prompt
        ours = ["output"]
    found = {
        column: next((name for name in _OTHER_NAMES.get(column, ()) if name in present), "COLUMN")
        for column in ours
        if column not in present
    }
    if not found:
        return "fix the row, or leave it out"
    flag = "`--train-columns " + ",".join(f"{column}={name}" for column, name in found.items()) + "`"
    among = f" (columns: {', '.join(present) or 'none'})" if "COLUMN" in found.values() else ""
    if stage in PAIRED_STAGES:
        return f"this stage needs a better and a worse answer to each prompt; if they have other names: {flag}{among}"
    return f"map the columns: {flag}{among}"
