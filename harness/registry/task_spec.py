"""Task specs: the text by which a command line or a configuration asks for a task.

Example:
    >>> parse_task("mmlu:anatomy+virology").groups
    ('anatomy', 'virology')
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import UserError
from harness.registry.find import find
from harness.registry.values import read, unquote


@dataclass(frozen=True)
class TaskSpec:
    """A requested task: `mmlu:anatomy+virology`, `./capitals.py@capitals`."""

    text: str
    """The spec as typed; the task's name in results."""
    source: str
    """The part that `find` takes."""
    groups: tuple[str, ...] = ()
    """Groups to score; empty: all."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Values of `-T key=value`, with their types."""


def parse_task(text: str, parameters: Mapping[str, Any] | None = None) -> TaskSpec:
    """Parses `NAME[:GROUP{+GROUP}]` or `PATH[@NAME]`, and converts parameters to the types that the task declares.

    Args:
        text: The spec as typed.
        parameters: Values of `-T key=value`, as texts or already converted; names that the task lacks are left out.

    Raises:
        UserError: The text is malformed, the task is unknown (only looked up if there are parameters), or a value does
            not have the type of its parameter.
    """
    source, colon, groups_text = text.partition(":")
    groups = tuple(groups_text.split("+")) if colon else ()
    if not source or not all(groups):
        raise UserError(f"malformed task `{text}`", hint="write NAME, NAME:GROUP, NAME:GROUP+GROUP, PATH or PATH@NAME")
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
                raise UserError(
                    f"task `{source}`, parameter `{key}`: {error}",
                    hint=f"list its parameters with `harness show {source}`",
                ) from None
    return TaskSpec(text, source, groups, typed)
