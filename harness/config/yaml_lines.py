r"""Reads a YAML file as plain data with line numbers; scalars stay texts, exactly as written.

PyYAML reads `1e-5` as text, `no` as false and `1.10` as 1.1. Here every plain scalar stays a text, and the type of the field
that receives it decides how it is read. A scalar in quotes is marked as `Quoted`. A key that is given twice is an error.

Example:
    >>> parse("lr: 1e-5\nmodel: 'no'\n", "x.yaml").data
    {'lr': '1e-5', 'model': 'no'}
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UserError, together
from harness.registry.values import Quoted

_LONGEST, _MOST, _DEEPEST = 1 << 20, 20_000, 20
"""Limits of a file: characters, values with aliases written out, levels of nesting."""

Place = tuple[str | int, ...]
"""Path of keys and indices to a value."""


@dataclass(frozen=True)
class ConfigFile:
    """The content of a YAML file, with the line of each key."""

    name: str
    data: dict[str, Any]
    lines: dict[Place, int] = field(default_factory=dict)

    def where(self, place: Place) -> str:
        """`compare.yaml:4` for a key or its nearest known parent; else the name of the file."""
        while place and place not in self.lines:
            place = place[:-1]
        return f"{self.name}:{self.lines[place]}" if place else self.name


def load(path: Path) -> ConfigFile:
    """Reads a YAML file.

    Raises:
        UserError: The file is missing or unreadable, is not YAML or not a mapping, or gives a key twice.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return parse(file.read(_LONGEST + 1), str(path))  # a device or a pipe may never end
    except OSError as error:
        raise UserError(f"could not read `{path}`: {error.strerror}", hint="check `--config`") from error
    except UnicodeDecodeError as error:
        raise UserError(f"`{path}` is not UTF-8: {error.reason} at byte {error.start}") from error


def parse(text: str, name: str) -> ConfigFile:
    """Reads YAML from a text; see `load`.

    Raises:
        UserError: See `load`.
    """
    import yaml

    if len(text) > _LONGEST:
        raise UserError(f"`{name}` has more than {_LONGEST:,} characters, the most that are read")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except RecursionError as error:
        raise UserError(f"`{name}` is nested too deeply; at most {_DEEPEST} levels are read") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise UserError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    lines: dict[Place, int] = {}
    problems: list[UserError] = []

    count = 0

    def plain(node: Any, place: Place) -> Any:
        nonlocal count
        count += 1  # an alias gives its node again each time
        if count > _MOST or len(place) > _DEEPEST:
            what = f"has more than {_MOST:,} values" if count > _MOST else f"is nested more than {_DEEPEST} levels deep"
            raise UserError(
                f"{name}:{node.start_mark.line + 1}: the file {what}, aliases (`*name`) written out",
                hint="write the values themselves in place of aliases",
            )
        if isinstance(node, yaml.MappingNode):
            return dict(pairs(node, place))
        if isinstance(node, yaml.SequenceNode):
            for index, each in enumerate(node.value):
                lines[(*place, index)] = each.start_mark.line + 1
            return [plain(each, (*place, index)) for index, each in enumerate(node.value)]
        if node.style is not None:
            return Quoted(node.value)
        return None if node.tag.endswith(":null") else str(node.value)

    def pairs(node: Any, place: Place) -> Iterator[tuple[str, Any]]:
        for key_node, value_node in node.value:
            here, line = (*place, str(key_node.value)), key_node.start_mark.line + 1
            if here in lines:
                problems.append(UserError(f"{name}:{line}: `{key_node.value}` is given twice"))
            lines[here] = line
            yield str(key_node.value), plain(value_node, here)

    data = plain(root, ()) if root is not None else {}
    if problems:
        raise together(problems)
    if not isinstance(data, dict):
        raise UserError(f"`{name}` is not a mapping of keys", hint="for example `model: tiny`")
    return ConfigFile(name, data, lines)
