"""Finds the results in files and folders, and tells which tool wrote them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import UserError
from harness.imports import every_eval_ever, inspect_logs, lighteval, lm_eval, own, peft_comparison
from harness.imports.bounded import document
from harness.imports.record import ImportedRun
from harness.report.numbers import counted
from harness.runs.folder import DOCUMENT

_DEEPEST = 6
_MOST_FILES = 20_000
READ = (
    "our run folders; `results_*.json` of lm-evaluation-harness and lighteval; `.eval` and `.json` logs of inspect_ai; JSON files"
    " of PEFT's method_comparison and of Every Eval Ever"
)
"""Everything that is read, for messages."""


class ResultsFormat(NamedTuple):
    """A format of another tool."""

    recognizes: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Path, Mapping[str, Any]], ImportedRun]


FORMATS = (
    ResultsFormat(lm_eval.recognizes, lm_eval.read),
    ResultsFormat(inspect_logs.recognizes, inspect_logs.read),
    ResultsFormat(peft_comparison.recognizes, peft_comparison.read),
    ResultsFormat(lighteval.recognizes, lighteval.read),
    ResultsFormat(every_eval_ever.recognizes, every_eval_ever.read),
)


def is_own(path: Path) -> bool:
    """Whether a path is a run of our own, or nothing that another tool could have written."""
    if path.is_dir():
        return (path / DOCUMENT).is_file() or next(_results(path), None) is None
    if path.name == DOCUMENT or path.suffix not in (".json", ".eval") or not path.is_file():
        return True
    return path.suffix == ".json" and document(path).get("harness") is not None


def load(paths: Sequence[Path]) -> list[ImportedRun]:
    """Reads all results, each model as one run with a name of its own.

    Args:
        paths: Files and folders, in the order of the rows.

    Raises:
        UserError: A file is damaged, or a path has no results.
    """
    found: list[tuple[Path, ImportedRun]] = []
    for path in paths:
        runs = own.read(path) if is_own(path) else _merged(list(_read(path)))
        if not runs:
            raise UserError(f"`{path}` has no results", hint=f"read are {READ}")
        found += [(path, run) for run in runs]
    return _named(found)


def _read(path: Path) -> Iterator[ImportedRun]:
    if path.is_file():
        yield _file(path, None)
        return
    for file, found in _results(path):
        yield _file(file, found)


def _file(file: Path, found: Mapping[str, Any] | None) -> ImportedRun:
    if file.suffix == ".eval":
        return inspect_logs.read_zip(file)
    content = document(file) if found is None else found
    for form in FORMATS:
        if form.recognizes(content):
            return form.read(file, content)
    raise UserError(f"`{file}` is not in a format that is read", hint=f"read are {READ}")


def _results(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any] | None]]:
    """Generates the results files in a folder, in the order of their names; links are not followed.

    A damaged file is an error if its name is that of results, and is left out otherwise.
    """
    count = 0
    for where, folders, files in os.walk(folder):
        if len(Path(where).relative_to(folder).parts) >= _DEEPEST:
            folders.clear()
        folders.sort()
        for name in sorted(files):
            file = Path(where, name)
            count += 1
            if count > _MOST_FILES:
                raise UserError(
                    f"`{folder}` has more than {_MOST_FILES:,} files", hint="name the folder of the results"
                )
            if name.startswith(".") or file.is_symlink():
                continue
            if file.suffix == ".eval":
                yield file, None
            elif file.suffix == ".json":
                try:
                    found = document(file)
                except UserError:
                    if name.startswith("results"):
                        raise
                    continue
                if any(form.recognizes(found) for form in FORMATS):
                    yield file, found


def _merged(runs: list[ImportedRun]) -> list[ImportedRun]:
    """Joins the files of one model; of a task that was run twice, the newest result counts."""
    groups: dict[tuple[str, str, str], list[ImportedRun]] = {}
    for run in runs:
        groups.setdefault((run.tool.partition(" ")[0], run.model, run.spec), []).append(run)
    found = []
    for members in groups.values():
        newest = sorted(members, key=lambda run: run.created, reverse=True)
        tasks = {task.name: task for run in reversed(newest) for task in run.tasks}
        times = Counter(task.name for run in members for task in run.tasks)
        repeated = [name for name, count in times.items() if count > 1]
        notes = dict.fromkeys(note for run in members for note in run.notes)
        if repeated:
            notes[
                f"{newest[0].name}: {counted(len(repeated), 'task')} with several results files ({', '.join(repeated[:5])}):"
                " the newest counts"
            ] = None
        ordered = {task.name: None for run in members for task in run.tasks}
        found.append(replace(newest[0], tasks=tuple(tasks[name] for name in ordered), notes=tuple(notes)))
    return found


def _named(found: Sequence[tuple[Path, ImportedRun]]) -> list[ImportedRun]:
    """Gives every run a name of its own: of two of one name, the path that it was read from comes first."""
    times = Counter(run.name for _, run in found)
    named, taken = [], set[str]()
    for path, run in found:
        name = run.name if times[run.name] == 1 else f"{path.resolve().name}-{run.name}"
        unique, number = name, 2
        while unique in taken:
            unique, number = f"{name}-{number}", number + 1
        taken.add(unique)
        named.append(replace(run, name=unique))
    return named
