"""Tasks whose groups form a grid (`1000 words × 50 %`), drawn as one: a heat map for each variant.

Groups whose names are two parts joined by ` × ` are a grid when every first part meets every second one. The number stands in
each cell; the shade repeats it.

Example:
    >>> parts(["250 words × 0 %", "250 words × 50 %", "1000 words × 0 %", "1000 words × 50 %"])
    (('250 words', '1000 words'), ('0 %', '50 %'))
    >>> parts(["anatomy", "virology"])
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from harness.report import numbers
from harness.report.summary import higher_is_better, scale_of, score_of
from harness.results import Run

CROSS = " × "
SHADES = " ░▒▓█"


@dataclass(frozen=True)
class Cell:
    """A score within one group."""

    text: str
    share: float
    """0–1: how dark the cell is drawn."""


@dataclass(frozen=True)
class Grid:
    """One variant's headline over the cells of a task."""

    task: str
    metric: str
    """With its arrow."""
    variant: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    """Name and cells of each row."""


def parts(groups: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Names of the columns and rows that the groups span, smaller numbers first; None when they are no grid."""
    pairs = [group.split(CROSS) for group in groups]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        return None
    columns, rows = (tuple(sorted(dict.fromkeys(side), key=_number)) for side in zip(*pairs, strict=True))
    is_full = len(set(groups)) == len(columns) * len(rows) > max(len(columns), len(rows))
    return (columns, rows) if is_full else None


def grids(run: Run) -> list[Grid]:
    """The grids of all tasks and variants of a run."""
    found = []
    for task in run.tasks:
        scale, higher = scale_of(run, task.name, task.headline), higher_is_better(task, task.headline)
        scores = {variant.name: score_of(variant, task.name, task.headline) for variant in run.variants}
        groups = {
            variant: {group.name: group.value for group in score.groups} for variant, score in scores.items() if score
        }
        largest = max((value or 0.0 for known in groups.values() for value in known.values()), default=0.0)
        full = 1.0 if scale.factor == 100 else largest or 1.0
        for variant, known in groups.items():
            spanned = parts(list(known))
            if spanned is None:
                continue
            columns, rows = spanned
            body = []
            for row in rows:
                values = [known[f"{column}{CROSS}{row}"] for column in columns]
                body.append((row, tuple(Cell(scale.value(each), max(0.0, each or 0.0) / full) for each in values)))
            found.append(Grid(task.name, f"{task.headline} {'↑' if higher else '↓'}", variant, columns, tuple(body)))
    return found


def grid_lines(grid: Grid, width: int) -> Iterator[Text]:
    """A grid drawn in characters: the score and a shade for each cell; columns that do not fit stand below the others."""
    yield Text(f"{grid.task} {grid.metric}  {numbers.one_line(grid.variant)}", style="bold")
    left = 2 + max(cell_len(name) for name, _ in grid.rows)
    column = 2 + max(
        *map(cell_len, grid.columns), *(cell_len(cell.text) + 3 for _, cells in grid.rows for cell in cells)
    )
    fitting = max(1, (width - left) // column)
    for start in range(0, len(grid.columns), fitting):
        shown = slice(start, start + fitting)
        yield Text(" " * left + "".join(name.rjust(column) for name in grid.columns[shown]), style="dim")
        for name, cells in grid.rows:
            texts = (f"{cell.text} {SHADES[round(min(1.0, cell.share) * 4)] * 2}" for cell in cells[shown])
            yield Text((name.rjust(left) + "".join(text.rjust(column) for text in texts)).rstrip())


def _number(name: str) -> float:
    """What a name is sorted by; names without a number keep their order."""
    found = re.search(r"-?\d+(\.\d+)?", name)
    return float(found[0]) if found else 0.0
