"""Columns of training rows: the formats, and the names that data sets use for their columns.

Example:
    >>> row_of("data.jsonl", 0, {"question": "1+1", "answer": "2"}, {"prompt": "question", "completion": "answer"})
    {'prompt': '1+1', 'completion': '2'}
    >>> _, columns = format_of({"query": "1+1", "response": "2"}, "sft")
    >>> columns
    {'prompt': 'query', 'completion': 'response'}
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.api import Row
from harness.errors import UserError
from harness.prompts.cells import has_content
from harness.settings import STAGES, StageName

_NAMES = {
    "messages": ("messages", "conversations"),
    "tools": ("tools", "functions"),
    "label": ("label", "kto_tag"),
}
_ALPACA_NAMES = {**_NAMES, "input": ("input", "context"), "output": ("output", "response")}
_SWIFT_NAMES = {
    **_NAMES,
    "prompt": ("query",),
    "completion": ("response",),
    "rejected": ("rejected_response", "rejected_messages"),
}


@dataclass(frozen=True)
class Format:
    """The columns of one format, under our names."""

    needs: tuple[str, ...]
    """Columns of every row."""
    answer: tuple[str, ...] = ()
    """Columns of every row, except for stages that generate their own answers."""
    may: tuple[str, ...] = ()
    """Columns that only some rows have."""
    filled: tuple[str, ...] = ()
    """Columns whose cell must have content; else the row is read in another format."""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NAMES)
    """The names of a column in data sets, where they are not ours."""

    @property
    def ours(self) -> tuple[str, ...]:
        """All columns, under our names."""
        return (*self.needs, *self.answer, *self.may)

    def names_in(self, present: Collection[str], stage: StageName) -> dict[str, list[str]] | None:
        """Our names to the names in a row, in order; None if a column that the stage needs is missing."""
        read = [ours for ours in self.ours if ours != "label" or STAGES[stage].rows == "marked"]
        found = {ours: [name for name in self.names.get(ours, (ours,)) if name in present] for ours in read}
        needed = (*self.needs, *(() if STAGES[stage].rows == "prompt" else self.answer))
        return {ours: names for ours, names in found.items() if names} if all(found[ours] for ours in needed) else None


_SHARED = ("system", "tools")
TWO_ANSWERS = Format(("chosen", "rejected"), may=("prompt", *_SHARED))
PREFERENCES = (
    Format(("messages", "chosen", "rejected"), may=_SHARED, filled=("messages",)),
    Format(("prompt", "chosen", "rejected"), may=("history", *_SHARED), filled=("prompt",)),
    Format(("instruction", "chosen", "rejected"), may=("input", "history", *_SHARED), names=_ALPACA_NAMES),
    TWO_ANSWERS,
    Format(("messages", "rejected"), may=_SHARED, filled=("rejected",), names=_SWIFT_NAMES),
    Format(("prompt", "completion", "rejected"), may=("history", *_SHARED), filled=("rejected",), names=_SWIFT_NAMES),
)
"""Formats with a better and a worse answer; in the last two, of ms-swift, the better one is where others have the answer."""
_TEXT = Format(("text",))
_SINGLE = ("label", *_SHARED)
"""Columns of rows with one answer; `label` is read only by stages that learn from marked answers."""
FORMATS = (
    *PREFERENCES,
    Format(("messages",), may=_SINGLE),
    Format(("prompt",), ("completion",), ("history", *_SINGLE)),
    Format(("instruction",), ("output",), ("input", "history", *_SINGLE), names=_ALPACA_NAMES),
    Format(("prompt",), ("completion",), ("history", *_SINGLE), names=_SWIFT_NAMES),
    _TEXT,
)
"""All formats; a row is read in the first one that fits."""
_OTHER_NAMES = {
    "prompt": ("question", "problem", "query", "input"),
    "completion": ("answer", "output", "response", "solution"),
    "output": ("response", "answer", "completion", "solution"),
    "label": ("desirable", "good", "preferred", "accepted", "feedback", "rating"),
}
"""Names that data sets often use for our columns."""


def format_of(row: Row, stage: StageName) -> tuple[Format, dict[str, str]] | None:
    """The first format that a row fits, and its columns: our names to the row's; of several names, the first with content.

    Args:
        row: The row.
        stage: The training stage.

    Returns:
        None if the stage cannot learn from the row.
    """
    for format, names in _fitting(tuple(row), stage):
        columns = {
            ours: found[0] if len(found) == 1 else next((name for name in found if has_content(row[name])), found[0])
            for ours, found in names.items()
        }
        filled = format.filled
        if STAGES[stage].rows == "marked" and format in PREFERENCES:  # rows with one answer may have the same columns
            filled = tuple({*filled, "rejected", *({"chosen"} & columns.keys())})
        if all(has_content(row[columns[ours]]) for ours in filled):
            return format, columns
    return None


@functools.lru_cache(maxsize=256)  # most rows of a data set have the same columns
def _fitting(present: tuple[str, ...], stage: StageName) -> list[tuple[Format, dict[str, list[str]]]]:
    """The formats that fit by the names of the columns."""
    if STAGES[stage].rows == "pair":
        formats: Sequence[Format] = PREFERENCES
    else:
        formats = [each for each in FORMATS if each != _TEXT or STAGES[stage].rows == "single"]
    found = [(each, each.names_in(present, stage)) for each in formats]
    return [(each, names) for each, names in found if names is not None]


def from_openai(row: Row) -> Row:
    """A preference of OpenAI's under the names of others: `input` with its messages and tools, and the two outputs.

    Example:
        >>> from_openai({"input": {"messages": []}, "preferred_output": ["a"], "non_preferred_output": ["b"], "id": 1})
        {'chosen': ['a'], 'rejected': ['b'], 'id': 1, 'messages': []}
    """
    asked = row.get("input")
    if not isinstance(asked, Mapping) or not {"preferred_output", "non_preferred_output"} <= row.keys():
        return row
    names = {"preferred_output": "chosen", "non_preferred_output": "rejected"}
    return {names.get(name, name): value for name, value in row.items() if name != "input"} | dict(asked)


def unread_prompt(row: Row) -> str | None:
    """The column with the prompt of two answers, under a name that no format of preferences has; None if there is none.

    Example:
        >>> unread_prompt({"question": "1+1", "chosen": "2", "rejected": "3"})
        'question'
    """
    if not isinstance(row.get("chosen"), str) or has_content(row.get("prompt")):
        return None  # turns hold their prompt
    return next((name for name in (*_OTHER_NAMES["prompt"], "conversation") if has_content(row.get(name))), None)


def row_of(name: str, index: int, row: Row, columns: Mapping[Any, str]) -> dict[str, Any]:
    """A row under our column names: the mapped columns, and the others of the same format that have our names already.

    Args:
        name: Name of the data, for messages.
        index: Number of the row, from 0.
        row: The row.
        columns: Our names to the data set's, as in `--train-columns`.

    Raises:
        UserError: The row lacks a mapped column.
    """
    missing = [theirs for theirs in columns.values() if theirs not in row]
    if missing:
        where = f", row {index}," if index else ""
        raise UserError(
            f"training data `{name}`{where} has no column {', '.join(f'`{c}`' for c in missing)}",
            hint=f"its columns: {', '.join(row)}",
        )
    others = {ours for format in FORMATS if columns.keys() <= {*format.ours} for ours in format.ours}
    kept = {ours: row[ours] for ours in sorted(others - columns.keys()) if ours in row}
    return {**{ours: row[theirs] for ours, theirs in columns.items()}, **kept}


def suggest_mapping(present: Sequence[str], stage: StageName) -> str:
    """A hint: the `--train-columns` that could make rows fit the stage.

    Args:
        present: The dataset's columns.
        stage: The training stage.
    """
    ours = ["prompt", "completion"]
    if STAGES[stage].rows == "pair":
        ours = ["chosen", "rejected"]
    elif STAGES[stage].rows == "prompt":
        ours = ["prompt"]
    elif STAGES[stage].rows == "marked":
        ours = [*(["output"] if "instruction" in present else [] if "messages" in present else ours), "label"]
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
    if STAGES[stage].rows == "pair":
        return f"this stage needs a better and a worse answer to each prompt; if they have other names: {flag}{among}"
    return f"map the columns: {flag}{among}"
