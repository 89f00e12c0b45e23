"""Imports tasks, methods and metrics, once `harness.registry.find` has found them. Only here do user files run.

Example:
    >>> find_metric("word_ppl").higher_is_better
    False
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from harness import metrics
from harness.api import MethodFunction, Metric, Task, TaskFunction
from harness.data.digests import text_sha256
from harness.data.sources import Hub, configurations, source
from harness.errors import UserError, did_you_mean, plugin_error
from harness.registry.find import find, is_path, source_digest, split_path
from harness.registry.scan import Entry
from harness.registry.sources import FromSource, forget_changed, load_from_source, recorded, sources_sha256, use_folder
from harness.user_code import user_code


def load_task(entry: Entry, parameters: Mapping[str, Any], groups: Sequence[str] = ()) -> Task:
    """Imports a task's file and calls the task function with `parameters`.

    Args:
        entry: The task.
        parameters: Its parameters.
        groups: Groups that will be scored; empty: all. A task with one configuration on the Hub per group then reads only
            theirs.

    Raises:
        UserError: The task has no such parameter or group, or its file raises an exception (only the file's own frames are shown).
    """
    known = [parameter.name for parameter in entry.parameters]
    for key in parameters:
        if key not in known:
            raise UserError(f"task `{entry.name}` has no parameter `{key}`", hint=did_you_mean(key, known))
    function = _load(entry)
    if not isinstance(function, TaskFunction):
        raise UserError(
            f"`{entry.attribute}` in `{entry.path.name}` is not a task after the import",
            hint=f"does the file assign `{entry.attribute}` again after the `@task` at {entry.place}?",
        )
    try:
        with user_code(entry.path, f"its task function `{entry.attribute}`"), recorded(entry.path):
            made: Any = function(**parameters)
    except Exception as error:
        call = f"import {entry.path.stem}; {entry.path.stem}.{entry.attribute}()"
        raise plugin_error(
            entry.path, error, hint=f'for the full traceback, run `python -c "{call}"` in the folder of the file'
        ) from error
    if not isinstance(made, Task):
        raise UserError(
            f"task `{entry.name}` returned a {type(made).__name__}, not a Task",
            hint=f"return `Task(…)` from the function at {entry.place}",
        )
    if not groups or made.group is None:
        return made
    origin = source(made.data)
    if made.group == "config" and isinstance(origin, Hub) and isinstance(origin.name, tuple):
        for group in groups:  # known without reading 52 configurations
            if group not in origin.name:
                raise UserError(f"task `{entry.name}` has no group `{group}`", hint=did_you_mean(group, origin.name))
    shots_from = made.shots_from if made.shots_from is None else configurations(made.shots_from, groups)
    return replace(made, data=configurations(made.data, groups), shots_from=shots_from)


def load_method(entry: Entry) -> MethodFunction:
    """Imports a method's file and returns the method.

    Raises:
        UserError: The file raises an exception (only its own frames are shown).
    """
    function = _load(entry)
    if not isinstance(function, MethodFunction):
        raise UserError(
            f"`{entry.attribute}` in `{entry.path.name}` is not a method after the import",
            hint=f"does the file assign `{entry.attribute}` again after the `@method` at {entry.place}?",
        )
    return function


def find_metric(name: str, folder: Path | None = None) -> Metric:
    """Loads a metric by name: built-in, `pass@K`, `evaluate:NAME[:KEY]`, `./file.py@name`, or a plugin's.

    Args:
        name: The name, as a task or a user writes it.
        folder: Folder in which a relative path is looked up first; then, or if None, the working directory.

    Raises:
        UserError: There is no such metric, or its file raises an exception.
    """
    entry = _metric_entry(name, folder)
    if entry is None:
        return metrics.find(name, folder)
    metric = _load(entry)
    if not isinstance(metric, Metric):
        raise UserError(
            f"`{entry.attribute}` in `{entry.path.name}` is not a metric",
            hint=f"assign `Metric(…)` to it, and nothing else ({entry.place})",
        )
    return metric


def load_function(path: Path, name: str) -> Callable[..., Any]:
    """Imports a user's file and returns its function of that name.

    Raises:
        UserError: The file raises an exception (only its own frames are shown), or has no such function.
    """
    try:
        with user_code(path, "its import"), recorded(path):
            module = import_file(path)
    except Exception as error:
        raise plugin_error(path, error, hint=f"for the full traceback, run `python {path}`") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"`{path}` has no function `{name}`", hint=did_you_mean(name, known))
    return cast(Callable[..., Any], function)


def metric_digest(name: str, folder: Path | None = None) -> str:
    """Digest of the code of a metric, given by name as `find_metric` takes it.

    The code of a built-in metric is identified by its name: `REVISIONS["metrics"]` and versions belong to every key.
    """
    entry = _metric_entry(name, folder)
    if entry is not None:
        return source_digest(entry)
    script = (folder or Path()) / name.removeprefix("evaluate:").split(":")[0]
    if name.startswith("evaluate:") and script.suffix == ".py" and script.is_file():
        return sources_sha256(script)
    return name


def _metric_entry(name: str, folder: Path | None) -> Entry | None:
    """The entry of a metric by path or of a plugin; None: the metric is built in."""
    if name in metrics.names() or re.match(r"evaluate:|pass@\d", name):
        return None
    if folder is not None and is_path(name) and (folder / split_path(name)[0]).exists():
        name = str(folder / name)
    return find("metric", name)


def task_metrics(task: Task, folder: Path | None = None) -> tuple[Metric, ...]:
    """The metrics of a task; those given by name are loaded.

    Args:
        task: The task.
        folder: The folder of the task's file, to which relative paths of metrics refer.

    Raises:
        UserError: A metric does not exist, or two metrics have the same name.
    """
    found = tuple(find_metric(each, folder) if isinstance(each, str) else each for each in task.metrics)
    names = [metric.name for metric in found]
    if len(set(names)) < len(names):
        raise UserError(
            f"two metrics of a task have the same name: {', '.join(names)}", hint="rename one of the two metrics"
        )
    return found


def _load(entry: Entry) -> Any:
    try:
        users = not (entry.module or "").startswith("harness.")
        with user_code(entry.path, "its import") if users else contextlib.nullcontext(), recorded(entry.path):
            module = importlib.import_module(entry.module) if entry.module else import_file(entry.path)
        return getattr(module, entry.attribute)
    except Exception as error:
        raise plugin_error(entry.path, error, hint=f"for the full traceback, run `python {entry.path}`") from error


def import_file(path: Path) -> ModuleType:
    """Imports a user's file as a module, once for each content of it and of the local modules that it loads.

    Its folder is appended to `sys.path`: the file can import other files there, and these cannot shadow an installed
    package.

    Raises:
        UserError: The name does not end in `.py`, by which `harness.config.named_code` finds code in a `compare.yaml`.
    """
    if path.suffix != ".py":
        raise UserError(f"`{path}` is not a Python file", hint="code is read from files whose names end in .py")
    load_from_source()
    importlib.invalidate_caches()  # of folders to which a module was added a moment ago
    use_folder(path)
    forget_changed(path)
    digest = text_sha256(f"{path.resolve()}:{sources_sha256(path)}")[:12]
    name = f"harness_user_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path, loader=FromSource(name, str(path)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look up the module of a class by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
