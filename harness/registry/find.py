"""Finds tasks, methods and metrics by path, by name or by entry point, without importing them.

Files are read with `ast`, so listing is fast, a broken plugin hides no other plugin, and hyperparameters are checked
before torch is loaded. `harness.registry.load` imports the entries that are used.

- a path: `./x.py`, `./x.py@name`, a folder, `./folder@name`;
- a name: a built-in entry in a file of `harness.tasks`, `harness.finetune` or `harness.metrics`;
- an entry point of the groups `harness.tasks`, `harness.methods`, `harness.metrics`, as `name` or `distribution/name`.

Example:
    >>> entry = find("method", "lora")
    >>> entry.module, [parameter.name for parameter in entry.parameters][:2]
    ('harness.finetune.lora', ['rank', 'alpha'])
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness import metrics
from harness.data.files import expand
from harness.errors import UserError, did_you_mean
from harness.registry.scan import Entry, Kind, maker_entry, scan
from harness.registry.sources import sources_sha256

_PACKAGES: Mapping[Kind, str] = {"task": "harness.tasks", "method": "harness.finetune", "metric": "harness.metrics"}
_LONGEST_NAME, _LONGEST_PATH = 255, 3_800
"""Bytes; Linux allows 4,095 for a path, and names of files are added to what was typed."""


class NoEntry(UserError):
    """A file or folder has no entry of the requested kind, or none of the requested name."""


def list_entries(kind: Kind) -> list[Entry]:
    """All built-in entries and plugins of a kind, sorted by name; `broken_plugins` gives those that cannot be read."""
    entries = {entry.name: entry for entry in _plugins(kind)[0]} | {entry.name: entry for entry in _built_in(kind)}
    return sorted(entries.values(), key=lambda entry: entry.name)


def broken_plugins(kind: Kind) -> dict[str, str]:
    """Entry points that could not be read: name to error message."""
    return _plugins(kind)[1]


def find(kind: Kind, source: str) -> Entry:
    """Finds the one entry that `source` names.

    Raises:
        UserError: There is no such entry (the hint gives similar names), or there are several.

    Example:
        >>> find("task", "mini_gsm9k")
        Traceback (most recent call last):
        ...
        harness.errors.UserError: unknown task `mini_gsm9k`
    """
    entries = find_all(kind, source)
    if len(entries) > 1:
        names = ", ".join(f"`{entry.name}` (line {entry.line})" for entry in entries)
        raise UserError(
            f"`{source}` has {len(entries)} {kind}s: {names}",
            hint=f"name one of them, for example `{source}@{entries[0].name}`",
        )
    return entries[0]


def find_all(kind: Kind, source: str) -> list[Entry]:
    """Like `find`, but for a file or folder without `@name`, returns all of its entries.

    Raises:
        UserError: There is no such entry.
    """
    path, name = split_path(source)
    if is_path(source):
        return _in_path(kind, source, path, name)
    installed = find_installed(kind, source)
    if installed is not None:
        return [installed]
    if path.is_dir():
        return _in_path(kind, source, path, name)
    known = [entry.name for entry in list_entries(kind)]
    raise UserError(
        f"unknown {kind} `{source}`", hint=did_you_mean(source, known, listing=f"list them with `harness ls {kind}s`")
    )


def find_installed(kind: Kind, name: str) -> Entry | None:
    """Finds a built-in entry or a plugin by name; never a file. None if there is none.

    Raises:
        UserError: Two plugins have that name, or the plugin could not be read.
    """
    built_in = [entry for entry in _built_in(kind) if entry.name == name]
    if built_in:
        return _only(kind, built_in)
    plugins, failures = _plugins(kind)
    matches = [entry for entry in plugins if name in (entry.name, f"{entry.distribution}/{entry.name}")]
    if matches:
        return _only(kind, matches)
    if name in failures:
        raise UserError(f"{kind} `{name}` could not be read: {failures[name]}", hint="fix or uninstall that plugin")
    return None


def split_path(source: str) -> tuple[Path, str | None]:
    """Splits a source into the file or folder and the name after `@`, if any.

    Raises:
        UserError: It is longer than any name or path.

    Example:
        >>> split_path("./x.py@rslora")
        (PosixPath('x.py'), 'rslora')
    """
    sizes = [len(part.encode("utf-8", "surrogatepass")) for part in source.split("/")]
    if max(sizes) > _LONGEST_NAME or sum(sizes) + len(sizes) > _LONGEST_PATH:
        raise UserError(
            f"`{source[:60]}…` is too long for a name or a path: it has {len(source):,} characters",
            hint=f"a name has at most {_LONGEST_NAME} bytes, a path {_LONGEST_PATH:,}",
        )
    whole = expand(Path(source))
    head, at, name = source.rpartition("@")
    return (expand(Path(head)), name) if at and head and not whole.exists() else (whole, None)


def source_digest(entry: Entry) -> str:
    """SHA-256, in hex, of the code of the entry's file and of every local module that it loads."""
    return sources_sha256(entry.path)


