"""Filters of training rows: too short, too long, or nearly repeating an earlier row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.jobs import Example
from harness.prepare.copies import near_copies_of
from harness.settings import STAGES, TrainSettings

CountTokens = Callable[[Sequence[Example], bool], Sequence[int]]
"""Counts the tokens of examples, with their answers or without."""


@dataclass(frozen=True)
class LeftOut:
    """Rows that a filter leaves out."""

    why: str
    """The reason, after a number of rows."""
    rows: tuple[int, ...]
    """Their indices among the rows as read."""
    examples: tuple[Example, ...]
    """The same rows."""

    def __str__(self) -> str:
        return f"{len(self.rows)} {self.why}"


def filter_rows(examples: Sequence[Example], given: TrainSettings, count: CountTokens | None) -> list[LeftOut]:
    """The rows that the filters of a variant leave out, by filter; no row is in two of them.

    Args:
        examples: All rows.
        given: Settings of the variant: `min_row_tokens`, `max_row_tokens`, `drop_near_duplicates`.
        count: Counts tokens; needed for a limit of tokens.
    """
    found: list[LeftOut] = []
    rest = list(range(len(examples)))
    for why, choose in _filters(examples, given, count):
        if chosen := set(choose(rest)):
            rows = tuple(row for row in rest if row in chosen)
            found.append(LeftOut(why, rows, tuple(examples[row] for row in rows)))
            rest = [row for row in rest if row not in chosen]
    return found


def _filters(
    examples: Sequence[Example], given: TrainSettings, count: CountTokens | None
) -> Iterator[tuple[str, Callable[[Sequence[int]], Iterable[int]]]]:
    """The filters that are given: why a row is left out, and which of some rows are."""
    low, high = given.min_row_tokens, given.max_row_tokens
    if (low or high) and examples:
        assert count is not None
        tokens = count(examples, STAGES[given.stage].rows != "prompt")
        if low:
            yield f"with fewer than {low:,} tokens", lambda rows: (row for row in rows if tokens[row] < low)
        if high:
            yield f"with more than {high:,} tokens", lambda rows: (row for row in rows if tokens[row] > high)
    if given.drop_near_duplicates:
        yield (
            "nearly equal to an earlier row",
            lambda rows: (rows[each.text] for each in near_copies_of([examples[row] for row in rows])),
        )


def left_out_note(name: str, rows: int, left_out: Sequence[LeftOut]) -> list[str]:
    """A note that counts the rows that filters left out, if there are any.

    Args:
        name: Name of the data.
        rows: Number of rows before the filters.
        left_out: The rows that were left out.

    Example:
        >>> left_out_note("x", 9, [LeftOut("with fewer than 5 tokens", (2,), (Example("a", "b"),))])
        ['1 of 9 rows of x left out: 1 with fewer than 5 tokens']
    """
    if not left_out:
        return []
    total = sum(len(each.rows) for each in left_out)
    return [f"{total} of {rows} rows of {name} left out: {', '.join(map(str, left_out))}"]
