"""`harness publish`: send results, or the page, of a finished run to the Hub."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from harness.cli import completion
from harness.cli.options import RUN, Flags, run_folder, takes
from harness.cli.output import echo
from harness.errors import UserError


@takes("output_dir")
def publish(
    flags: Flags,
    run: Annotated[str, typer.Argument(metavar="RUN", autocompletion=completion.runs, help=RUN)],
    to: Annotated[str, typer.Option("--to", metavar="OWNER/NAME", help="Repository on the Hub.")],
    kind: Annotated[
        Literal["dataset", "space"],
        typer.Option("--as", help="`dataset`: tables and run.json; `space`: the page as a static Space."),
    ] = "dataset",
    samples: Annotated[
        bool, typer.Option("--samples", help="Include prompts and outputs of samples; default: numbers only.")
    ] = False,
    public: Annotated[bool, typer.Option("--public", help="Let everybody read it; default: private.")] = False,
    create_pr: Annotated[
        bool | None,
        typer.Option("--create-pr/--no-create-pr", help="Open a pull request; default: for repositories of others."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Send without asking.")] = False,
) -> None:
    """Show what would change in a repository on the Hub, ask, and send it as one commit."""
    from huggingface_hub import HfApi

    from harness.data.patience import be_patient
    from harness.leaderboards.hub_repository import find_destination, send
    from harness.leaderboards.published_files import files_of, limits
    from harness.runs.folder import load_shown

    folder = run_folder(run, flags.output_dir)
    loaded = load_shown(folder)
    made = files_of(loaded, folder if folder.is_dir() else folder.parent, kind, samples=samples)
    be_patient()
    api = HfApi()
    found = find_destination(api, to, kind, made, public=public, create_pr=create_pr)
    if not found.changes:
        echo(f"{kind} {to} already has these files")
        return
    seen = "private" if found.private else "public"
    way = "a pull request to" if found.pull_request else "a commit to" if found.head else "a new repository,"
    echo(f"{way} {kind} {to} ({seen})", err=True)
    echo(found.difference, err=True)
    for sentence in limits(loaded):
        echo(f"note: {sentence} The card says so.", err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("nobody can be asked here; nothing was sent", hint="give `--yes` to send it")
        if not typer.confirm("Send it?", err=True):
            echo("nothing was sent", err=True)
            return
    title = "Results of a limited run of harness compare" if limits(loaded) else "Results of harness compare"
    echo(send(api, found, title))
