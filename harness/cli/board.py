"""`harness board`: a static site of many models and runs, or the same served on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.output import echo


def board(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR…", help="Folders of runs, searched with all inside.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="Target folder; a board that is there is replaced. Default: board.", show_default=False
        ),
    ] = Path("board"),
    title: Annotated[
        str, typer.Option("--title", help="Heading of the index; default: harness board.", show_default=False)
    ] = "harness board",
    serve: Annotated[
        bool,
        typer.Option(
            "--serve", help="Write nothing; serve the board on this machine until Ctrl-C, with runs as they go on."
        ),
    ] = False,
    port: Annotated[
        int,
        typer.Option(
            "--port", help="Port for --serve; 0: any free one. Default: 8321.", min=0, max=65535, show_default=False
        ),
    ] = 8321,
) -> None:
    """Write a static site of all runs in folders: index, models, tasks, methods; ranks, tie groups, history."""
    from harness.errors import UserError
    from harness.leaderboards.board import board_pages, write_board
    from harness.leaderboards.board_runs import RunReader

    if serve:
        _serve(folders, title, port)
        return
    runs, problems = RunReader().read(folders)
    for problem in problems:
        echo(f"skipped: {problem.message}", err=True)
    if not runs:
        where = ", ".join(f"`{folder}`" for folder in folders)
        raise UserError(f"no run in {where}", hint="name the folder that has the runs, such as `runs`")
    count = write_board(board_pages(runs, title=title, left_out=len(problems)), out)
    echo(out / "index.html")
    echo(f"{count} files from {len(runs)} runs", err=True)


def _serve(folders: list[Path], title: str, port: int) -> None:
    from harness.leaderboards.board_server import BoardServer

    with BoardServer(folders, port=port, title=title) as server:
        for problem in server.problems:
            echo(f"skipped: {problem.message}", err=True)
        echo(server.address)
        server.serve_forever()
