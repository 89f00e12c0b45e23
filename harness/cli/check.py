"""`harness check`: does a file of tasks or methods do what it should?"""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli import options as o


def check(
    file: Annotated[str, typer.Argument(metavar="FILE[@NAME]", help="A file of tasks or methods, or a name.")],
    task_parameters: o.TaskParameters = None,
    confirm_run_unsafe_code: o.UnsafeCode = False,
) -> None:
    """Load a file's tasks and methods, render prompts, and score a perfect and a guessing model."""
    from harness.authoring.check import check_file

    given = o.settings({"task_parameters": task_parameters}).get("task_parameters", {})
    verdicts = list(check_file(file, run_unsafe_code=confirm_run_unsafe_code, parameters=given))
    typer.echo("\n\n".join(str(verdict) for verdict in verdicts))
    if any(verdict.problems for verdict in verdicts):
        raise typer.Exit(1)
