"""Counts of what training rows hold and training does not use, for one note each.

Example:
    >>> RowNotes(columns=Counter(id=2)).lines("x", 2)
    ['columns of x not used: `id` (2 rows)']
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_THOUGHTS = {
    "not rendered": "reasoning of {} of {} not rendered by the template, so not learned",
    "left out": "reasoning of {} of {} left out, because the prompt of the template closes the thought",
    "added": "end of a thought added to {} of {}: the prompt of the template begins a thought that the template does not"
    " write in an answered turn",
}


@dataclass
class RowNotes:
    """Counts over the rows of one data set."""

    columns: Counter[str] = field(default_factory=Counter)
    """Rows with content in a column that is not used, by column."""
    turn_keys: Counter[str] = field(default_factory=Counter)
    """Turns with content in a key that is not used, by key."""
    context_turns: int = 0
    """Assistant turns that the data exclude from learning."""
    nothing_learned: int = 0
    """Rows left out because the data exclude all of their assistant turns."""
    pairs: int = 0
    """Preferences read as two rows, one with a good and one with a bad answer."""
    empty_texts: int = 0
    """Rows left out because their text is empty."""
    unanswered: int = 0
    """Rows whose last turns come after the last learned answer."""
    second_systems: int = 0
    """Rows whose column `system` is not used, because the conversation begins with a system turn."""
    moved_systems: int = 0
    """Rows whose system turn is at the head of a user turn, because the chat template has none."""
    lost_turns: int = 0
    """System and user turns before learned ones that the chat template does not write."""
    thoughts: Counter[str] = field(default_factory=Counter)
    """Learned turns by `LearnedTurn.thought`."""
    lost_context_reasoning: int = 0
    """Turns before learned ones whose reasoning the chat template does not write."""
    lost_tool_texts: int = 0
    """Turns of tools, and turns with tool calls, whose text the chat template does not write."""

    def lines(self, name: str, rows: int) -> list[str]:
        """One line for each kind of thing that is not used.

        Args:
            name: Name of the data.
            rows: Number of its rows.
        """
        found = [
            (self.columns.total(), f"columns of {name} not used: {_counted(self.columns, 'row')}"),
            (self.turn_keys.total(), f"keys of turns in {name} not used: {_counted(self.turn_keys, 'turn')}"),
            (
                self.context_turns,
                f"{_many(self.context_turns, 'assistant turn')} of {name} with the weight 0 not learned, only read",
            ),
            (
                self.nothing_learned,
                f"{self.nothing_learned} of {rows} rows of {name} left out: all their assistant turns have the weight 0",
            ),
            (
                self.pairs,
                f"{self.pairs} of {rows} rows of {name} are preferences: each is read as a good and a bad answer",
            ),
            (self.empty_texts, f"{self.empty_texts} of {rows} rows of {name} left out: their text is empty"),
            (
                self.unanswered,
                f"{self.unanswered} of {rows} rows of {name} end with turns after the last learned answer; not used",
            ),
            (
                self.second_systems,
                f"the column `system` of {self.second_systems} of {rows} rows of {name} not used: the conversation has"
                " a system turn",
            ),
            (
                self.moved_systems,
                f"the chat template has no system turn: in {self.moved_systems} of {rows} rows of {name}, the first user turn"
                " begins with its text",
            ),
            (
                self.lost_turns,
                f"text of {_many(self.lost_turns, 'system or user turn')} of {name} not rendered by the template",
            ),
            *(
                (self.thoughts[thought], text.format(_many(self.thoughts[thought], "learned turn"), name))
                for thought, text in _THOUGHTS.items()
            ),
            (
                self.lost_context_reasoning,
                f"reasoning of {_many(self.lost_context_reasoning, 'earlier turn')} of {name} not rendered by the"
                " template",
            ),
            (
                self.lost_tool_texts,
                f"text of {_many(self.lost_tool_texts, 'turn')} of tools or with tool calls in {name} not rendered by the"
                " template",
            ),
        ]
        return [line for count, line in found if count]


def _counted(counts: Counter[str], unit: str) -> str:
    return ", ".join(f"`{key}` ({_many(count, unit)})" for key, count in sorted(counts.items()) if count)


def _many(count: int, unit: str) -> str:
    return f"{count} {unit}{'s' * (count != 1)}"
