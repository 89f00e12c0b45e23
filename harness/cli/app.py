"""The application: all commands and their groups in `--help`."""

from __future__ import annotations

from typing import Annotated

import typer

from harness import __version__
from harness.cli.bench import bench
from harness.cli.board import board
from harness.cli.check import check
from harness.cli.compare import compare
from harness.cli.data import app as data
from harness.cli.diff import diff
from harness.cli.env import env
from harness.cli.eval import evaluate
from harness.cli.export import export
from harness.cli.ls import ls
from harness.cli.new import new
from harness.cli.output import echo
from harness.cli.plan import plan
from harness.cli.publish import publish
from harness.cli.report import report
from harness.cli.schema import schema
from harness.cli.show import show
from harness.cli.train import train

app = typer.Typer(
    help="Which way of fine-tuning is worth it, for this model, this data and this hardware?",
    epilog="First try: `harness compare base lora qlora` (the embedded model, no network, a few minutes on a CPU).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),  # lm-eval spells it `--num_fewshot`
    },
)

_COMPARE, _INSPECT, _EXTEND = "Compare", "Inspect", "Extend"
app.command("compare", rich_help_panel=_COMPARE)(compare)
app.command("eval", rich_help_panel=_COMPARE)(evaluate)
app.command("train", rich_help_panel=_COMPARE)(train)
app.command("bench", rich_help_panel=_COMPARE)(bench)
app.command("plan", rich_help_panel=_COMPARE)(plan)
app.command("ls", rich_help_panel=_INSPECT)(ls)
app.command("show", rich_help_panel=_INSPECT)(show)
app.command("diff", rich_help_panel=_INSPECT)(diff)
app.command("report", rich_help_panel=_INSPECT)(report)
app.command("board", rich_help_panel=_INSPECT)(board)
app.command("export", rich_help_panel=_INSPECT)(export)
app.command("publish", rich_help_panel=_INSPECT)(publish)
app.command("schema", rich_help_panel=_INSPECT)(schema)
app.command("env", rich_help_panel=_INSPECT)(env)
app.add_typer(data, name="data", rich_help_panel=_INSPECT)
app.command("check", rich_help_panel=_EXTEND)(check)
app.command("new", rich_help_panel=_EXTEND)(new)


def _print_version(requested: bool) -> None:
    if requested:
        echo(f"harness {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
