"""`harness diff`: the samples that one variant wins and loses against another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli import completion
from harness.cli.options import RUN, Flags, run_folder, takes
from harness.cli.output import echo

if TYPE_CHECKING:
    from harness.comparison.sample_diff import SampleDiff


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
    from harness.comparison.sample_diff_text import as_markdown, as_text
    from harness.errors import UserError
    from harness.imports.changed import MOST_SAMPLES
    from harness.imports.find import is_own

    folder = run_folder(run, flags.output_dir)
    elsewhere = folder if other is None else run_folder(other, flags.output_dir)
    read = _own if is_own(folder) and is_own(elsewhere) else _imported
    tasks, compared = read(folder, elsewhere, a, b, trusted=bool(task), most=MOST_SAMPLES if form == "json" else show)
    found, problems = [], []
    for name in task or tasks:
        try:
            found.append(compared(name))
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


def _own(
    folder: Path, other: Path, a: str, b: str, *, trusted: bool, most: int
) -> tuple[list[str], Callable[[str], SampleDiff]]:
    """The tasks of a run of our own, and the function that compares two variants on one of them."""
    from harness.comparison.sample_diff import Side, sample_diff
    from harness.runs.folder import load_run

    first = Side(load_run(folder), folder, a)
    second = Side(first.run if other == folder else load_run(other), other, b)
    return [info.name for info in first.run.tasks], lambda task: sample_diff(first, second, task, trusted=trusted)


def _imported(
    folder: Path, other: Path, a: str, b: str, *, trusted: bool, most: int
) -> tuple[list[str], Callable[[str], SampleDiff]]:
    """The same for results of which at least one is another tool's."""
    from harness.imports.changed import changed_samples, row_of
    from harness.imports.find import load

    runs = load([folder])
    first, second = row_of(runs, a), row_of(runs if other == folder else load([other]), b)
    return [task.name for task in first.tasks], lambda task: changed_samples(first, second, task, most=most)
