"""`harness show`: a run's tables, or what a task or method is, or the exact prompt of a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options as o
from harness.errors import UserError


def show(
    what: Annotated[str, typer.Argument(metavar="RUN|TASK|METHOD", help="Folder or name of a run, a task, a method.")],
    sample: Annotated[int | None, typer.Option(help="Print this sample's exact prompt, from 0.")] = None,
    num_fewshot: o.NumFewshot = None,
    task_parameters: o.TaskParameters = None,
    output_dir: o.OutputDir = None,
    form: o.Format = "human",
) -> None:
    """Print a run again, describe a task or method, or show what a model is asked."""
    if sample is not None:
        typer.echo(_sample(what, sample, num_fewshot, o.settings({"task_parameters": task_parameters})))
        return
    folder = o.run_folder(what, output_dir)
    if (folder / "run.json").exists() or folder.suffix == ".json":
        _print_run(folder, form)
    else:
        typer.echo(_entry(what))


def _print_run(folder: Path, form: str) -> None:
    from harness.runs import load_run

    run = load_run(folder)
    if form == "json":
        typer.echo(run.to_json())
        return
    from harness.report import print_run

    print_run(run, folder=folder if folder.is_dir() else folder.parent)


def _entry(what: str) -> str:
    """A task's or method's place, description and parameters."""
    from harness.registry import find, parse_task
    from harness.values import show as written

    try:
        entry = find("task", parse_task(what).source)
    except UserError as problem:
        try:
            entry = find("method", what)
        except UserError:
            raise UserError(f"no run, task or method `{what}`", problem.hint) from None
    lines = [f"{entry.kind} {entry.name}   {entry.place}", "", entry.docstring or "(no description)"]
    if entry.parameters:
        lines += ["", "parameters" if entry.kind == "task" else "hyperparameters"]
    for parameter in entry.parameters:
        default = written(parameter.default, parameter.annotation, parameter.default)
        lines.append(f"  {parameter.name}={default}" + (f"   {parameter.annotation}" if parameter.annotation else ""))
    if entry.kind == "method":
        lines += ["", "  ".join(f"{key}={written(value)}" for key, value in entry.options.items())]
    return "\n".join(lines)


def _sample(what: str, index: int, shots: int | None, given: dict[str, dict[str, str]]) -> str:
    """The prompt of one sample as a model without a chat template gets it, and what would be right."""
    from harness.registry import find, load_task, parse_task
    from harness.render import Prompting, render
    from harness.samples import answer_text

    spec = parse_task(what, given.get("task_parameters"))
    items = render(what, load_task(find("task", spec.source), spec.parameters), Prompting(shots), groups=spec.groups)
    if not 0 <= index < len(items):
        raise UserError(f"task `{what}` has no sample {index}", hint=f"it has {len(items)}, from 0")
    request, sample = items[index].request, items[index].sample
    parts = [f"── {request.mode} {request.id}"]
    for context in request.contexts:
        if request.mode != "text":
            parts += ["── prompt", context]
    if request.mode == "generate":
        parts += [
            f"── stop {list(request.stop)}, at most {request.max_tokens} tokens",
            "── target",
            answer_text(sample),
        ]
    else:
        parts += ["── scored", *(repr(text) for text in request.continuations)]
        parts += ["── right", repr(answer_text(sample))] if request.mode == "choose" else []
    return "\n".join(parts)
