"""The screen that `compare` and `show` print: quality, cost, a summary in sentences, and footnotes.

It fits the width of the terminal (without a terminal: `COLUMNS`, else 120) by splitting tables into blocks; it never
truncates a cell. Colour only repeats a mark or a word.

Example:
    >>> print_run(run, folder=Path("runs/qwen3-0.6b-20261120-2355"))  # doctest: +SKIP
    Qwen/Qwen3-0.6B · 500 samples per task · seed 0 · NVIDIA H100 80GB HBM3 · torch 2.9.0 bf16 · harness 0.1.0

    Quality  gsm8k                   mmlu
             strict ↑       vs base  acc ↑       vs base
    ────────────────────────────────────────────────────
    base         32.4                 44.8
    lora         41.2  +8.8 ±2.7 ▲    45.0  +0.2 ±1.3 ≈
    …
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.text import Text

from harness.errors import printable
from harness.report import numbers
from harness.report.footnotes import footnotes
from harness.report.header import header
from harness.report.heatmap import grid_lines, grids
from harness.report.summary import summary
from harness.report.tables import GAP, Table, TableRow, tables
from harness.results import Run

PLAIN_WIDTH = 120
"""Width of output to a file or a pipe, unless `COLUMNS` is set."""

LONGEST_NAME = 28
"""A longer variant name, in terminal cells, is wrapped."""

if TYPE_CHECKING:
    from harness.report.memory import MemoryPlan

_STYLES = {"better": "green", "worse": "red", "undecided": "dim"}
_ASCII = str.maketrans({"▲": "^", "▼": "v", "△": "^?", "▽": "v?", "≈": "~", "±": "+-", "×": "x", "·": "|", "↑": "+", "↓": "-", "─": "-",
                        "–": "-", "…": "...", "░": ".", "▒": "o", "▓": "8", "█": "#"})  # fmt: skip


def print_run(run: Run, *, console: Console | None = None, folder: Path | None = None) -> None:
    """Prints a run to stdout.

    Args:
        run: The document of a run, finished or not; the row of a variant without results says why.
        console: Where to print; stdout by default.
        folder: The run's folder; the last line names it, with the command that makes an HTML page from it.
    """
    console = stdout_console() if console is None else console
    _print(screen(run, width=console.width, folder=folder), console)


def print_plan(plan: MemoryPlan, *, console: Console | None = None) -> None:
    """Prints the predicted memory of training runs, with notes on how to read it."""
    console = stdout_console() if console is None else console
    _print(plan_lines(plan, width=console.width), console)


def plan_lines(plan: MemoryPlan, *, width: int) -> list[Text]:
    """Returns the lines of a plan, each at most `width` terminal cells unless a word is longer."""
    from harness.report.memory import MEMORY_NOTES, memory_table, plan_notes

    dtype = numbers.dtype(plan.dtype)
    head = f"{plan.model} · {plan.device} · {dtype} · {numbers.memory(plan.memory_bytes)} of memory"
    return [
        *_wrapped(head, width, separator=" · "),
        Text(),
        *_blocks(memory_table(plan), width),
        *_notes([*MEMORY_NOTES, *plan_notes(plan)], width),
    ]


def stdout_console() -> Console:
    """Makes a console on stdout with the width of the terminal, else `COLUMNS`, else `PLAIN_WIDTH`."""
    console = Console(highlight=False)
    if not console.is_terminal:
        columns = os.environ.get("COLUMNS", "")
        console.width = int(columns) if columns.isdigit() and int(columns) > 0 else PLAIN_WIDTH
    return console


def screen(run: Run, *, width: int, folder: Path | None = None) -> list[Text]:
    """Returns the lines of the screen, each at most `width` terminal cells unless a word is longer."""
    lines = [*_wrapped(header(run), width, separator=" · "), Text()]
    for table in tables(run):
        lines += _blocks(table, width)
    for grid in grids(run):
        lines += [*grid_lines(grid, width), Text()]
    found = summary(run)
    if found:
        lines.append(Text("Summary", style="bold"))
        aligned = max((cell_len(subject) for subject, _ in found if cell_len(subject) <= LONGEST_NAME), default=0)
        for subject, text in found:
            label = f"  {_padded(subject, aligned)}  "
            if cell_len(subject) > aligned:
                *above, last = name_lines(subject, width - 4)
                lines += [Text(f"  {part}") for part in above]
                label = f"  {last}: "
            lines += _wrapped(text, width, first=label, rest=" " * (aligned + 4))
        lines.append(Text())
    notes = _notes(footnotes(run), width)
    lines += [*notes, Text()] if notes else []
    if folder is not None:
        lines.append(Text(f"Saved {folder}    harness report {folder} --to html"))
    return lines if lines[-1].plain else lines[:-1]


def _print(lines: Iterable[Text], console: Console) -> None:
    """Prints lines without wrapping; a console without Unicode gets ASCII."""
    for line in map(safe, lines):
        if not console.encoding.lower().startswith("utf"):
            line = Text(line.plain.translate(_ASCII))
        console.print(line, soft_wrap=True, no_wrap=True, overflow="ignore", crop=False)


def safe(text: Text) -> Text:
    """Text for a terminal: the same, or without its styles where it has control characters, which become escapes."""
    shown = printable(text.plain)
    return text if shown == text.plain else Text(shown)


def _blocks(table: Table, width: int) -> Iterator[Text]:
    """Draws a table in blocks that fit the width, with a blank line after each."""
    for block in table.blocks(width, name_width=_name_width(table)):
        yield from (*table_lines(block, width), Text())


def _notes(notes: Iterable[str], width: int) -> list[Text]:
    return [line for note in notes for line in _wrapped(note, width, first="  ", rest="    ")]


def table_lines(table: Table, width: int) -> Iterator[Text]:
    """Draws a table: group names, column names, a rule, then a line for each variant and its note."""
    widths, name_width = table.widths(), _name_width(table)
    starts = {members[0] for _, members in table.groups}

    def placed(label: str, cells: list[Text]) -> Text:
        line = Text(_padded(label, name_width))
        for index, cell in enumerate(cells):
            gap = GAP + (index in starts)
            line.append(" " * (gap + widths[index] - cell.cell_len)).append_text(cell)
        line.rstrip()
        return line

    names = [Text(column.name, style="dim") for column in table.columns]
    if any(column.group for column in table.columns):
        line = Text(_padded(table.title, name_width), style="bold")
        for group, members in table.groups:
            span = sum(widths[index] for index in members) + GAP * (len(members) - 1)
            line.append(" " * (GAP + 1)).append(_padded(group, span))
        line.rstrip()
        yield line
        yield placed("", names)
    else:
        line = placed(table.title, names)
        line.stylize("bold", 0, len(table.title))
        yield line
    yield Text("─" * (name_width + sum(widths) + GAP * len(widths) + len(starts)), style="dim")
    for row in table.rows:
        *above, label = name_lines(row.name)
        yield from (Text(part) for part in above)
        if not (row.note and row.is_empty):
            cells = [Text(cell.text, style=_STYLES[cell.verdict] if cell.verdict else "") for cell in row.cells]
            yield placed(label, cells)
            label = ""
        yield from _note_lines(row, label, name_width, width)


def _note_lines(row: TableRow, label: str, name_width: int, width: int) -> list[Text]:
    if not row.note:
        return []
    indent = " " * (name_width + GAP + 1)
    return _wrapped(row.note, width, first=_padded(label, name_width) + " " * (GAP + 1), rest=indent)


def _name_width(table: Table) -> int:
    return max(cell_len(part) for name in [table.title, *(row.name for row in table.rows)] for part in name_lines(name))


def name_lines(name: str, longest: int = LONGEST_NAME) -> list[str]:
    """Wraps a name to lines of at most `longest` terminal cells, after `:`, `,`, `/` or before `@` where possible."""
    lines = [""]
    for piece in re.split(r"(?<=[:,/])|(?=@)", numbers.one_line(name)):
        if lines[-1] and cell_len(lines[-1] + piece) > longest:
            lines.append("")
        *full, rest = chop_cells(lines[-1] + piece, max(1, longest)) or [""]
        lines[-1:] = [*full, rest]
    return lines


def _padded(text: str, width: int) -> str:
    return text + " " * max(0, width - cell_len(text))


def _wrapped(text: str, width: int, *, first: str = "", rest: str = "", separator: str = " ") -> list[Text]:
    """Wraps text at separators to lines of at most `width` terminal cells, with a hanging indent."""
    lines, line, joint = [], first, ""
    room = max(LONGEST_NAME, width - cell_len(rest))
    for word in (piece for long in text.split(separator) for piece in name_lines(long, room)):
        if line.strip() and cell_len(line + joint + word) > width:
            lines.append(Text(line.rstrip()))
            line, joint = rest, ""
        line, joint = line + joint + word, separator
    return [*lines, Text(line)]
