"""`harness report`: write tables and pages from finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import completion
from harness.cli.options import RUN, Flags, run_folder, takes
from harness.cli.output import echo


@takes("output_dir price_per_hour")
def report(
    flags: Flags,
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", autocompletion=completion.runs, help=RUN)],
    to: Annotated[
        str, typer.Option("--to", help="Formats: md, html, csv, parquet, json, tex, svg, png; comma-separated.")
    ] = "md",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Target folder; default: the run's own, or this folder for several runs."),
    ] = None,
) -> None:
    """Write reports from run.json files and print their paths."""
    from harness.leaderboards import export
    from harness.report.price import priced
    from harness.runs.folder import load_shown

    folders = [run_folder(name, flags.output_dir) for name in runs]
    loaded = [priced(load_shown(folder), flags.price()) for folder in folders]
    own = folders[0] if folders[0].is_dir() else folders[0].parent
    target = out or (own if len(folders) == 1 else Path())
    for path in export(loaded, [part.strip() for part in to.split(",") if part.strip()], target):
        echo(path)
