"""`harness show`: the tables of a run, the description of a task or method, or the exact prompt of a sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import completion
from harness.cli.options import Flags, command_line, run_folder, takes
from harness.cli.output import echo
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.authoring.preview_prompt import View
    from harness.results import Run


@takes(
    "model task_parameters num_fewshot shared_shots apply_chat_template template_options trust_remote_code output_dir baseline price_per_hour format"
)
def show(
    flags: Flags,
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN|TASK|METHOD",
            autocompletion=completion.runs,
            help="Folder or name of a run, `latest`, results of another tool, or a task or method.",
        ),
    ],
    sample: Annotated[
        int | None, typer.Option("--sample", help="Print this sample's exact prompt and its tokens, from 0.")
    ] = None,
) -> None:
    """Print a run, describe a task or method, or print the prompt of a sample."""
    if sample is not None:
        found = _view(what, sample, flags)
        echo(json.dumps(found.to_dict(), indent=1, ensure_ascii=False) if flags.format == "json" else str(found))
        return
    from harness.imports.find import is_own

    folder = run_folder(what, flags.output_dir)
    if not is_own(folder) or flags.baseline is not None:
        _print_results(folder, flags)
    elif (folder / "run.json").exists() or folder.suffix == ".json":
        _print_run(folder, flags)
    else:
        echo(_entry(what, flags.format))


def _print_run(folder: Path, flags: Flags) -> None:
    from harness.runs.folder import load_shown

    _print_tables(load_shown(folder), folder, flags)


def _print_results(path: Path, flags: Flags) -> None:
    from harness.imports.table import read_table

    _print_tables(read_table([path], command=command_line(), baseline=flags.baseline), None, flags)


def _print_tables(run: Run, folder: Path | None, flags: Flags) -> None:
    from harness.report.price import priced

    run = priced(run, flags.price())
    if flags.format == "json":
        echo(run.to_json())
        return
    from harness.report.screen import print_run

    print_run(run, folder=folder if folder is None or folder.is_dir() else folder.parent)


def _entry(what: str, form: str) -> str:
    """Describes a task or method: file, description and parameters."""
    from harness.authoring.docstrings import facts
    from harness.registry.find import find
    from harness.registry.task_spec import parse_task
    from harness.registry.values import show as written

    try:
        entry = find("task", parse_task(what).source)
    except UserError as problem:
        try:
            entry = find("method", what)
        except UserError:
            raise UserError(f"no run, task or method `{what}`", problem.hint) from None
    known = facts(entry) if entry.kind == "task" else {}
    if form == "json":
        options = {"hyperparameters": {each.name: each.default for each in entry.parameters}, **entry.options}
        method = {"name": entry.name, "summary": entry.summary, "file": str(entry.path), **options}
        return json.dumps(known or method, indent=1, ensure_ascii=False)
    lines = [f"{entry.kind} {entry.name}   {entry.place}", "", entry.docstring or "(no description)"]
    shown = ("dataset", "paper", "protocol", "chance", "shots")
    lines += [""] * bool(known) + [f"{name:<9} {known[name]}" for name in shown if known.get(name, "") != ""]
    lines += [f"metrics   {', '.join(known['metrics'])}"] if known.get("metrics") else []
    if entry.parameters:
        lines += ["", "parameters" if entry.kind == "task" else "hyperparameters"]
    for parameter in entry.parameters:
        default = written(parameter.default, parameter.annotation, parameter.default)
        lines.append(f"  {parameter.name}={default}" + (f"   {parameter.annotation}" if parameter.annotation else ""))
    if entry.kind == "method":
        lines += ["", "  ".join(f"{key}={written(value)}" for key, value in entry.options.items())]
    if known.get("example"):
        lines += ["", "example", *(f"  {line}".rstrip() for line in known["example"].splitlines())]
    return "\n".join(lines)


def _view(what: str, index: int, flags: Flags) -> View:
    """Renders one sample of a task as the model receives it."""
    from harness.authoring.preview_prompt import view
    from harness.config.config import read_template_options
    from harness.data.model_files import find_model
    from harness.prepare.template_options import with_template_options
    from harness.prompts.render import Prompting, render
    from harness.registry.find import find
    from harness.registry.load import load_task
    from harness.registry.task_spec import parse_task
    from harness.tokens.description import load_template

    model = flags.model or "tiny"
    snapshot = find_model(model, trust_remote_code=flags.trust_remote_code)
    template, options = None, read_template_options(flags.variables())
    if flags.apply_chat_template or options:
        template = load_template(snapshot.folder, trust_remote_code=flags.trust_remote_code)
        template = with_template_options(model, template, options)
    if options and not flags.apply_chat_template:
        raise UserError("`--template-option` needs the chat template", hint="add `--apply-chat-template`")
    if flags.apply_chat_template and template is None:
        raise UserError(
            f"`{model}` has no chat template", hint="drop `--apply-chat-template`, or use an instruct model"
        )
    spec = parse_task(what, flags.parameters())
    task = load_task(find("task", spec.source), spec.parameters, spec.groups)
    items = render(
        what, task, Prompting(flags.num_fewshot, template=template, shared_shots=flags.shared_shots), groups=spec.groups
    )
    if not 0 <= index < len(items):
        raise UserError(f"task `{what}` has no sample {index}", hint=f"it has {len(items)}, from 0")
    return view(what, items[index], snapshot, trust_remote_code=flags.trust_remote_code)
