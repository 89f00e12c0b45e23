"""Only code that the user named runs: what a `compare.yaml` cannot do, because anybody may have written it.

The file can name built-in and installed tasks, methods and metrics. A Python file in it must also be in the command: as a
variant, as a task, or with `--allow-code`. Permissions (`trust_remote_code`, `confirm_run_unsafe_code`) are given on the command line.
A server in it must be in the command, too: it receives the prompts and the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.config.yaml_lines import ConfigFile, Place
from harness.data.files import expand
from harness.errors import UserError, printable
from harness.jobs import SERVED_PREFIX
from harness.registry.find import find_installed
from harness.registry.scan import Kind

PERMISSIONS = ("trust_remote_code", "confirm_run_unsafe_code")
"""Settings that allow foreign code to run."""
_WORD = re.compile(r"[^\s,+=:*\"@]+")
"""A part of a spec or of a mix of data that can be a path."""
_SERVER = re.compile(rf"{SERVED_PREFIX}([^#\s]+)#")
"""The address of a server in a model or a variant."""
_ROWS = ("data", "validation")
"""Keys whose folders are read as rows."""


def code_problems(written: ConfigFile, variants: Sequence[str], settings: Mapping[str, Any]) -> list[UserError]:
    """The errors of a file that names code, or allows it, where the command does not.

    Args:
        written: The file.
        variants: The variants in the command; if they name entries of the file, only those take effect.
        settings: The settings in the command.
    """
    typed = {_resolved(expand(Path(word))) for text in _texts((variants, settings)) for word in _words(text)}
    problems = []
    given = list(_texts((variants, settings)))
    for place, text in _effective(written, variants, settings):
        where = written.where(place)
        for url in _SERVER.findall(text):
            if not any(url in each for each in given):
                problems.append(
                    UserError(
                        f"{where}: the file names the server `{printable(url)}`, and only servers that you name yourself get"
                        " prompts and a key",
                        hint="if you trust it, type it: `--model endpoint:…`, or the variant in the command",
                    )
                )
        if place[-1] in PERMISSIONS and text.lower() not in ("false", "no", "off", "0"):
            if not settings.get(str(place[-1])):
                flag = "--" + str(place[-1]).replace("_", "-")
                problems.append(
                    UserError(f"{where}: a file cannot set `{place[-1]}`", hint=f"if you allow it, type `{flag}`")
                )
        elif place[0] == "allow_code":
            problems.append(UserError(f"{where}: a file cannot set `allow_code`", hint=f"type `--allow-code {text}`"))
        elif place[0] not in ("model", "output_dir", "baseline"):
            for path in _code_in(text, place):
                resolved = _resolved(path)
                if typed.isdisjoint((resolved, *resolved.parents)):
                    problems.append(
                        UserError(
                            f"{where}: the file names the Python code `{path}`, and only code that you name yourself runs",
                            hint=f"read it; if you trust it, add `--allow-code {path}` to the command",
                        )
                    )
    return problems


def _effective(
    written: ConfigFile, variants: Sequence[str], settings: Mapping[str, Any]
) -> Iterator[tuple[Place, str]]:
    """The texts of the file that the command does not override, with their places."""
    for place, text in _places(written.data):
        given = settings.get(str(place[0]))
        if place[0] in ("train", "task_parameters") and isinstance(given, Mapping) and len(place) > 1:
            given = given.get(place[1])
        elif place[0] in ("train", "task_parameters"):
            given = None
        if place[0] == "variants" and len(place) > 1 and variants and place[1] not in variants:
            continue
        if given is None or place[0] in PERMISSIONS:
            yield place, text


def _places(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if place == ("variants",):  # an entry's name is its source if it names none
                yield (*place, key), str(key)
            yield from _places(each, (*place, key))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _places(each, (*place, number))
    elif value is not None:
        yield place, str(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str | Path):
        yield str(value)


def _words(text: str) -> list[str]:
    """Everything in a text that can be a path: its words, then the whole text, as a path may have any character."""
    return list(dict.fromkeys([*_WORD.findall(text), text]))


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):  # a null byte, a name too long, a link to itself
        return path


def _code_in(text: str, place: Place) -> Iterator[Path]:
    """Python files, and folders with Python files, that a text names."""
    if text.startswith("evaluate:") and ".py" not in text and not text.startswith(("evaluate:.", "evaluate:/")):
        yield Path(text)  # a metric of the `evaluate` library is code from the Hub
    for word in _words(text):
        path = expand(Path(word))
        # a folder of data is read, not imported; `codedir`, `./codedir@task` and `~/codedir` are sources of a task
        is_rows = place[-1] in _ROWS and "/" in word and not word.startswith("~") and "@" not in text
        if ".py" in (path.suffix, _resolved(path).suffix) or (
            _has_code(path) and not is_rows and find_installed(_kind(text, place, word), word) is None
        ):
            yield path
            return


def _has_code(path: Path) -> bool:
    try:
        return path.is_dir() and any(path.glob("*.py"))
    except (OSError, ValueError):  # a name too long for the file system, or with a null byte
        return False


def _kind(text: str, place: Place, word: str) -> Kind:
    """The kind of entry that a word can name; a built-in or installed entry hides a folder of that name."""
    if place[0] == "task_parameters":
        return "metric"
    source = re.match(rf"(?:[\w.-]+=)?{re.escape(word)}(?=$|[:@])", text)
    return "method" if place[0] == "variants" and source and text.count(word) == 1 else "task"
