"""`harness diff`: the samples that one variant wins and loses against another."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from harness.cli import completion
from harness.cli.options import RUN, Flags, run_folder, takes
from harness.cli.output import echo


@takes("output_dir")
def diff(
    flags: Flags,
    run: Annotated[str, typer.Argument(metavar="RUN", autocompletion=completion.runs, help=RUN)],
    a: Annotated[str, typer.Argument(metavar="A", help="The variant in question.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The variant that it is compared with.")],
    task: Annotated[
        list[str] | None, typer.Option("--task", help="Task of the run; default: all. Its file is loaded; repeatable.")
    ] = None,
    other: Annotated[str | None, typer.Option("--other", metavar="RUN", help="The run of B, if it is another.")] = None,
    show: Annotated[int, typer.Option("--show", min=0, help="Number of samples to show for each task.")] = 10,
    form: Annotated[Literal["human", "json", "md"], typer.Option("--format", help="Format on stdout.")] = "human",
) -> None:
    """Print the samples on which two variants differ, most surprising first, with prompts, answers and targets."""
    from harness.comparison.sample_diff import Side, sample_diff
    from harness.comparison.sample_diff_text import as_markdown, as_text
    from harness.errors import UserError
    from harness.runs.folder import load_run

    folder = run_folder(run, flags.output_dir)
    first = Side(load_run(folder), folder, a)
    second = Side(first.run, folder, b)
    if other is not None:
        elsewhere = run_folder(other, flags.output_dir)
        second = Side(load_run(elsewhere), elsewhere, b)
    found, problems = [], []
    for name in task or [info.name for info in first.run.tasks]:
        try:
            found.append(sample_diff(first, second, name, trusted=bool(task)))
        except UserError as problem:
            if task:
                raise
            problems.append(problem)
    if not found and problems:
        raise problems[0]
    for each in problems:
        echo(f"left out: {each.message}", err=True)
    if form == "json":
        echo(json.dumps([each.to_dict() for each in found], indent=1, ensure_ascii=False))
    else:
        write = as_markdown if form == "md" else as_text
        echo("\n\n".join(write(shared, show) for shared in found))
