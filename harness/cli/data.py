"""`harness data fetch`: what tasks read from the Hub, copied into a folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options as o
from harness.errors import UserError

app = typer.Typer(help="Fetch the data of tasks, for machines without a network.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    pass


@app.command()
def fetch(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="TASK…", help="Tasks as in `--tasks`, or hub:owner/name[:config[:split]][@revision]."),
    ] = None,
    to: Annotated[Path | None, typer.Option(help="The folder; default `$HARNESS_HOME/data`.")] = None,
    task_parameters: o.TaskParameters = None,
    check: Annotated[bool, typer.Option("--check", help="Fetch nothing: see that every file is as fetched.")] = False,
    form: o.Format = "human",
) -> None:
    """Copy what tasks read from the Hub into a folder; `HARNESS_DATA=DIR` then reads from there, without a network."""
    from harness.authoring.task_splits import splits_of
    from harness.data.fetch import fetch as fetch_splits
    from harness.data.fetch import verify
    from harness.data.files import expand
    from harness.storage import home

    where = expand(to) if to else home() / "data"
    names = [part for text in tasks or [] for part in text.split(",") if part]
    if check:
        parts = verify(where)
        whole = [asdict(part) for part in parts]
        typer.echo(
            json.dumps(whole, indent=1, ensure_ascii=False) if form == "json" else f"{len(parts)} files, all as fetched"
        )
        return
    if not names:
        raise UserError("no task is named", hint="for example `harness data fetch gsm8k mmlu --to DIR`")
    wanted = {}
    for name in names:
        splits = splits_of(name, o.settings({"task_parameters": task_parameters}).get("task_parameters"))
        wanted.update(dict.fromkeys(splits))
        if not splits:
            typer.echo(f"`{name}` reads nothing from the Hub", err=True)
    rows = []
    try:
        for done in fetch_splits(wanted, where):
            rows.append({"split": str(done.split), "bytes": done.bytes, "new": done.new, **asdict(done.file)})
            if form == "human":
                count, size = f"{done.file.rows:,} rows", f"{done.bytes / 1e6:.1f} MB"
                typer.echo(f"{done.split}  {count}  {size}  {'fetched' if done.new else 'there already'}")
    finally:
        if form == "json":
            typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    if wanted and form == "human":
        typer.echo(f"\nto use it: export HARNESS_DATA={where}", err=True)
