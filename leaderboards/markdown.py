"""Renders runs as GitHub Markdown: the tables and sentences of the screen, and the command that repeats the run.

Example:
    >>> print(render([run]))  # doctest: +SKIP
    ## Qwen/Qwen3-0.6B
    …
    | Quality | gsm8k strict ↑ | vs base |
    | --- | ---: | ---: |
    | base | 32.4 |  |
    | lora | 41.2 | +8.8 ±2.7 ▲ |
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.errors import printable
from harness.report.footnotes import footnotes
from harness.report.header import facts, model_name
from harness.report.summary import summary
from harness.report.tables import Table, tables
from harness.results import Run

WIDTH = 110
"""Maximum width of a table in terminal cells, about what GitHub shows without scrolling; wider ones become blocks."""

_SPECIAL = r"[\\`*\[\]|~]|<(?=[\w/!?])|(?<!\w)_|_(?!\w)|^#"
"""Characters that Markdown reads as markup; an underscore within a word and a lone `<` are not."""


def render(runs: Sequence[Run]) -> str:
    """Renders runs as one Markdown text with a section for each."""
    return "\n".join(line for run in runs for line in _section(run))


def _section(run: Run) -> Iterator[str]:
    yield from (f"## {escaped(model_name(run))}", "", escaped(" · ".join(facts(run))), "")
    for table in tables(run):
        for block in table.blocks(WIDTH, name_width=12):
            yield from (*_table(block), "")
    yield from (f"- **{escaped(subject)}**: {escaped(text)}" for subject, text in summary(run))
    yield ""
    yield from (f"{escaped(note)}  " for note in footnotes(run))
    yield from ("", "```sh", printable(" ".join(run.command.split("\n"))).replace("```", ""), "```", "")


def _table(table: Table) -> Iterator[str]:
    heads: list[str] = []
    for group, members in table.groups:  # only a task's first column has the task's name
        first, *others = (table.columns[index].name for index in members)
        heads += [f"{group} {first}".strip(), *others]
    yield _row([table.title, *heads])
    yield _row(["---", *("---:" for _ in heads)])
    for row in table.rows:
        cells = [cell.text for cell in row.cells]
        if row.note:
            cells[0] = row.note if row.is_empty else f"{cells[0]} ({row.note})"
        yield _row([row.name, *cells])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escaped(cell) for cell in cells) + " |"


def escaped(text: str) -> str:
    """Escapes text for Markdown; code in backticks stays code."""
    parts = re.split(r"(`[^`]*`)", printable(" ".join(text.split())))
    return "".join(
        part.replace("|", "\\|") if index % 2 else re.sub(_SPECIAL, r"\\\g<0>", part)
        for index, part in enumerate(parts)
    )
