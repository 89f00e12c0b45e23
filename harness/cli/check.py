"""`harness check`: validate a file of tasks or methods."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import Flags, takes
from harness.cli.output import echo


@takes("task_parameters confirm_run_unsafe_code")
def check(
    flags: Flags,
    file: Annotated[str, typer.Argument(metavar="FILE[@NAME]", help="A file of tasks or methods, or the name of one.")],
) -> None:
    """Load a file's tasks and methods, render prompts, and score a perfect and a guessing model."""
    from harness.authoring.check import check_file

    unsafe = flags.confirm_run_unsafe_code
    results = list(check_file(file, run_unsafe_code=unsafe, parameters=flags.parameters()))
    echo("\n\n".join(str(result) for result in results))
    if any(result.problems for result in results):
        raise typer.Exit(1)
