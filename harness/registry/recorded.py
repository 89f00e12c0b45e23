"""The method that a folder records: which function made the delta in it, and with which hyperparameters.

Anybody can write such a folder, so `method.json` can name built-in methods and plugins, but a file only if the user named
that file in the same command (`--allow-code`, or as a method of the run). Its hyperparameters must be those of the method.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.jobs import Method
from harness.registry.find import find, find_installed, split_path
from harness.registry.scan import Entry
from harness.registry.values import read
from harness.storage import read_json

RECORD = "method.json"


def recorded_method(folder: Path, code: Collection[Path] = ()) -> Method | None:
    """The method that saved the delta in a folder, from `method.json`; None without that file (PEFT adapters have none).

    Args:
        folder: The artifact.
        code: The Python files that the user named, and that may therefore run.

    Raises:
        UserError: `method.json` is malformed, or names a method that does not exist or a file that the user did not name.
    """
    record = folder / RECORD
    if not record.is_file():
        return None
    try:
        content = read_json(record)
        name, given = content["method"], content["hyperparameters"]
        if not isinstance(name, str) or not isinstance(given, dict):
            raise TypeError("`method` must be a text, and `hyperparameters` an object")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"`{record}` is malformed: {error!r}",
            hint='it needs the keys "method" and "hyperparameters", as a training run writes them; train again',
        ) from error
    entry = find_installed("method", name) or _in_named_file(record, name, code)
    return Method(entry.name, entry.path, entry.module, _checked(record, entry, given))


def _in_named_file(record: Path, source: str, code: Collection[Path]) -> Entry:
    """The method in a file that the user named: the recorded file, or one with the same file name on this machine."""
    path, name = split_path(source)
    if path.suffix != ".py":
        raise UserError(
            f"`{record}` names the method `{source}`, which is neither built in nor installed",
            hint="list methods with `harness ls methods`; install the package that has this one",
        )
    same = [file for file in code if file.resolve() == path.resolve()]
    file = next(iter(same or [file for file in code if file.name == path.name]), None)
    if file is None:
        raise UserError(
            f"`{record}` names the Python file `{path}`, and only code that you name yourself runs",
            hint=f"read that file; if you trust it, name it in the command: `--allow-code {path}`",
        )
    return find("method", f"{file}@{name}" if name else str(file))


def _checked(record: Path, entry: Entry, given: dict[str, Any]) -> dict[str, Any]:
    """Recorded hyperparameters, each declared by the method and of its type."""
    declared = {parameter.name: parameter for parameter in entry.parameters}
    for name, value in given.items():
        if name not in declared:
            raise UserError(
                f"`{record}` has the hyperparameter `{name}`, which method `{entry.name}` does not declare",
                hint="the method's code has changed, or the file was edited: train again",
            )
        try:
            read(value, declared[name].annotation, declared[name].default)
        except ValueError as error:
            raise UserError(f"`{record}`, hyperparameter `{name}`: {error}", hint="train again") from error
    return given
