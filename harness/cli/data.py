"""`harness data fetch`: copy the data of tasks from the Hub into a folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Flags, takes
from harness.cli.output import echo
from harness.errors import UserError

app = typer.Typer(help="Download the data of tasks, for machines without a network.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    pass


@app.command()
@takes("task_parameters format")
def fetch(
    flags: Flags,
    tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="TASK…", help="Tasks as in `--tasks`, or hub:owner/name[:config[:split]][@revision]."),
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Target folder; default: `$HARNESS_HOME/data`.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Download nothing; verify the files of an earlier fetch.")
    ] = False,
) -> None:
    """Copy the data of tasks from the Hub into a folder; with `HARNESS_DATA=DIR` tasks read it without a network."""
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
        echo(
            json.dumps(whole, indent=1, ensure_ascii=False)
            if flags.format == "json"
            else f"{len(parts)} files, all as fetched"
        )
        return
    if not names:
        raise UserError("no task given", hint="for example `harness data fetch gsm8k mmlu --to DIR`")
    wanted = {}
    for name in names:
        splits = splits_of(name, flags.parameters())
        wanted.update(dict.fromkeys(splits))
        if not splits:
            echo(f"`{name}` reads nothing from the Hub", err=True)
    rows = []
    try:
        for done in fetch_splits(wanted, where):
            rows.append({"split": str(done.split), "bytes": done.bytes, "new": done.new, **asdict(done.file)})
            if flags.format == "human":
                count, size = f"{done.file.rows:,} rows", f"{done.bytes / 1e6:.1f} MB"
                echo(f"{done.split}  {count}  {size}  {'fetched' if done.new else 'already there'}")
    finally:
        if flags.format == "json":
            echo(json.dumps(rows, indent=1, ensure_ascii=False))
    if wanted and flags.format == "human":
        echo(f"\nto use it: export HARNESS_DATA={where}", err=True)
