"""Reads files of other tools within limits: one clear error that names the file, the line and the field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from harness.errors import UserError, one_line
from harness.storage import read_json

LINE_BYTES = 32 << 20
"""Longest line of a samples file; a prompt of a million tokens has about 5 MB."""
MOST_SAMPLES = 20_000_000
LONGEST_NAME = 300
"""Characters of the name of a task, a metric or a model."""


def refused(file: Path | str, what: str, hint: str | None = None) -> UserError:
    """The error for a file that cannot be used."""
    return UserError(
        f"`{file}`: {what}", hint or "was the file edited or cut short? copy it again from where it was written"
    )


def document(file: Path) -> dict[str, Any]:
    """Reads a JSON object; infinite numbers, deep nesting and huge lists are refused.

    Raises:
        UserError: The file cannot be read, or is no JSON object.
    """
    try:
        found = read_json(file)
    except ValueError as error:
        raise refused(file, f"it is not JSON: {one_line(error)}") from error
    except OSError as error:
        raise refused(
            file, f"could not be read: {error.strerror}", "check that you have permission to read it"
        ) from error
    if not isinstance(found, dict):
        raise refused(file, f"it is a {type(found).__name__}, not an object")
    return found


def lines(file: Path, name: str | None = None, stream: BinaryIO | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Generates the lines of a JSONL file with their numbers from 1, one at a time.

    Args:
        file: The file.
        name: Its name in messages, if it is inside another file.
        stream: The opened file, if it is inside another file.

    Raises:
        UserError: The file cannot be read, or a line is too long or is no JSON object.
    """
    shown = name or str(file)
    try:
        with stream or file.open("rb") as opened:
            for number in range(1, MOST_SAMPLES + 2):
                line = opened.readline(LINE_BYTES + 1)
                if not line:
                    return
                if len(line) > LINE_BYTES:
                    raise refused(shown, f"line {number} has more than {LINE_BYTES:,} bytes")
                if not line.strip():
                    continue
                if number > MOST_SAMPLES:
                    raise refused(shown, f"it has more than {MOST_SAMPLES:,} lines")
                yield number, _row(shown, number, line)
    except OSError as error:
        raise refused(
            shown, f"could not be read: {error.strerror}", "check that you have permission to read it"
        ) from error


def _row(shown: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        cut = "" if line.endswith(b"\n") else ", and the file ends there: it was cut short"
        raise refused(shown, f"line {number} is not JSON{cut}") from error
    if not isinstance(row, dict):
        raise refused(shown, f"line {number} is a {type(row).__name__}, not an object")
    return row


def objects(file: Path | str, found: Mapping[str, Any], field: str, *, needed: bool = True) -> dict[str, Any]:
    """An object in a document.

    Raises:
        UserError: It is missing, or something else.
    """
    value = found.get(field)
    if value is None and not needed:
        return {}
    if not isinstance(value, dict):
        raise refused(
            file, f"`{field}` is " + ("missing" if value is None else f"a {type(value).__name__}, not an object")
        )
    return value


def number(file: Path | str, field: str, value: Any) -> float:
    """A finite number in a document.

    Raises:
        UserError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refused(
            file, f"`{field}` is " + ("missing" if value is None else f"a {type(value).__name__}, not a number")
        )
    if not is_finite(value):
        raise refused(file, f"`{field}` is not a finite number")
    return float(value)


def is_finite(value: float) -> bool:
    """Whether a number is one that arithmetic can use; JSON has integers of any length.

    Example:
        >>> is_finite(10**400), is_finite(1)
        (False, True)
    """
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def text(file: Path | str, field: str, value: Any) -> str:
    """A name in a document, at most `LONGEST_NAME` characters long.

    Raises:
        UserError: It is something else.
    """
    if not isinstance(value, str) or not value.strip():
        raise refused(
            file,
            f"`{field}` is "
            + ("missing or empty" if value is None or value == "" else f"{str(value)[:40]!r}, not a name"),
        )
    if len(value) > LONGEST_NAME:
        raise refused(file, f"`{field}` has {len(value):,} characters")
    if value != value.encode("utf-8", "replace").decode("utf-8"):
        raise refused(file, f"`{field}` has half of a character")
    return value


_SECRET = re.compile(r"token|secret|passw|api_?key|credential|authorization", re.IGNORECASE)


def without_secrets(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a model without those that may be a secret: they are shown and published.

    Example:
        >>> without_secrets({"pretrained": "org/base", "token": "hf_x"})
        {'pretrained': 'org/base'}
    """
    return {name: value for name, value in arguments.items() if not _SECRET.search(name) or "tokeniz" in name}