def is_path(source: str) -> bool:
    """Whether a source is a file or folder, not a name."""
    path, _ = split_path(source)
    return path.suffix == ".py" or source.startswith((".", "/", "~")) or ("/" in source and path.is_dir())


def _in_path(kind: Kind, source: str, path: Path, name: str | None) -> list[Entry]:
    if not path.exists():
        nearby = [near.name for near in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UserError(
            f"no file `{path}` (given as {kind} `{source}`)",
            hint=did_you_mean(path.name, nearby) if nearby else "check the path",
        )
    files = sorted(path.glob("*.py")) if path.is_dir() else [path]
    entries = [entry for file in files for entry in scan(file) if entry.kind == kind]
    for entry in entries:
        _only(kind, [other for other in entries if other.name == entry.name])
    if not entries:
        raise NoEntry(
            f"`{path}` has no {kind}",
            hint=f"decorate a function with `@{kind}`, after `from harness import {kind}`"
            if kind != "metric"
            else 'write `name = Metric("name", …)`, after `from harness import Metric`',
        )
    if name is None:
        return entries
    for entry in entries:
        if entry.name == name:
            return [entry]
    raise NoEntry(f"`{path}` has no {kind} `{name}`", hint=did_you_mean(name, [entry.name for entry in entries]))


def _only(kind: Kind, entries: Sequence[Entry]) -> Entry:
    if len(entries) > 1:
        first, second = entries[:2]
        hint = "rename one of the two"
        if first.distribution and second.distribution:
            hint = f"write `{first.distribution}/{first.name}` or `{second.distribution}/{second.name}`"
        raise UserError(f"{kind} `{first.name}` is defined twice: {first.place} and {second.place}", hint=hint)
    return entries[0]


def _built_in(kind: Kind) -> list[Entry]:
    package = _PACKAGES[kind]
    spec = importlib.util.find_spec(package)  # imports nothing but `harness` itself
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
    """Entries from entry points, and the error messages of those that could not be read."""
    return _plugins_on(kind, tuple(sys.path))


@functools.lru_cache
def _plugins_on(kind: Kind, path: tuple[str, ...]) -> tuple[list[Entry], dict[str, str]]:
    """Plugins on one `sys.path`; cached, as reading the metadata of all installed distributions is slow."""
    entries: list[Entry] = []
    failures: dict[str, str] = {}
    for point in importlib.metadata.entry_points(group=f"harness.{kind}s"):
        distribution = point.dist.name if point.dist else ""
        try:
            file = _module_file(point.module)
            found = [entry for entry in scan(file) if entry.kind == kind and entry.attribute == point.attr]
            if not found:
                raise UserError(
                    f"`{file}` defines no {kind} `{point.attr}`; the entry point must name the module that defines it"
                )
        except UserError as error:
            failures[point.name] = failures[f"{distribution}/{point.name}"] = f"{error.message} (from {distribution})"
            continue
        entries.append(replace(found[0], name=point.name, module=point.module, distribution=distribution))
    return entries, failures


def _module_file(module: str) -> Path:
    """The file of a module, found without importing the module or its parents."""
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
