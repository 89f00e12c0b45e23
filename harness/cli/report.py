"""`harness report`: write tables and pages from finished runs, of our own and of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import completion
from harness.cli.options import RESULTS, Flags, command_line, run_folder, takes
from harness.cli.output import echo


@takes("output_dir baseline price_per_hour")
def report(
    flags: Flags,
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", autocompletion=completion.runs, help=RESULTS)],
    to: Annotated[
        str, typer.Option("--to", help="Formats: md, html, csv, parquet, json, tex, svg, png; comma-separated.")
    ] = "md",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Target folder; default: the run's own; this folder for several runs or other tools."
        ),
    ] = None,
) -> None:
    """Write reports from run.json files, or from results of other tools, and print their paths."""
    from harness.imports.find import is_own
    from harness.imports.table import read_table
    from harness.leaderboards import export
    from harness.report.price import priced
    from harness.runs.folder import load_shown

    folders = [run_folder(name, flags.output_dir) for name in runs]
    if all(map(is_own, folders)) and flags.baseline is None:
        loaded = [load_shown(folder) for folder in folders]
    else:
        loaded = [read_table(folders, command=command_line(), baseline=flags.baseline)]
    own = folders[0] if folders[0].is_dir() else folders[0].parent
    target = out or (own if len(folders) == 1 and is_own(folders[0]) else Path())
    priced_runs = [priced(run, flags.price()) for run in loaded]
    for path in export(priced_runs, [part.strip() for part in to.split(",") if part.strip()], target):
        echo(path)
