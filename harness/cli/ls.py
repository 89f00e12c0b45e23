"""`harness ls`: list tasks, methods, metrics or runs."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from harness.cli.options import Flags, takes
from harness.cli.output import echo
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.registry.scan import Entry
    from harness.results import Run


@takes("model trust_remote_code output_dir format")
def ls(
    flags: Flags,
    what: Annotated[Literal["tasks", "methods", "metrics", "runs"], typer.Argument(help="What to list.")],
) -> None:
    """List tasks, methods, metrics or runs. Plugins are not imported, so a broken one does not hide the others.

    `harness ls methods -m MODEL` shows the share of the model's weights between embeddings and output head that each method
    adapts or trains with its defaults, computed from the configuration alone.
    """
    rows = _runs(flags.output_dir) if what == "runs" else _entries(what)
    if what == "methods" and flags.model:
        _add_shares(rows, flags.model, flags.trust_remote_code)
    if flags.format == "json":
        echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    if what == "methods":
        lines = _methods(rows, _width())
    else:
        columns = ("name", "headline", "shots", "summary") if what == "tasks" else ("name", "summary")
        lines = _table(rows, columns, _width())
    for line in lines:
        echo(line)
    if not rows:
        echo(f"no {what} found", err=True)


def _width() -> int | None:
    """Returns the width to cut lines to; None for a pipe or file, which gets whole lines."""
    columns = os.environ.get("COLUMNS", "")
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or columns.isdigit() else None


def _methods(rows: Sequence[dict[str, Any]], width: int | None) -> list[str]:
    """Lays out a table of methods; the line below each says which parameters it trains."""
    yes_no = {True: "yes", False: "no"}
    shown = [
        {**row, "lr": f"{row['lr']:g}", **{key: yes_no[row[key]] for key in ("mergeable", "checkpointing")}}
        for row in rows
    ]
    columns: tuple[str, ...] = ("name", "lr", "mergeable", "checkpointing", "padding", "summary")
    if rows and "reaches" in rows[0]:
        columns = ("name", "reaches", *columns[1:])
        shown = [{**row, "reaches": _share(row["reaches"])} for row in shown]
    heads = {
        "name": "method",
        "mergeable": "merge",
        "checkpointing": "ckpt",
        "padding": "pad",
        "summary": "what it does",
    }
    head, *table = _table(shown, columns, width, heads)
    lines = [head]
    for row, line in zip(rows, table, strict=True):
        trains = f"trains {row['parameters'] or '?'}"
        lines += [line, *textwrap.wrap(trains, width or 10_000, initial_indent="    ", subsequent_indent="    ")]
        if row.get("reaches_reason"):
            lines.append(f"    no share: {row['reaches_reason']}")
    return lines


def _add_shares(rows: list[dict[str, Any]], model: str, trust_remote_code: bool) -> None:
    """Adds the share of a model's weights that each method reaches: `reaches`, and `reaches_reason` where it is unknown."""
    from harness.comparison.memory_plan import method_shares
    from harness.registry.find import find

    entries = [find("method", row["name"]) for row in rows]
    for row, share in zip(rows, method_shares(model, entries, trust_remote_code=bool(trust_remote_code)), strict=True):
        row["reaches"] = None if isinstance(share, str) else share
        row["reaches_reason"] = (
            share if isinstance(share, str) else None if share else "it only adds weights of its own"
        )


def _share(share: float | None) -> str:
    """A share as text.

    Example:
        >>> _share(0.0289), _share(0.0002), _share(None)
        ('3 %', '<1 %', '-')
    """
    if share is None:
        return "-"
    return f"{share:.0%}".replace("%", " %") if share >= 0.005 else "<1 %"


_TASK_HEADS = {"name": "task", "summary": "what it measures"}


def _table(
    rows: Sequence[dict[str, Any]], columns: Sequence[str], width: int | None, heads: dict[str, str] = _TASK_HEADS
) -> list[str]:
    """Lays out rows in columns, lines cut to the width; with more than two columns there is a header."""
    from rich.cells import cell_len, set_cell_size

    cells = [[str(row[column]) for column in columns] for row in rows]
    if len(columns) > 2 and cells:
        cells.insert(0, [heads.get(column, column) for column in columns])
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [
            " " * (size - cell_len(text)) + text if text.isdigit() else set_cell_size(text, size)
            for text, size in zip(row, widths, strict=True)
        ]
        line = "  ".join(padded).rstrip()
        lines.append(set_cell_size(line, width - 1).rstrip() + "…" if width and cell_len(line) > width else line)
    return lines


def _entries(what: Literal["tasks", "methods", "metrics"]) -> list[dict[str, Any]]:
    from harness.authoring.docstrings import facts
    from harness.registry import find
    from harness.registry.scan import Kind

    kinds: dict[str, Kind] = {"tasks": "task", "methods": "method", "metrics": "metric"}
    for name, problem in find.broken_plugins(kinds[what]).items():
        echo(f"skipped `{name}`: {problem}", err=True)
    entries = find.list_entries(kinds[what])
    if what == "tasks":
        return [{**known, "headline": (known["metrics"] or ["?"])[0]} for known in map(facts, entries)]
    return [
        {
            "name": entry.name,
            **entry.options,
            "summary": entry.summary,
            **_hyperparameters(entry),
            "file": str(entry.path),
        }
        for entry in entries
    ]


def _hyperparameters(entry: Entry) -> dict[str, Any]:
    if entry.kind != "method":
        return {}
    return {"hyperparameters": {parameter.name: parameter.default for parameter in entry.parameters}}


def _runs(output_dir: Path | None) -> list[dict[str, Any]]:
    from harness.runs.folder import is_live, list_runs

    rows = []
    skipped: list[UserError] = []
    for folder, run in list_runs(output_dir or Path("runs"), skipped):
        done = sum(variant.status == "done" for variant in run.variants)
        names = ", ".join(variant.name for variant in run.variants)
        live = "" if done == len(run.variants) else ", running" if is_live(folder) else _ending(run)
        summary = f"{run.created}  {done}/{len(run.variants)} done{live}: {names}"
        rows.append({"name": folder.name, "summary": summary, "file": str(folder)})
    for problem in skipped:
        echo(f"skipped: {problem.message}", err=True)
    return rows


def _ending(run: Run) -> str:
    """How a run without a process ended, if not all of its variants are done."""
    failed = sum(variant.status == "failed" for variant in run.variants)
    done = sum(variant.status == "done" for variant in run.variants)
    return (f", {failed} failed" if failed else "") + (", interrupted" if done + failed < len(run.variants) else "")
