"""Finds tasks, methods and metrics: by path, by name, by entry point.

Finding reads files with `ast` and imports nothing, so listing is quick, one broken plugin hides no other, and a
hyperparameter is checked before torch is loaded. Only `load_task` and `load_method` import, and only what was asked for.

- a path: `./x.py`, `./x.py@name`, a folder, `./folder@name`;
- a name: the files of `harness.tasks`, `harness.finetune` and `harness.metrics`;
- an entry point of the groups `harness.tasks`, `harness.methods`, `harness.metrics`, as `name` or `distribution/name`.

Example:
    >>> entry = find("method", "lora")
    >>> entry.module, [parameter.name for parameter in entry.parameters][:2]
    ('harness.finetune.lora', ['rank', 'alpha'])
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from harness import metrics
from harness.api import MethodFunction, Metric, Task, TaskFunction
from harness.errors import UserError, did_you_mean, plugin_error
from harness.jobs import Method
from harness.registry.scan import Entry as Entry
from harness.registry.scan import Kind as Kind
from harness.registry.scan import Parameter as Parameter
from harness.registry.scan import maker_entry, scan
from harness.registry.values import read, unquote

_PACKAGES: Mapping[Kind, str] = {"task": "harness.tasks", "method": "harness.finetune", "metric": "harness.metrics"}


@dataclass(frozen=True)
class TaskSpec:
    """A task as asked for: `mmlu:anatomy+virology`, `./capitals.py@capitals`."""

    text: str
    """As typed; what results call the task."""
    source: str
    """What `find` takes."""
    groups: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)


def list_entries(kind: Kind) -> list[Entry]:
    """Every built-in and every plugin of a kind, by name. Broken plugins are left out (`broken_plugins` tells)."""
    entries = {entry.name: entry for entry in _plugins(kind)[0]} | {entry.name: entry for entry in _built_in(kind)}
    return sorted(entries.values(), key=lambda entry: entry.name)


def broken_plugins(kind: Kind) -> dict[str, str]:
    """Entry points that could not be read: name to what is wrong with them."""
    return _plugins(kind)[1]


def find(kind: Kind, source: str) -> Entry:
    """The one entry that `source` names.

    Raises:
        UserError: There is none (with the nearest names), or there are several.

    Example:
        >>> find("task", "mini_gsm9k")
        Traceback (most recent call last):
        ...
        harness.errors.UserError: unknown task `mini_gsm9k`
    """
    entries = find_all(kind, source)
    if len(entries) > 1:
        names = ", ".join(f"`{entry.name}` (line {entry.line})" for entry in entries)
        raise UserError(f"`{source}` holds {len(entries)} {kind}s: {names}", hint=f"write `{source}@{entries[0].name}`")
    return entries[0]


def find_all(kind: Kind, source: str) -> list[Entry]:
    """Like `find`, but a file or folder without `@name` gives all that it holds."""
    path, name = split_path(source)
    if _is_path(source):
        return _in_path(kind, source, path, name)
    built_in = [entry for entry in _built_in(kind) if entry.name == source]
    if built_in:
        return [_only(kind, built_in)]
    plugins, failures = _plugins(kind)
    matches = [entry for entry in plugins if source in (entry.name, f"{entry.distribution}/{entry.name}")]
    if matches:
        return [_only(kind, matches)]
    if source in failures:
        raise UserError(
            f"{kind} `{source}` could not be read: {failures[source]}", hint="mend or uninstall that plugin"
        )
    if path.is_dir():
        return _in_path(kind, source, path, name)
    known = [entry.name for entry in list_entries(kind)]
    raise UserError(
        f"unknown {kind} `{source}`", hint=did_you_mean(source, known, listing=f"list them with `harness ls {kind}s`")
    )


def split_path(source: str) -> tuple[Path, str | None]:
    """A file or folder and the name after its `@`, if any.

    Example:
        >>> split_path("./x.py@rslora")
        (PosixPath('x.py'), 'rslora')
    """
    whole = Path(source).expanduser()
    head, at, name = source.rpartition("@")
    return (Path(head).expanduser(), name) if at and head and not whole.exists() else (whole, None)


def parse_task(text: str, parameters: Mapping[str, Any] | None = None) -> TaskSpec:
    """Reads `NAME[:GROUP{+GROUP}]` or `PATH[@NAME]`, and types those of `parameters` that the task has.

    Args:
        text: As typed.
        parameters: Values of `-T key=value`, as texts or typed.

    Raises:
        UserError: The text is malformed, the task unknown (only looked up when there are parameters), or a value is
            not of its parameter's type.

    Example:
        >>> parse_task("mmlu:anatomy+virology").groups
        ('anatomy', 'virology')
    """
    source, colon, groups_text = text.partition(":")
    groups = tuple(groups_text.split("+")) if colon else ()
    if not source or not all(groups):
        raise UserError(f"malformed task `{text}`", hint="write NAME, NAME:GROUP, NAME:GROUP+GROUP or PATH@NAME")
    if not parameters:
        return TaskSpec(text, source, groups)
    known = {parameter.name: parameter for parameter in find("task", source).parameters}
    typed = {}
    for key, value in parameters.items():
        if key in known:
            try:
                value = unquote(value) if isinstance(value, str) else value
                typed[key] = read(value, known[key].annotation, known[key].default)
            except ValueError as error:
                raise UserError(f"task `{source}`, parameter `{key}`: {error}") from None
    return TaskSpec(text, source, groups, typed)


def load_task(entry: Entry, parameters: Mapping[str, Any]) -> Task:
    """Imports the entry's file and calls the function with `parameters`.

    Raises:
        UserError: The task has no such parameter, or the file fails; then only the file's own frames are shown.
    """
    known = [parameter.name for parameter in entry.parameters]
    for key in parameters:
        if key not in known:
            raise UserError(f"task `{entry.name}` has no parameter `{key}`", hint=did_you_mean(key, known))
    function = _load(entry)
    if not isinstance(function, TaskFunction):
        raise UserError(f"`{entry.attribute}` of {entry.path.name} is no longer a task after the import")
    try:
        made: Any = function(**parameters)
    except (Exception, SystemExit) as error:
        call = f"import {entry.path.stem}; {entry.path.stem}.{entry.attribute}()"
        raise plugin_error(
            entry.path, error, hint=f'run `python -c "{call}"` in its folder for the full traceback'
        ) from error
    if not isinstance(made, Task):
        raise UserError(f"task `{entry.name}` returned a {type(made).__name__}, not a Task", hint=f"see {entry.place}")
    return made


def load_method(entry: Entry) -> MethodFunction:
    """Imports the entry's file and gives its method.

    Raises:
        UserError: The file fails; then only its own frames are shown.
    """
    function = _load(entry)
    if not isinstance(function, MethodFunction):
        raise UserError(f"`{entry.attribute}` of {entry.path.name} is no longer a method after the import")
    return function


def find_metric(name: str, folder: Path | None = None) -> Metric:
    """The metric of that name: built-in, `pass@K`, `evaluate:NAME[:KEY]`, `./file.py@name`, or a plugin's.

    Args:
        name: As a task or a user writes it.
        folder: Where relative paths start, if the file is there; else, and when not given, in the working folder.

    Raises:
        UserError: There is none, or its file fails.

    Example:
        >>> find_metric("word_ppl").higher_is_better
        False
    """
    if name in metrics.names() or re.match(r"evaluate:|pass@\d", name):
        return metrics.find(name, folder)
    if folder is not None and _is_path(name) and (folder / split_path(name)[0]).exists():
        name = str(folder / name)
    entry = find("metric", name)
    metric = _load(entry)
    if not isinstance(metric, Metric):
        raise UserError(f"`{entry.attribute}` of {entry.path.name} is not a metric", hint=f"see {entry.place}")
    return metric


def task_metrics(task: Task, folder: Path | None = None) -> tuple[Metric, ...]:
    """The metrics of a task, those given by name found.

    Args:
        task: The task.
        folder: That of the task's file, where the relative paths of its metrics start.

    Raises:
        UserError: There is no metric of a name, or two have the same.
    """
    found = tuple(find_metric(each, folder) if isinstance(each, str) else each for each in task.metrics)
    names = [metric.name for metric in found]
    if len(set(names)) < len(names):
        raise UserError(f"two metrics of a task have the same name: {', '.join(names)}", hint="rename one of them")
    return found


def source_digest(entry: Entry) -> str:
    """SHA-256 of the entry's file, in hex."""
    return hashlib.sha256(entry.path.read_bytes()).hexdigest()


