"""Heat maps of tasks whose groups form a grid (`1000 words × 50 %`), one for each variant.

Groups form a grid if each name is two parts joined by ` × ` and every first part is combined with every second part. Each
cell shows its score as a number and as a shade.

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
from harness.report.scores import scale_of, titles
from harness.results import Run

CROSS = " × "
SHADES = " ░▒▓█"


@dataclass(frozen=True)
class Tile:
    """A score within one group."""

    text: str
    share: float
    """Darkness of the tile: 0–1."""


@dataclass(frozen=True)
class Grid:
    """One variant's headline score in each group of a task."""

    task: str
    metric: str
    """With the arrow of its direction."""
    variant: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Tile, ...]], ...]
    """Name and tiles of each row."""


def parts(groups: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Names the columns and rows of a grid, smaller numbers first; None if the groups do not form one."""
    pairs = [group.split(CROSS) for group in groups]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        return None
    columns, rows = (tuple(sorted(dict.fromkeys(side), key=_number)) for side in zip(*pairs, strict=True))
    is_full = len(set(groups)) == len(columns) * len(rows) > max(len(columns), len(rows))
    return (columns, rows) if is_full else None


def grids(run: Run) -> list[Grid]:
    """Makes the grids of all tasks and variants of a run."""
    found = []
    for task in run.tasks:
        scale = scale_of(run, task.name, task.headline)
        metric = numbers.with_arrow(task.headline, task.higher_is_better(task.headline))
        scores = {variant.name: variant.headline(task) for variant in run.variants}
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
                body.append((row, tuple(Tile(scale.value(each), max(0.0, each or 0.0) / full) for each in values)))
            found.append(Grid(titles(run)[task.name], metric, variant, columns, tuple(body)))
    return found


def grid_lines(grid: Grid, width: int) -> Iterator[Text]:
    """Draws a grid as text: a score and a shade for each tile; columns that do not fit continue below."""
    yield Text(f"{grid.task} {grid.metric}  {numbers.one_line(grid.variant)}", style="bold")
    left = 2 + max(cell_len(name) for name, _ in grid.rows)
    column = 2 + max(
        *map(cell_len, grid.columns), *(cell_len(tile.text) + 3 for _, tiles in grid.rows for tile in tiles)
    )
    fitting = max(1, (width - left) // column)
    for start in range(0, len(grid.columns), fitting):
        shown = slice(start, start + fitting)
        yield Text(" " * left + "".join(name.rjust(column) for name in grid.columns[shown]), style="dim")
        for name, tiles in grid.rows:
            texts = (f"{tile.text} {SHADES[round(min(1.0, tile.share) * 4)] * 2}" for tile in tiles[shown])
            yield Text((name.rjust(left) + "".join(text.rjust(column) for text in texts)).rstrip())


def _number(name: str) -> float:
    """Sort key of a name; names without a number keep their order."""
    found = re.search(r"-?\d+(\.\d+)?", name)
    return float(found[0]) if found else 0.0
