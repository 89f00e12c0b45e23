"""`harness ls`: what there is."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Annotated, Literal

import typer

from harness.cli import options as o


def ls(
    what: Annotated[Literal["tasks", "methods", "metrics", "runs"], typer.Argument(help="What to list.")],
    output_dir: o.OutputDir = None,
    form: o.Format = "human",
) -> None:
    """List tasks, methods, metrics or runs. Nothing is imported, so a broken plugin hides no other."""
    rows = _runs(output_dir) if what == "runs" else _entries(what)
    if form == "json":
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    width = max((len(row["name"]) for row in rows), default=0)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for row in rows:
        line = f"{row['name']:<{width}}  {row['summary']}".rstrip()
        typer.echo(line[: columns - 1] + "…" if columns and len(line) > columns else line)
    if not rows:
        typer.echo(f"no {what} here", err=True)


def _entries(what: Literal["tasks", "methods", "metrics"]) -> list[dict[str, str]]:
    from harness import registry

    kinds: dict[str, registry.Kind] = {"tasks": "task", "methods": "method", "metrics": "metric"}
    for name, problem in registry.broken_plugins(kinds[what]).items():
        typer.echo(f"left out `{name}`: {problem}", err=True)
    return [
        {"name": entry.name, "summary": entry.summary, "file": str(entry.path)}
        for entry in registry.list_entries(kinds[what])
    ]


def _runs(output_dir: o.OutputDir) -> list[dict[str, str]]:
    from pathlib import Path

    from harness.runs import list_runs

    rows = []
    for folder, run in list_runs(output_dir or Path("runs")):
        done = sum(variant.status == "done" for variant in run.variants)
        names = ", ".join(variant.name for variant in run.variants)
        summary = f"{run.created}  {done}/{len(run.variants)} done: {names}"
        rows.append({"name": folder.name, "summary": summary, "file": str(folder)})
    return rows