def _is_path(source: str) -> bool:
    path, _ = split_path(source)
    return path.suffix == ".py" or source.startswith((".", "/", "~")) or ("/" in source and path.is_dir())


def _in_path(kind: Kind, source: str, path: Path, name: str | None) -> list[Entry]:
    if not path.exists():
        nearby = [near.name for near in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UserError(
            f"no file `{path}` (asked for as {kind} `{source}`)",
            hint=did_you_mean(path.name, nearby) if nearby else "check the path",
        )
    files = sorted(path.glob("*.py")) if path.is_dir() else [path]
    entries = [entry for file in files for entry in scan(file) if entry.kind == kind]
    for entry in entries:
        _only(kind, [other for other in entries if other.name == entry.name])
    if not entries:
        raise UserError(
            f"`{path}` holds no {kind}",
            hint=f"decorate its function with `@{kind}`, after `from harness import {kind}`"
            if kind != "metric"
            else 'write `name = Metric("name", …)`, after `from harness import Metric`',
        )
    if name is None:
        return entries
    for entry in entries:
        if entry.name == name:
            return [entry]
    raise UserError(f"`{path}` holds no {kind} `{name}`", hint=did_you_mean(name, [entry.name for entry in entries]))


def _only(kind: Kind, entries: Sequence[Entry]) -> Entry:
    if len(entries) > 1:
        first, second = entries[:2]
        hint = "rename one of them"
        if first.distribution and second.distribution:
            hint = f"write `{first.distribution}/{first.name}` or `{second.distribution}/{second.name}`"
        raise UserError(f"{kind} `{first.name}` is defined twice: {first.place} and {second.place}", hint=hint)
    return entries[0]


def _built_in(kind: Kind) -> list[Entry]:
    package = _PACKAGES[kind]
    spec = importlib.util.find_spec(package)  # imports no more than `harness` itself
    folders = [Path(folder).resolve() for folder in (spec.submodule_search_locations or [] if spec else [])]
    entries = [
        replace(entry, module=f"{package}.{file.stem}")
        for folder in folders
        for file in sorted(folder.glob("*.py"))
        for entry in scan(file)
        if entry.kind == kind
    ]
    if kind == "metric":
        for family, (stem, maker) in metrics.FAMILIES.items():
            entries += [maker_entry(folder / f"{stem}.py", maker, family) for folder in folders]
    return entries


def _plugins(kind: Kind) -> tuple[list[Entry], dict[str, str]]:
    """Entries from entry points, and what is wrong with those that could not be read."""
    return _plugins_on(kind, tuple(sys.path))


@functools.lru_cache
def _plugins_on(kind: Kind, path: tuple[str, ...]) -> tuple[list[Entry], dict[str, str]]:
    """Reading the metadata of all that is installed takes a while, so it is done once for each `sys.path`."""
    entries: list[Entry] = []
    failures: dict[str, str] = {}
    for point in importlib.metadata.entry_points(group=f"harness.{kind}s"):
        distribution = point.dist.name if point.dist else ""
        try:
            file = _module_file(point.module)
            found = [entry for entry in scan(file) if entry.kind == kind and entry.attribute == point.attr]
            if not found:
                raise UserError(
                    f"`{file}` defines no {kind} `{point.attr}`; the entry point must name the defining module"
                )
        except UserError as error:
            failures[point.name] = failures[f"{distribution}/{point.name}"] = f"{error.message} (from {distribution})"
            continue
        entries.append(replace(found[0], name=point.name, module=point.module, distribution=distribution))
    return entries, failures


def _module_file(module: str) -> Path:
    """Where a module lives, found without importing it or its parents."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is not None and not rest and spec.origin:
        return Path(spec.origin)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        base = Path(folder, *rest)
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                return candidate
    raise UserError(f"there is no module `{module}`")


def _load(entry: Entry) -> Any:
    try:
        module = importlib.import_module(entry.module) if entry.module else _import_file(entry.path)
        return getattr(module, entry.attribute)
    except (Exception, SystemExit) as error:
        raise plugin_error(entry.path, error, hint=f"run `python {entry.path}` for the full traceback") from error


def _import_file(path: Path) -> ModuleType:
    """A user's file as a module, imported once for each content.

    Its folder goes to the end of `sys.path`: the file can import its neighbours, which can hide no installed package.
    """
    digest = hashlib.sha256(bytes(path.resolve()) + path.read_bytes()).hexdigest()[:12]
    name = f"harness_user_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def recorded_method(folder: Path) -> Method | None:
    """The method that made the delta in a folder, as its record says; None without a record: PEFT adapters need none.

    Raises:
        UserError: The record is torn, or there is no such method any more.
    """
    record = folder / "method.json"
    if not record.is_file():
        return None
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        entry = find("method", content["method"])
        return Method(entry.name, entry.path, entry.module, content["hyperparameters"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"`{record}` is not a record of a method: {error}") from error
